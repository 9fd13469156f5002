"""What ONNX's operators are here, one file per family."""
