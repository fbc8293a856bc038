"""Reads handwritten digits over gRPC with Triton's client: images_ask.py HOST:PORT MODEL"""

import sys

import numpy as np
import tritonclient.grpc as triton
from sklearn.datasets import load_digits

digits = load_digits()
images = digits.images[-20:].astype(np.uint8)  # (20, 8, 8)
with triton.InferenceServerClient(sys.argv[1]) as client:
    tensor = triton.InferInput("image", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images)
    probabilities = client.infer(sys.argv[2], [tensor]).as_numpy("probabilities")
for row, written in zip(probabilities, digits.target[-20:], strict=True):
    print(f"read {row.argmax()} with {row.max():.3f}, written {written}")
