"""Models in ONNX, tensors in and tensors out: their settings, versions and runs. Knows nothing of processes or HTTP."""
