"""The family `onnx`: any network in an ONNX file, run by onnxruntime."""
