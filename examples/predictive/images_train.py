"""Makes a small convolutional network for handwritten digits by hand and exports it: images_train.py FOLDER

Its 64 filters are random and stay so; only the layer behind them is trained, which takes seconds and no framework. The
scaling of pixels is part of the model, so that a client sends them as they are.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

images, target = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8).astype(np.uint8)  # (1797, 8, 8), 0 to 16
train, test, train_target, test_target = train_test_split(images, target, random_state=0)


def network(weights: dict[str, np.ndarray], nodes: list, output: tuple[str, int]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 8, 8])],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, ["n", output[1]])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


filters = np.random.default_rng(0).normal(size=(64, 1, 3, 3)).astype(np.float32)
weights = {"filters": filters, "white": np.float32(16), "axis": np.array([1])}
nodes = [
    helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
    helper.make_node("Div", ["float", "white"], ["scaled"]),
    helper.make_node("Unsqueeze", ["scaled", "axis"], ["channel"]),
    helper.make_node("Conv", ["channel", "filters"], ["conv"], pads=[1, 1, 1, 1]),
    helper.make_node("Relu", ["conv"], ["relu"]),
    helper.make_node("MaxPool", ["relu"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
    helper.make_node("Flatten", ["pool"], ["features"]),
]
features = onnxruntime.InferenceSession(network(weights, nodes, ("features", 1024)))
last = LogisticRegression(C=0.2, tol=1e-3, max_iter=150).fit(features.run(None, {"image": train})[0], train_target)

weights |= {"w": last.coef_.T.astype(np.float32), "b": last.intercept_.astype(np.float32)}
nodes += [
    helper.make_node("Gemm", ["features", "w", "b"], ["scores"]),
    helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
]
onnx = network(weights, nodes, ("probabilities", 10))
found = onnxruntime.InferenceSession(onnx).run(None, {"image": test})[0].argmax(1)
folder = Path(sys.argv[1])
(folder / "1").mkdir(parents=True, exist_ok=True)
(folder / "1" / "model.onnx").write_bytes(onnx)
print(f"{np.mean(found == test_target):.1%} of {len(test)} unseen images are right")
