"""Small ONNX models made by hand: every property a test needs, and nothing trained."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper, save

Value = tuple[str, int, Sequence[int | str | None]]  # name, type of its elements, shape


def model_of(
    nodes: Sequence[Any], inputs: Sequence[Value], outputs: Sequence[Value], weights: dict[str, Any]
) -> ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    return model


def linear(path: Path, *, scale: float = 1.0, rows: int | str | None = "n") -> Path:
    """x (n, 3) FP32 -> y (n, 2) = x @ w + b, and its larger place as best (n,) INT64. rows: another first dimension."""
    w = (np.arange(6, dtype=np.float32).reshape(3, 2) - 2) * np.float32(scale)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"]),
        helper.make_node("Add", ["xw", "b"], ["y"]),
        helper.make_node("ArgMax", ["y"], ["best"], axis=1, keepdims=0),
    ]
    outputs: list[Value] = [("y", TensorProto.FLOAT, [rows, 2]), ("best", TensorProto.INT64, [rows])]
    model = model_of(nodes, [("x", TensorProto.FLOAT, [rows, 3])], outputs, {"w": w, "b": np.float32([0.5, -0.5])})
    return saved(model, path)


def repository(folder: Path, **identities: int) -> None:
    """linear.onnx, `scaled` in two versions, and an identity of each name with elements of that type."""
    linear(folder / "linear.onnx")
    for number in (1, 2):
        linear(folder / "scaled" / str(number) / "model.onnx", scale=number)
    for name, kind in identities.items():
        identity(folder / f"{name}.onnx", kind)


def centred(path: Path) -> Path:
    """x (n, 3) FP32 -> y (n, 3): x less the mean of its rows, so that rows must not be computed together."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    shape: list[int | str | None] = ["n", 3]
    return saved(model_of(nodes, [("x", TensorProto.FLOAT, shape)], [("y", TensorProto.FLOAT, shape)], {}), path)


def lookup(path: Path) -> Path:
    """i (n,) INT64 -> y (n,) FP32: the square of i, 0 to 9; any other i makes the run fail."""
    squares = np.arange(10, dtype=np.float32) ** 2
    nodes = [helper.make_node("Gather", ["table", "i"], ["y"])]
    model = model_of(nodes, [("i", TensorProto.INT64, ["n"])], [("y", TensorProto.FLOAT, ["n"])], {"table": squares})
    return saved(model, path)


def identity(path: Path, element: int) -> Path:
    """x (n, 2) -> y (n, 2), the same values."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return saved(model_of(nodes, [("x", element, ["n", 2])], [("y", element, ["n", 2])], {}), path)


def with_weights_in(path: Path, place: str) -> Path:
    """x (n, 3) FP32 -> y (n, 2) = x @ w, whose w (3, 2) lies in another file, at its begin."""
    w = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", place), ("offset", "0"), ("length", "24")):
        w.external_data.add(key=key, value=value)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", n]) for name, n in (("x", 3), ("y", 2))]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "graph", values[:1], values[1:], [w])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def slow(path: Path, size: int = 1100, num_products: int = 6) -> Path:
    """x (n, size) FP32 -> y (n, size): a chain of products, tens of milliseconds a row."""
    w = (np.eye(size) * 0.5).astype(np.float32)
    names = ["x", *(f"h{i}" for i in range(num_products - 1)), "y"]
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in pairwise(names)]
    shape: list[int | str | None] = ["n", size]
    return saved(model_of(nodes, [("x", TensorProto.FLOAT, shape)], [("y", TensorProto.FLOAT, shape)], {"w": w}), path)


def saved(model: ModelProto, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, str(path))
    return path
