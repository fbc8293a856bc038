"""The GGUF reader: good files, every kind of malformed file, and a real file against the gguf library."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferd.errors import MalformedFileError, ModelNotFoundError, UnsupportedModelError
from inferd.models.gguf import GGUFFile, parse_gguf, read_gguf
from inferd.quantization.types import TensorType
from support.gguf_writer import Typed, gguf_bytes, gguf_string, value_pieces, write_gguf
from support.models import model_path

F32 = TensorType.F32


def parse(raw: bytes) -> GGUFFile:
    return parse_gguf(raw, Path("x.gguf"))


def header(num_tensors: int = 0, num_keys: int = 0, version: int = 3, magic: bytes = b"GGUF") -> bytes:
    return magic + struct.pack("<IqQ", version, num_tensors, num_keys % 2**64)


def pair(key: str, value: Any) -> bytes:
    return b"".join([*gguf_string(key), *value_pieces(value)])


def entry(
    name: str = "w", dims: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0, num_dims: int | None = None
) -> bytes:
    shape = struct.pack(f"<{len(dims)}Q", *dims)
    count = len(dims) if num_dims is None else num_dims
    return b"".join(gguf_string(name)) + struct.pack("<I", count) + shape + struct.pack("<IQ", kind, offset)


def padded(head: bytes, data: bytes, alignment: int = 32) -> bytes:
    return head + b"\0" * (-len(head) % alignment) + data


def one_tensor(**fields: Any) -> bytes:
    return padded(header(1) + entry(**fields), bytes(64))


def keys(*pairs: bytes) -> bytes:
    return header(0, len(pairs)) + b"".join(pairs) + bytes(64)


MALFORMED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "magic"),
    "bad magic": (header(magic=b"GGML"), "magic"),
    "no version": (b"GGUF\3", "version"),
    "num_tensors -1": (header(-1), "tensor count"),
    "num_keys -1": (header(0, -1), "key count"),
    "more tensors than room": (header(3) + bytes(64), "tensor count"),
    "key length -1": (header(0, 1) + b"\xff" * 8 + bytes(64), "key 0"),
    "key too long": (keys(pair("k" * 65536, 1)), "65535"),
    "empty key": (keys(pair("", 1)), "empty"),
    "key not UTF-8": (keys(pair("a\udcff", 1)), "UTF-8"),
    "bad value type": (keys(b"".join(gguf_string("k")) + struct.pack("<I", 13)), "k: unknown value type 13"),
    "duplicate key": (keys(pair("k", 1), pair("k", 2)), "'k' appears twice"),
    "bool of 2": (keys(b"".join(gguf_string("k")) + struct.pack("<IB", 7, 2)), "k: 2 is not a bool"),
    "array of bools with 3": (keys(b"".join(gguf_string("k")) + struct.pack("<IIQ3B", 9, 7, 3, 0, 1, 3)), "k: "),
    "nested array": (keys(b"".join(gguf_string("k")) + struct.pack("<IIQ", 9, 9, 1)), "k: arrays of value type 9"),
    "array too long": (keys(b"".join(gguf_string("k")) + struct.pack("<IIQ", 9, 4, 2**61)), "cannot fit"),
    "strings too many": (keys(b"".join(gguf_string("k")) + struct.pack("<IIQ", 9, 8, 2**61)), "cannot fit"),
    "string in array too long": (keys(b"".join(gguf_string("k")) + struct.pack("<IIQQ", 9, 8, 1, 2**63)), "k: string"),
    "value string too long": (keys(b"".join(gguf_string("k")) + struct.pack("<IQ", 8, 2**64 - 1)), "k: "),
    "alignment of wrong type": (keys(pair("general.alignment", Typed("Q", 32))), "general.alignment"),
    "alignment as array": (keys(pair("general.alignment", [32])), "general.alignment"),
    "alignment 0": (keys(pair("general.alignment", 0)), "general.alignment"),
    "alignment 4": (keys(pair("general.alignment", 4)), "general.alignment"),
    "alignment 33": (keys(pair("general.alignment", 33)), "general.alignment"),
    "alignment 2**31": (keys(pair("general.alignment", 2**31)), "general.alignment"),
    "long tensor name": (one_tensor(name="n" * 128), "127"),
    "tensor name not UTF-8": (one_tensor(name="a\udcff"), "UTF-8"),
    "no dims": (one_tensor(num_dims=0), "w: 0 dimensions"),
    "five dims": (one_tensor(dims=(1,) * 5), "w: 5 dimensions"),
    "num_dims 2**32-1": (one_tensor(num_dims=2**32 - 1), "w: 4294967295 dimensions"),
    "zero dim": (one_tensor(dims=(8, 0)), "w: dimension of 0"),
    "zero row": (one_tensor(dims=(0,)), "w: dimension of 0"),
    "dim -1": (one_tensor(dims=(2**64 - 1,)), "w: dimension"),
    "too many values": (one_tensor(dims=(2**31, 2**31, 2**31)), "w: too many"),
    "product wraps to 8": (one_tensor(dims=(2**32 + 8, 2**32)), "w: too many"),
    "too many bytes": (one_tensor(dims=(2**61,)), "w ends at"),
    "row of broken blocks": (one_tensor(dims=(48,), kind=2), "w: rows of 48"),
    "unknown tensor type": (one_tensor(kind=999), "w: unknown type 999"),
    "offset not aligned": (one_tensor(offset=16), "w: offset 16"),
    "offset beyond the file": (one_tensor(offset=2**40), "w ends at"),
    "offset -32": (one_tensor(offset=2**64 - 32), "w ends at"),
    "duplicate tensor": (padded(header(2) + entry() + entry(offset=32), bytes(64)), "w appears twice"),
    "overlapping tensors": (padded(header(2) + entry("a", (16,)) + entry("b", (8,), offset=32), bytes(64)), "overlaps"),
    "same offset": (padded(header(2) + entry("a") + entry("b"), bytes(64)), "overlaps"),
    "not enough data": (padded(header(1) + entry(), bytes(31)), "w ends at"),
    "no data section": (header(1) + entry(), "w ends at"),
    "two tensors, data for one": (padded(header(2) + entry("a") + entry("b", offset=32), bytes(32)), "b ends at"),
    "total size too big": (padded(header(2) + entry("a") + entry("b", (2**60,), offset=32), bytes(64)), "b ends at"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_files_are_refused_by_name(case: str) -> None:
    raw, message = MALFORMED[case]
    with pytest.raises(MalformedFileError) as caught:
        parse(raw)
    assert message in str(caught.value)
    str(caught.value).encode("utf-8")  # a message can always be printed


def test_inconsistent_alignment_is_refused() -> None:
    head = header(2, 1) + pair("general.alignment", 64) + entry("a") + entry("b", offset=32)
    with pytest.raises(MalformedFileError, match="b: offset 32 is not a multiple of 64"):
        parse(padded(head, bytes(128), 64))


@pytest.mark.parametrize("version", [0, 1, 4, 2**31])
def test_other_versions_are_unsupported(version: int) -> None:
    with pytest.raises(UnsupportedModelError, match=f"version {version} "):
        parse(header(version=version))


def test_big_endian_is_named() -> None:
    with pytest.raises(UnsupportedModelError, match="big-endian"):
        parse(header(version=3 << 24))


def test_known_type_that_is_not_run_is_named() -> None:
    with pytest.raises(UnsupportedModelError, match=r"w has type IQ4_XS.*supported: F32.*Q6_K"):
        parse(one_tensor(dims=(256,), kind=23))


def test_every_truncation_is_refused() -> None:
    data = np.arange(8, dtype=np.float32).tobytes()
    raw = gguf_bytes({"a": "text", "b": [1, 2], "c": ["x", "y"]}, {"w": (F32, 8, data)})
    parse(raw)
    for length in range(len(raw)):
        with pytest.raises(MalformedFileError):
            parse(raw[:length])


def test_values_come_back_as_written() -> None:
    scalars = {"B": 255, "b": -128, "H": 65535, "h": -5, "I": 2**32 - 1, "i": -7, "q": -(2**63), "Q": 2**64 - 1}
    scalars["d"] = 0.1
    metadata = {code: Typed(code, value) for code, value in scalars.items()}
    more = {"s": "né", "f": 0.5, "yes": True, "no": False, "ints": [1, -2], "texts": ["", "a"], "bools": [True, False],
            "floats": [0.5, 1.5], "none": []}  # fmt: skip
    file = parse(gguf_bytes({**metadata, **more}, {}))
    assert dict(file.metadata) == {**scalars, **more}
    assert type(file.metadata["yes"]) is bool
    assert type(file.metadata["bools"][0]) is bool
    assert type(file.metadata["ints"][0]) is int


def test_token_strings_keep_any_bytes() -> None:
    file = parse(gguf_bytes({"tokens": [b"\xff\xfe", "ok"]}, {}))
    assert file.metadata["tokens"][0].encode("utf-8", "surrogateescape") == b"\xff\xfe"
    assert file.metadata["tokens"][1] == "ok"


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [8, 32, 4096])
def test_tensors_are_views_with_rows_and_columns(version: int, alignment: int) -> None:
    matrix = np.arange(24, dtype=np.float32).reshape(3, 8)
    blocks = bytes(range(36))
    raw = bytearray(gguf_bytes({"general.alignment": alignment}, {"m": (F32, (3, 8), matrix.tobytes()),
                                                                   "v": (TensorType.Q4_0, 64, blocks)}))  # fmt: skip
    raw[4] = version
    file = parse(bytes(raw))
    m, v = file.tensors["m"], file.tensors["v"]
    assert (file.version, list(file.tensors)) == (version, ["m", "v"])
    assert (m.num_rows, m.num_cols, m.data.shape) == (3, 8, (3, 32))
    np.testing.assert_array_equal(m.data.view(np.float32), matrix)
    assert (v.kind, v.num_rows, v.num_cols, v.data.tobytes()) == (TensorType.Q4_0, 1, 64, blocks)
    assert not m.data.flags.owndata
    assert not m.data.flags.writeable


def test_more_dims_fold_into_rows() -> None:
    file = parse(padded(header(1) + entry(dims=(4, 3, 2)), bytes(96)))
    assert (file.tensors["w"].num_rows, file.tensors["w"].num_cols) == (6, 4)


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(ModelNotFoundError, match=path.name):
            read_gguf(path)
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(MalformedFileError, match="empty"):
        read_gguf(tmp_path / "empty.gguf")


def test_file_is_mapped(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", {"k": 1}, {"w": (F32, 2, b"abcdefgh")})
    assert read_gguf(path).tensors["w"].data.tobytes() == b"abcdefgh"


@pytest.mark.parametrize("alias", ["smollm2", "gemma3:270m"])
def test_real_file_equals_the_gguf_library(alias: str) -> None:
    library = pytest.importorskip("gguf")
    path = model_path(alias)
    ours = read_gguf(path)
    theirs = library.GGUFReader(path)
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF."):
            assert ours.metadata[key] == field.contents(), key
    assert set(ours.metadata) == {key for key in theirs.fields if not key.startswith("GGUF.")}
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        weight = ours.tensors[tensor.name]
        assert int(weight.kind) == int(tensor.tensor_type)
        assert weight.num_cols == tensor.shape[0]
        assert weight.num_rows * weight.num_cols == tensor.n_elements
        np.testing.assert_array_equal(weight.data.reshape(-1), tensor.data.view(np.uint8).reshape(-1))


def test_gemma_loads_fast() -> None:
    path = model_path("gemma3:270m")
    times = []
    for _ in range(3):
        begin = time.process_time()
        file = read_gguf(path)
        times.append(time.process_time() - begin)
    assert len(file.metadata["tokenizer.ggml.tokens"]) == 262144
    assert min(times) < 0.5  # of processor time: the machine may be shared
