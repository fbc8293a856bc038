"""Scores rows with Triton's client: tabular_ask.py HOST:PORT MODEL"""

import sys

import numpy as np
import tritonclient.http as triton
from sklearn.datasets import load_breast_cancer

rows = load_breast_cancer().data[:5].astype(np.float32)
with triton.InferenceServerClient(sys.argv[1]) as client:
    tensor = triton.InferInput("X", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    result = client.infer(sys.argv[2], [tensor], outputs=[triton.InferRequestedOutput("probabilities")])
for malignant, benign in result.as_numpy("probabilities"):
    print(f"malignant {malignant:.3f}  benign {benign:.3f}")
