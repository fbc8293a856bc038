"""Predictive models against ONNX Runtime itself: metadata, batches, versions, settings, and everything refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from inferd.errors import ConfigError, InvalidRequestError, ModelLoadError, UnsupportedModelError
from inferd.predictive.model import PredictiveModel
from inferd.predictive.tensors import DTYPES, to_bytes
from inferd.worker.predicting import Predictor
from inferd.worker.protocol import Infer, Inferred, Tensor, TextPrompt, Tokenize
from support import onnx_models

ELEMENTS = {
    "BOOL": TensorProto.BOOL, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16, "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16, "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64, "FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}  # fmt: skip


def tensor(name: str, array: Any, datatype: str = "FP32") -> Tensor:
    array = np.asarray(array, DTYPES[datatype])
    return Tensor(name=name, datatype=datatype, shape=array.shape, data=to_bytes(array))


def infer(*inputs: Tensor, **fields: Any) -> Infer:
    return Infer(call_id=fields.pop("call_id", "c"), inputs=list(inputs), **fields)


def ask(predictor: Predictor, *calls: Infer) -> list[Inferred]:
    return list(predictor.run([predictor.pending(call) for call in calls]))


def floats(data: bytes) -> Any:
    return np.frombuffer(data, "<f4")


def predictor(path: Path, settings: dict[str, Any] | None = None) -> Predictor:
    if settings is not None:
        (path if path.is_dir() else path.parent).joinpath("inferd.json").write_text(json.dumps(settings))
    return Predictor(PredictiveModel(path, 1))


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    return onnx_models.linear(tmp_path / "linear.onnx")


def test_answers_are_those_of_onnxruntime(linear: Path) -> None:
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    (reply,) = ask(predictor(linear), infer(tensor("x", x)))
    y, best = onnxruntime.InferenceSession(str(linear)).run(None, {"x": x})
    assert [(t.name, t.datatype, t.shape) for t in reply.outputs] == [("y", "FP32", (5, 2)), ("best", "INT64", (5,))]
    assert reply.outputs[0].data == y.tobytes()
    assert reply.outputs[1].data == best.astype("<i8").tobytes()
    assert (reply.version, reply.batch_size) == ("1", 5)


@pytest.mark.parametrize("datatype", ELEMENTS)
def test_every_datatype_goes_through_unchanged(tmp_path: Path, datatype: str) -> None:
    values: Any = [["a", "é\0"], ["", "z" * 300]] if datatype == "BYTES" else [[0, 1], [1, 1]]
    sent = tensor("x", values, datatype)
    (reply,) = ask(predictor(onnx_models.identity(tmp_path / "m.onnx", ELEMENTS[datatype])), infer(sent))
    assert reply.outputs == [Tensor(name="y", datatype=datatype, shape=(2, 2), data=sent.data)]


def test_rows_of_several_calls_are_computed_together_and_come_apart(linear: Path) -> None:
    model = predictor(linear)
    inputs = [np.full((rows, 3), rows, np.float32) for rows in (1, 3, 2)]
    together = ask(model, *(infer(tensor("x", x), call_id=str(i)) for i, x in enumerate(inputs)))
    assert [reply.call_id for reply in together] == ["0", "1", "2"]
    assert {reply.batch_size for reply in together} == {6}
    for x, reply in zip(inputs, together, strict=True):
        (alone,) = ask(model, infer(tensor("x", x)))
        assert [t.shape for t in alone.outputs] == [t.shape for t in reply.outputs]
        np.testing.assert_allclose(floats(alone.outputs[0].data), floats(reply.outputs[0].data), rtol=1e-6)


def test_one_call_that_fails_does_not_fail_its_neighbours(tmp_path: Path) -> None:
    model = predictor(onnx_models.lookup(tmp_path / "lookup.onnx"))
    good, bad = (infer(tensor("i", [value], "INT64")) for value in (3, 99))
    with pytest.raises(InvalidRequestError, match="refuses"):
        ask(model, good, bad)
    assert floats(ask(model, good)[0].outputs[0].data).tolist() == [9.0]  # as the host asks again, one by one


def test_outputs_are_selected_in_the_order_asked(linear: Path) -> None:
    model = predictor(linear)
    x = tensor("x", [[1, 2, 3]])
    one, other = ask(model, infer(x, outputs=["best"]), infer(x, outputs=["best", "y"]))
    assert [t.name for t in one.outputs] == ["best"]
    assert [t.name for t in other.outputs] == ["best", "y"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (infer(), "input 'x' is missing"),
        (infer(tensor("z", [[1, 2, 3]])), "inputs must be x, got 'z'"),
        (infer(tensor("x", [[1, 2, 3]]), tensor("x", [[1, 2, 3]])), "each tensor once"),
        (infer(tensor("x", [[1, 2, 3]], "FP64")), "input 'x' must be FP32, got FP64"),
        (infer(tensor("x", [[1, 2]])), r"must have the shape \[-1, 3\], got \[1, 2\]"),
        (infer(tensor("x", [1, 2, 3])), r"must have the shape \[-1, 3\], got \[3\]"),
        (infer(tensor("x", np.zeros((0, 3)))), "from 1 to 65536 rows, got 0"),
        (infer(Tensor(name="x", datatype="FP32", shape=(2, 3), data=bytes(12))), "must hold 24 bytes"),
        (infer(Tensor(name="x", datatype="FP32", shape=(-1, 3), data=b"")), "sizes of at least 0"),
        (infer(tensor("x", [[1, 2, 3]]), outputs=["q"]), "outputs must be among y, best, got 'q'"),
        (infer(tensor("x", [[1, 2, 3]]), version="7"), "version must be one of 1, got '7'"),
        (infer(tensor("x", [[1, 2, 3]]), timeout=-1.0), "timeout must be above 0"),
        (infer(tensor("x", [[1, 2, 3]]), priority=-1), "priority must be from 0"),
        (Tokenize(call_id="c", prompt=TextPrompt(text="a")), "inference on tensors only"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(linear: Path, call: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        predictor(linear).pending(call)


@pytest.mark.parametrize(
    "data",
    [b"", struct.pack("<I", 5) + b"abc", struct.pack("<I", 1) + b"\xff" + struct.pack("<I", 0), bytes(12), b"\xff" * 8],
)
def test_broken_texts_are_refused(tmp_path: Path, data: bytes) -> None:
    model = predictor(onnx_models.identity(tmp_path / "m.onnx", TensorProto.STRING))
    with pytest.raises(InvalidRequestError, match="input 'x'"):
        model.pending(infer(Tensor(name="x", datatype="BYTES", shape=(1, 2), data=data)))


def test_a_huge_shape_takes_no_memory(tmp_path: Path) -> None:
    model = predictor(onnx_models.identity(tmp_path / "m.onnx", TensorProto.STRING))
    with pytest.raises(InvalidRequestError, match="must hold"):
        model.pending(infer(Tensor(name="x", datatype="BYTES", shape=(2**40, 2), data=b"")))


def test_rows_that_depend_on_each_other_are_found_and_not_batched(tmp_path: Path) -> None:
    path = onnx_models.centred(tmp_path / "centred.onnx")
    model = PredictiveModel(path, 1)
    assert not model.latest.is_batched
    assert "other answers" in model.latest.why_alone
    groups = {Predictor(model).pending(infer(tensor("x", [[1, 2, 3]]), call_id=i)).group for i in "ab"}
    assert len(groups) == 2
    with pytest.raises(ConfigError, match="other answers"):
        predictor(path, {"batching": {"enabled": True}})


def test_a_model_of_a_fixed_size_is_not_batched(tmp_path: Path) -> None:
    path = onnx_models.linear(tmp_path / "m.onnx", rows=2)
    assert PredictiveModel(path, 1).latest.why_alone.startswith("not every tensor")
    (reply,) = ask(predictor(path), infer(tensor("x", np.ones((2, 3)))))
    assert reply.outputs[0].shape == (2, 2)


def test_versions_and_their_policies(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        onnx_models.linear(tmp_path / "m" / str(number) / "model.onnx", scale=number)
    (tmp_path / "m" / "notes").mkdir()
    model = predictor(tmp_path / "m")
    x = tensor("x", [[1, 0, 0]])
    first = {v: floats(reply.outputs[0].data)[0] for v in ("", "1", "2") for reply in ask(model, infer(x, version=v))}
    assert first == {"": 0.5 - 20, "1": 0.5 - 2, "2": 0.5 - 4}
    assert [ask(model, infer(x))[0].version, ask(model, infer(x, version="2"))[0].version] == ["10", "2"]
    for policy, expected in (("all", ["1", "2", "10"]), ("latest", ["10"]), ([2, 1], ["1", "2"])):
        (tmp_path / "m" / "inferd.yaml").write_text(f"versions: {json.dumps(policy)}\n")
        assert list(PredictiveModel(tmp_path / "m", 1).versions) == expected
    (tmp_path / "m" / "inferd.yaml").write_text("versions: [3]\n")
    with pytest.raises(ConfigError, match="names 3"):
        PredictiveModel(tmp_path / "m", 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batchin": {}}, "inferd.json: .*batchin"),
        ({"batching": {"max_batch": 3}}, "inferd.json: batching: .*max_batch"),
        ({"batching": {"max_batch_size": 0}}, "batching.max_batch_size: .*>= 1"),
        ({"instances": "2"}, "instances: Expected `int`"),
        ({"labels": {"z": ["a"]}}, "labels names 'z', the model has y, best"),
        ({"labels": {"y": ["a"]}}, "labels.y must hold 2 names, got 1"),
        ({"features": {"x": ["a"]}}, "features.x must hold 3 names, got 1"),
        ({"warm_up": [{"z": 1}]}, "must name the inputs x, got z"),
        ({"warm_up": [{"x": [["a", 2, 3]]}]}, "warm_up: x"),
        ({"warm_up": [{"x": [[1, 2]]}]}, "warm_up: .*shape"),
        ({"versions": [1]}, "versions must be all or latest"),
    ],
)
def test_settings_are_checked_by_name(linear: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        predictor(linear, settings)


def test_settings_of_one_file_come_before_those_of_its_folder(linear: Path) -> None:
    (linear.parent / "inferd.yaml").write_text("instances: 2\n")
    assert PredictiveModel(linear, 4).to_json()["threads"] == 2
    (linear.parent / "linear.inferd.yaml").write_text("instances: 1\nbatching: {max_delay: 0.01, enabled: false}\n")
    model = PredictiveModel(linear, 4)
    assert (model.num_threads, model.settings.batching.max_delay, model.latest.is_batched) == (4, 0.01, False)
    (linear.parent / "linear.inferd.json").write_text("{}")
    with pytest.raises(ConfigError, match="may be one"):
        PredictiveModel(linear, 4)


def test_limits_hold(linear: Path) -> None:
    with pytest.raises(InvalidRequestError, match="from 1 to 2 rows, got 3"):
        predictor(linear, {"limits": {"max_rows": 2}}).pending(infer(tensor("x", np.ones((3, 3)))))
    with pytest.raises(InvalidRequestError, match="at most 30 bytes, got 36"):
        predictor(linear, {"limits": {"max_bytes": 30}}).pending(infer(tensor("x", np.ones((3, 3)))))
    with pytest.raises(InvalidRequestError, match="the outputs hold 48 bytes"):
        ask(predictor(linear, {"limits": {"max_bytes": 40}}), infer(tensor("x", np.ones((2, 3)))),
            infer(tensor("x", np.ones((3, 3)))))  # fmt: skip


def test_metadata_says_what_the_model_is(linear: Path) -> None:
    facts = PredictiveModel(linear, 1).to_json()
    version = facts["versions"]["1"]
    assert facts["platform"] == "onnxruntime_onnx"
    assert version["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert version["outputs"][1] == {"name": "best", "datatype": "INT64", "shape": [-1]}
    assert version["is_batched"]
    json.dumps(facts)


def test_files_that_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelLoadError, match=r"m\.onnx") as caught:
        PredictiveModel(tmp_path / "m.onnx", 1)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("place", ["/etc/passwd", "../outside.bin", "link.bin"])
def test_weights_are_read_from_no_file_outside_the_models_folder(tmp_path: Path, place: str) -> None:
    (tmp_path / "outside.bin").write_bytes(np.arange(6, dtype=np.float32).tobytes())
    path = onnx_models.with_weights_in(tmp_path / "m" / "m.onnx", place)
    (path.parent / "link.bin").symlink_to(tmp_path / "outside.bin")
    with pytest.raises(ModelLoadError, match=r"m\.onnx") as caught:
        PredictiveModel(path, 1)
    assert str(tmp_path) not in str(caught.value)


def test_a_type_that_is_not_served_is_named(tmp_path: Path) -> None:
    path = onnx_models.identity(tmp_path / "m.onnx", TensorProto.BFLOAT16)
    with pytest.raises(UnsupportedModelError, match=r"input 'x' is tensor\(bfloat16\)"):
        PredictiveModel(path, 1)


def test_without_the_extra_the_message_names_it(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"inferd\[onnx\]"):
        PredictiveModel(linear, 1)
