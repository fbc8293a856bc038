"""Model directories: good ones, malformed ones, and a verdict never looser than the safetensors library's."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferd.errors import MalformedFileError, ModelLoadError, ModelNotFoundError, UnsupportedModelError
from inferd.models.safetensors_dir import parse_safetensors, read_model_directory
from inferd.quantization.types import TensorType

DATA = bytes(range(56))
ENTRIES: dict[str, Any] = {
    "a": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
    "b": {"dtype": "F16", "shape": [4], "data_offsets": [32, 40]},
    "c": {"dtype": "BF16", "shape": [2, 2, 2], "data_offsets": [40, 56]},
}


def file_bytes(header: Any, data: bytes = DATA) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def with_entry(**changes: Any) -> bytes:
    return file_bytes({**ENTRIES, "a": {**ENTRIES["a"], **changes}})


def make_directory(path: Path, files: dict[str, bytes], config: Any = None) -> Path:
    (path / "config.json").write_text(json.dumps(config or {"model_type": "llama"}))
    for name, raw in files.items():
        (path / name).write_bytes(raw)
    return path


def test_single_file(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"top_k": 3}')
    model = read_model_directory(make_directory(tmp_path, {"model.safetensors": file_bytes(ENTRIES)}))
    a, b, c = (model.tensors[name] for name in "abc")
    assert (model.config, model.generation_config) == ({"model_type": "llama"}, {"top_k": 3})
    assert (a.kind, a.num_rows, a.num_cols, a.data.tobytes()) == (TensorType.F32, 2, 4, DATA[:32])
    assert (b.kind, b.num_rows, b.num_cols, b.data.tobytes()) == (TensorType.F16, 1, 4, DATA[32:40])
    assert (c.kind, c.num_rows, c.num_cols, c.data.shape) == (TensorType.BF16, 4, 2, (4, 4))
    assert not a.data.flags.writeable


def test_a_file_of_the_library_itself(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    values = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    library.save_file({"w": values, "h": values.astype(np.float16)}, tmp_path / "model.safetensors", {"format": "pt"})
    tensors = read_model_directory(make_directory(tmp_path, {})).tensors
    np.testing.assert_array_equal(tensors["w"].data.view(np.float32), values)
    np.testing.assert_array_equal(tensors["h"].data.view(np.float16), values.astype(np.float16))


def test_sharded(tmp_path: Path) -> None:
    one = file_bytes({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"abcd")
    two = file_bytes({"y": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"efgh")
    index = json.dumps({"weight_map": {"x": "s1.safetensors", "y": "s2.safetensors"}}).encode()
    files = {"s1.safetensors": one, "s2.safetensors": two, "model.safetensors.index.json": index}
    tensors = read_model_directory(make_directory(tmp_path, files)).tensors
    assert {name: weight.data.tobytes() for name, weight in tensors.items()} == {"x": b"abcd", "y": b"efgh"}
    (tmp_path / "s2.safetensors").write_bytes(one)
    with pytest.raises(MalformedFileError, match="tensor x is in another shard"):
        read_model_directory(tmp_path)
    (tmp_path / "s2.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"s2\.safetensors"):
        read_model_directory(tmp_path)


@pytest.mark.parametrize("name", ["../out.safetensors", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "a\0b"])
def test_shard_names_stay_inside(tmp_path: Path, name: str) -> None:
    index = json.dumps({"weight_map": {"x": name}}).encode()
    with pytest.raises(MalformedFileError, match="leaves the directory"):
        read_model_directory(make_directory(tmp_path, {"model.safetensors.index.json": index}))


def test_links_stay_inside_but_for_the_download_cache(tmp_path: Path) -> None:
    snapshot = tmp_path / "model" / "snapshots" / "abc"
    blobs = tmp_path / "model" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "123").write_bytes(file_bytes(ENTRIES))
    make_directory(snapshot, {})
    link = snapshot / "model.safetensors"
    link.symlink_to("../../blobs/123")
    assert set(read_model_directory(snapshot).tensors) == {"a", "b", "c"}
    (tmp_path / "secret").write_bytes(file_bytes(ENTRIES))
    link.unlink()
    link.symlink_to(tmp_path / "secret")
    with pytest.raises(MalformedFileError, match="link that leaves"):
        read_model_directory(snapshot)
    link.unlink()
    link.symlink_to(link)
    with pytest.raises((MalformedFileError, ModelNotFoundError)):
        read_model_directory(snapshot)


def test_missing_and_broken_json(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"config\.json"):
        read_model_directory(tmp_path)
    make_directory(tmp_path, {})
    with pytest.raises(ModelNotFoundError, match=r"model\.safetensors"):
        read_model_directory(tmp_path)
    for text in ("{", "[]", "[" * 100_000, "\xff"):
        (tmp_path / "config.json").write_text(text, "latin-1")
        with pytest.raises(MalformedFileError, match=r"config\.json"):
            read_model_directory(tmp_path)


MALFORMED: dict[str, bytes] = {
    "empty": b"",
    "7 bytes": bytes(7),
    "header beyond the file": struct.pack("<Q", 100) + b"{}",
    "header of 2**64-1": b"\xff" * 8 + b"{}",
    "no brace": file_bytes(b' {"a": 1}'),
    "not JSON": file_bytes(b"{"),
    "not UTF-8": file_bytes(b'{"\xff": 1}'),
    "lone surrogate": file_bytes(json.dumps({"\ud800": ENTRIES["a"]}).encode(), DATA[:32]),
    "deep": file_bytes(b'{"a":' + b"[" * 100_000),
    "duplicate tensor": file_bytes(b'{"a": %s, "a": %s}' % ((json.dumps(ENTRIES["a"]).encode(),) * 2), DATA[:32]),
    "entry is a number": file_bytes({"a": 1}),
    "entry lacks a field": file_bytes({"a": {"dtype": "F32", "shape": [2]}}),
    "entry has one more": with_entry(more=1),
    "bad metadata": file_bytes({"__metadata__": {"k": 1}, **ENTRIES}),
    "unknown dtype": with_entry(dtype="F31"),
    "dtype of wrong type": with_entry(dtype=["F32"]),
    "negative dim": with_entry(shape=[-2, -4]),
    "minus zero": file_bytes(json.dumps(ENTRIES).replace("[0, 32]", "[-0, 32]").encode()),
    "float dim": with_entry(shape=[2.0, 4]),
    "bool dim": with_entry(shape=[True, 8]),
    "zero dim": with_entry(shape=[0, 4]),
    "shape wraps": with_entry(shape=[2**32, 2**32 + 1]),
    "shape too small": with_entry(shape=[2, 3]),
    "offsets reversed": with_entry(data_offsets=[32, 0]),
    "offsets beyond": with_entry(data_offsets=[2**62, 2**62 + 32]),
    "three offsets": with_entry(data_offsets=[0, 16, 32]),
    "overlap": file_bytes({**ENTRIES, "b": {**ENTRIES["b"], "data_offsets": [24, 32]}}),
    "gap": file_bytes({"b": ENTRIES["b"], "c": ENTRIES["c"]}),
    "data too short": file_bytes(ENTRIES, DATA[:-1]),
    "data too long": file_bytes(ENTRIES, DATA + b"x"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_files_are_refused(case: str) -> None:
    with pytest.raises(MalformedFileError, match=r"^x\.safetensors: ") as caught:
        parse_safetensors(MALFORMED[case], "x.safetensors")
    str(caught.value).encode("utf-8")


def test_unsupported_dtype_names_the_tensor() -> None:
    raw = file_bytes({"ids": {"dtype": "I64", "shape": [7], "data_offsets": [0, 56]}})
    with pytest.raises(UnsupportedModelError, match="tensor ids"):
        parse_safetensors(raw, "x.safetensors")


def _mutate(raw: bytes, rng: random.Random) -> bytes:
    text = bytearray(raw)
    numbers = [b"0", b"1", b"-1", b"-0", b"32", b"40", b"56", b"2.0", b"1e1", b"9223372036854775808",
               b"18446744073709551616", b"true", b"null", b'"8"', b"NaN"]  # fmt: skip
    for _ in range(rng.choice((1, 1, 2))):
        action = rng.randrange(4)
        at = rng.randrange(len(text))
        if action == 0:
            text[at] = rng.randrange(256)
        elif action == 1:
            digits = [i for i in range(8, len(text) - len(DATA)) if chr(text[i]).isdigit()]
            i = rng.choice(digits or [at])
            text[i : i + 1] = rng.choice(numbers)
        elif action == 2:
            del text[at : at + rng.randint(1, 4)]
        else:
            text[at:at] = text[at : at + rng.randint(1, 12)]
        if len(text) < 80:
            return bytes(text)
    if rng.random() < 0.7:  # keep the length field true, so that the header itself is reached
        text[:8] = struct.pack("<Q", max(0, len(text) - 8 - len(DATA)))
    return bytes(text)


def test_mutants_are_judged_no_looser_than_by_the_library() -> None:
    library = pytest.importorskip("safetensors")
    rng = random.Random(4)
    raw = file_bytes({"__metadata__": {"format": "pt"}, **ENTRIES})
    num_accepted = 0
    for _ in range(20_000):
        mutant = _mutate(raw, rng)
        try:
            parse_safetensors(mutant, "x.safetensors")
        except ModelLoadError:
            continue
        num_accepted += 1
        library.deserialize(mutant)  # raises when the library refuses what we took
    assert num_accepted > 100
