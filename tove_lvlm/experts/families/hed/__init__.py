"""The family `hed`: edges by HED, holistically-nested edge detection."""
