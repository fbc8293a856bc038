"""A minimal GGUF v3 writer for tests."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferd.quantization.types import TensorType

ALIGNMENT = 32
_TYPE_IDS = {"B": 0, "b": 1, "H": 2, "h": 3, "I": 4, "i": 5, "f": 6, "?": 7, "Q": 10, "q": 11, "d": 12}

# type, (rows, cols) or the length of a vector, the bytes
TensorInput = tuple[TensorType, tuple[int, int] | int, bytes]


@dataclass(frozen=True)
class Typed:
    """A value, or a list of values, written with the given struct code: Typed("H", 3)."""

    code: str
    value: Any


def gguf_string(text: str | bytes) -> list[bytes]:
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return [struct.pack("<Q", len(raw)), raw]


def _code(value: Any) -> str:
    """int -> I (q when negative or wide), float -> f, bool -> ?, str -> s"""
    if isinstance(value, str | bytes):
        return "s"
    if isinstance(value, bool):
        return "?"
    if isinstance(value, float):
        return "f"
    return "I" if 0 <= value < 2**32 else "q"


def _item(code: str, value: Any) -> list[bytes]:
    return gguf_string(value) if code == "s" else [struct.pack("<" + code, value)]


def value_pieces(value: Any) -> list[bytes]:
    """The type field and the value."""
    code = value.code if isinstance(value, Typed) else None
    inner = value.value if isinstance(value, Typed) else value
    if not isinstance(inner, list):
        code = code or _code(inner)
        return [struct.pack("<I", _TYPE_IDS.get(code, 8)), *_item(code, inner)]
    code = code or max((_code(item) for item in inner), key="?Iqfs".index, default="I")
    pieces = [struct.pack("<I", 9), struct.pack("<I", _TYPE_IDS.get(code, 8)), struct.pack("<Q", len(inner))]
    for item in inner:
        pieces += _item(code, item)
    return pieces


def gguf_pieces(metadata: Mapping[str, Any], tensors: Mapping[str, TensorInput]) -> list[bytes]:
    """The file as one bytes object per field, so that a fuzzer can replace fields."""
    alignment = metadata.get("general.alignment", ALIGNMENT)
    pieces = [b"GGUF", struct.pack("<I", 3), struct.pack("<Q", len(tensors)), struct.pack("<Q", len(metadata))]
    for key, value in metadata.items():
        pieces += [*gguf_string(key), *value_pieces(value)]
    offset = 0
    for name, (kind, shape, data) in tensors.items():
        dims = [shape] if isinstance(shape, int) else [shape[1], shape[0]]
        pieces += [*gguf_string(name), struct.pack("<I", len(dims))]
        pieces += [struct.pack("<Q", dim) for dim in dims]
        pieces += [struct.pack("<I", kind), struct.pack("<Q", offset)]
        offset += len(data) + -len(data) % alignment
    pieces.append(b"\0" * (-sum(map(len, pieces)) % alignment))
    for _, _, data in tensors.values():
        pieces += [data, b"\0" * (-len(data) % alignment)]
    return pieces


def gguf_bytes(metadata: Mapping[str, Any], tensors: Mapping[str, TensorInput]) -> bytes:
    return b"".join(gguf_pieces(metadata, tensors))


def write_gguf(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, TensorInput]) -> Path:
    path.write_bytes(gguf_bytes(metadata, tensors))
    return path
