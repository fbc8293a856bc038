"""Pipelines: their files, and the steps that need no model."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from inferd.errors import ConfigError, InvalidRequestError
from inferd.pipelines.spec import KINDS, Settings, read_pipeline
from inferd.pipelines.steps import apply, to_json
from inferd.pipelines.tensors import to_tensor
from inferd.predictive.tensors import TensorSpec


def written(folder: Path, text: str) -> Path:
    path = folder / "p.yaml"
    path.write_text(text)
    return path


def test_a_file_is_a_pipeline(tmp_path: Path) -> None:
    text = "steps:\n  - columns: {names: [a, b]}\n  - infer: {model: m}\n  - softmax\n  - labels: {top: 2}\n"
    pipeline = read_pipeline(written(tmp_path, text))
    assert (pipeline.name, pipeline.models) == ("p", ["m"])
    assert [kind for kind, _ in pipeline.steps] == ["columns", "infer", "softmax", "labels"]


@pytest.mark.parametrize(("text", "message"), [
    ("steps: []", "steps must be from 1 to 64"),
    ("name: x", "must have a name and a list of steps"),
    ("steps: [{magic: {}}]", r"steps\[0\]: 'magic' is no step; there are argmax, array"),
    ("steps: [softmax, {scale: {by: 2}}]", r"steps\[1\]: scale: .*`by`"),
    ("steps: [{scale: {divide: two}}]", r"steps\[0\]: scale: "),
    ("steps: [{a: {}, b: {}}]", "one kind of step"),
    ("steps: [softmax]\nextra: 1", "'extra' is no key"),
    ("name: a/b\nsteps: [softmax]", "without slashes"),
    ("steps: [", "p.yaml: "),
])  # fmt: skip
def test_a_mistake_in_a_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_pipeline(written(tmp_path, text))


def step(kind: str, **settings: Any) -> Settings:
    return KINDS[kind](**settings)


@pytest.mark.parametrize(("settings", "value", "expected"), [
    (step("columns", names=["b", "a"]), [{"a": 1, "b": 2.5}], [[2.5, 1.0]]),
    (step("columns", names=["a"]), {"a": 1}, [[1.0]]),
    (step("array"), [[1, 2], [3, 4]], [[1.0, 2.0], [3.0, 4.0]]),
    (step("scale", subtract=[1, 2], divide=2), [[1, 2], [3, 4]], [[0.0, 0.0], [1.0, 1.0]]),
    (step("reshape", shape=[1, -1]), [[1], [2]], [[1.0, 2.0]]),
    (step("transpose", axes=[1, 0]), [[1, 2], [3, 4]], [[1.0, 3.0], [2.0, 4.0]]),
    (step("column", index=1), [[1, 2], [3, 4]], [2.0, 4.0]),
    (step("sigmoid"), [0], [0.5]),
    (step("argmax"), [[1, 5, 2], [9, 5, 2]], [1, 0]),
    (step("threshold", at=0.5, above="fraud", below="fine"), [0.4, 0.5], ["fine", "fraud"]),
    (step("labels", names=["x", "y"]), [0.2, 0.8], [{"label": "y", "score": 0.8}]),
    (step("labels", top=2), [[0.2, 0.8]], [[{"label": "n", "score": 0.8}, {"label": "m", "score": 0.2}]]),
])  # fmt: skip
def test_steps(settings: Settings, value: Any, expected: Any) -> None:
    assert to_json(apply(settings, value, ["m", "n"])) == expected


def test_softmax_of_large_values() -> None:
    np.testing.assert_allclose(apply(step("softmax"), [1000.0, 1000.0], []), [0.5, 0.5])


@pytest.mark.parametrize(("settings", "value", "message"), [
    (step("columns", names=["a"]), [{}], r"input\[0\].a must be a number"),
    (step("columns", names=["a"]), [{"a": 1, "b": 2}], "no column 'b', but a"),
    (step("columns", names=["a"]), "x", "must be an object"),
    (step("array"), [[1, 2], [3]], "nested lists of equal lengths"),
    (step("array"), ["x"], "must be numbers"),
    (step("reshape", shape=[3]), [1, 2], "not the shape"),
    (step("scale", subtract=[1, 2, 3]), [1, 2], "not the shape"),
    (step("column", index=5), [[1]], "no column 5"),
    (step("image"), 3, "must be an image file as base64"),
    (step("image"), "####", "no image that can be read"),
    (step("image"), base64.b64encode(b"not an image").decode(), "no image that can be read"),
])  # fmt: skip
def test_what_a_client_sent_wrong_is_named(settings: Settings, value: Any, message: str) -> None:
    pytest.importorskip("PIL")
    with pytest.raises(InvalidRequestError, match=message):
        apply(settings, value, [])


def test_an_image_becomes_numbers() -> None:
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image.fromarray(np.full((4, 6), 128, np.uint8)).save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    found = apply(step("image", size=[3, 2], mode="L"), text, [])
    np.testing.assert_array_equal(found, np.full((2, 3), 128.0))
    assert apply(step("image"), text, []).shape == (4, 6, 3)


def image_file(kind: str, size: tuple[int, int], mode: str = "1") -> str:
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image.new(mode, size).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(("value", "message"), [
    (("PNG", (8000, 8000)), "at most 16777216 pixels"),  # 8 kB that would be 1.5 GB
    (("PNG", (4000, 4000)), "at most 16777216 values"),
    (("EPS", (8, 8), "RGB"), "no image that can be read"),  # its reader would start a program
])  # fmt: skip
def test_an_image_takes_bounded_memory_and_starts_nothing(value: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        apply(KINDS["image"](), image_file(*value), [])


def test_numbers_beyond_every_type_are_refused() -> None:
    for kind, value in (("array", [10**400]), ("columns", [{"a": 10**400}])):
        settings = msgspec.convert({"names": ["a"]} if kind == "columns" else {}, KINDS[kind])
        with pytest.raises(InvalidRequestError, match="input must be numbers"):
            apply(settings, value, [])
    with pytest.raises(InvalidRequestError, match="must be numbers"):
        to_tensor(TensorSpec("x", "INT64", (-1,)), [2**70])


def test_texts_take_the_memory_of_their_own_length() -> None:
    texts = ["x" * 2_000_000, *[""] * 100_000]  # 800 GB where each had the longest one's
    assert len(to_tensor(TensorSpec("x", "BYTES", (-1,)), texts).data) == 2_000_000 + 4 * 100_001
    with pytest.raises(InvalidRequestError, match="must be texts"):
        to_tensor(TensorSpec("x", "BYTES", (-1,)), [["a"], ["b", "c"]])
