"""Networks that another runtime runs (ONNX, TFLite, OpenCV), as frozen experts: what the families share."""
