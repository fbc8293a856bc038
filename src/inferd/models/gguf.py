"""Reader of GGUF files (v2, v3, little-endian). Every count, length, offset and type is checked before it is used.

The file is mapped, tensors are views of it. Errors name the key or tensor: MalformedFileError when the bytes contradict
the format, UnsupportedModelError for a tensor type or version inferd does not run.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inferd.errors import MalformedFileError, ModelNotFoundError, UnsupportedModelError
from inferd.quantization.types import BLOCK_SIZES, TensorType, Weight

MAX_KEY_LEN = 65535
MAX_NAME_LEN = 127
MAX_DIMS = 4
MAX_ALIGNMENT = 1 << 20
MAX_VALUES = 1 << 62
DEFAULT_ALIGNMENT = 32

_STRING, _ARRAY, _BOOL, _UINT32 = 8, 9, 7, 4
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_OTHER_TYPES = {
    4: "Q4_2", 5: "Q4_3", 9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL",
    21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M",
    34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip

Buffer = bytes | memoryview | mmap.mmap


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """metadata: key -> int, float, bool, str, or a list of those. tensors: name -> Weight, in the file's order."""

    path: Path
    version: int
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Weight]


def read_gguf(path: Path) -> GGUFFile:
    """Maps and checks a file; raises ModelNotFoundError when it cannot be opened."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            if size == 0:
                raise MalformedFileError(f"{path.name}: empty file")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelNotFoundError(f"{path}: {error.strerror}") from None
    return parse_gguf(mapped, path)


def parse_gguf(buffer: Buffer, path: Path) -> GGUFFile:
    """The same on bytes in memory."""
    cursor = _Cursor(buffer, path.name)
    if cursor.take(4, "magic") != b"GGUF":
        raise cursor.error("not a GGUF file (bad magic)")
    version = cursor.scalar("I", "version")
    if version not in (2, 3):
        swapped = struct.unpack(">I", struct.pack("<I", version))[0]
        kind = "big-endian" if swapped in (1, 2, 3) else f"version {version}"
        raise UnsupportedModelError(f"{path.name}: GGUF {kind} is not supported (supported: little-endian 2 and 3)")
    num_tensors = cursor.scalar("Q", "tensor count")
    num_keys = cursor.scalar("Q", "key count")
    # the shortest tensor entry: empty name, one dim, type, offset; the shortest pair: 1-byte key, type, 1-byte value
    cursor.require_room(num_tensors, 8 + 4 + 8 + 4 + 8, "tensor count")
    cursor.require_room(num_keys, 8 + 1 + 4 + 1, "key count")
    metadata = _read_metadata(cursor, num_keys)
    entries = [_read_tensor_entry(cursor) for _ in range(num_tensors)]
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    start = -(-cursor.at // alignment) * alignment
    return GGUFFile(path, version, metadata, _map_tensors(cursor, entries, start, alignment))


class _Cursor:
    """A position in the buffer that never passes its end."""

    def __init__(self, buffer: Buffer, file_name: str) -> None:
        self.view = memoryview(buffer)
        self.at = 0
        self.size = len(self.view)
        self.file_name = file_name

    def error(self, message: str) -> MalformedFileError:
        return MalformedFileError(f"{self.file_name}: {message}")

    def require_room(self, count: int, item_size: int, what: str) -> None:
        if count > (self.size - self.at) // item_size:
            raise self.error(f"{what}: {count} items cannot fit in the {self.size - self.at} bytes left")

    def take(self, count: int, what: str) -> bytes:
        self.require_room(count, 1, what)
        self.at += count
        return bytes(self.view[self.at - count : self.at])

    def scalar(self, code: str, what: str) -> Any:
        size = struct.calcsize("<" + code)
        self.require_room(1, size, what)
        (value,) = struct.unpack_from("<" + code, self.view, self.at)
        self.at += size
        return value

    def string(self, what: str, limit: int) -> str:
        length = self.scalar("Q", what)
        if length > limit:
            raise self.error(f"{what}: length {length} is over {limit}")
        # token pieces may be any bytes: surrogateescape keeps them
        return self.take(length, what).decode("utf-8", "surrogateescape")

    def name(self, what: str, limit: int) -> str:
        """A string that is valid UTF-8, so that every message with it can be printed."""
        text = self.string(what, limit)
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise self.error(f"{what}: {text!r} is not UTF-8")
        return text


def _read_metadata(cursor: _Cursor, num_keys: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for i in range(num_keys):
        key = cursor.name(f"key {i}", MAX_KEY_LEN)
        if not key:
            raise cursor.error(f"key {i} is empty")
        if key in metadata:
            raise cursor.error(f"key {key!r} appears twice")
        kind = cursor.scalar("I", key)
        metadata[key] = _read_array(cursor, key) if kind == _ARRAY else _read_value(cursor, key, kind)
        if key == "general.alignment":
            _check_alignment(cursor, kind, metadata[key])
    return metadata


def _check_alignment(cursor: _Cursor, kind: int, value: Any) -> None:
    ok = kind == _UINT32 and 8 <= value <= MAX_ALIGNMENT and value & (value - 1) == 0
    if not ok:
        raise cursor.error(f"general.alignment must be a power of two from 8 to {MAX_ALIGNMENT}, as uint32")


def _read_value(cursor: _Cursor, key: str, kind: int) -> Any:
    if kind == _STRING:
        return cursor.string(key, cursor.size)
    if kind == _BOOL:
        value = cursor.scalar("B", key)
        if value > 1:
            raise cursor.error(f"{key}: {value} is not a bool")
        return bool(value)
    if kind not in _SCALARS:
        raise cursor.error(f"{key}: unknown value type {kind}")
    return cursor.scalar(_SCALARS[kind], key)


def _read_array(cursor: _Cursor, key: str) -> list[Any]:
    kind = cursor.scalar("I", key)
    count = cursor.scalar("Q", key)
    if kind == _STRING:
        return _read_strings(cursor, key, count)
    if kind not in _SCALARS:
        raise cursor.error(f"{key}: arrays of value type {kind} are not allowed")
    code = "B" if kind == _BOOL else _SCALARS[kind]
    item = struct.calcsize("<" + code)
    cursor.require_room(count, item, key)
    values = np.frombuffer(cursor.view, "<" + np.dtype(code).str[1:], count, cursor.at)
    cursor.at += count * item
    if kind == _BOOL:
        if count and int(values.max()) > 1:
            raise cursor.error(f"{key}: not an array of bools")
        values = values.astype(bool)
    result: list[Any] = values.tolist()
    return result


def _read_strings(cursor: _Cursor, key: str, count: int) -> list[str]:
    cursor.require_room(count, 8, key)
    view, at, end, unpack = cursor.view, cursor.at, cursor.size, struct.Struct("<Q").unpack_from
    strings = []
    for _ in range(count):  # the hot loop of a load: 262,144 tokens of Gemma take 0.15 s
        if end - at < 8:
            raise cursor.error(f"{key}: array ends beyond the file")
        (length,) = unpack(view, at)
        at += 8
        if length > end - at:
            raise cursor.error(f"{key}: string of {length} bytes ends beyond the file")
        strings.append(str(view[at : at + length], "utf-8", "surrogateescape"))
        at += length
    cursor.at = at
    return strings


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    kind: TensorType
    num_rows: int
    num_cols: int
    offset: int


def _read_tensor_entry(cursor: _Cursor) -> _Entry:
    name = cursor.name("tensor name", MAX_NAME_LEN)
    num_dims = cursor.scalar("I", name)
    if not 1 <= num_dims <= MAX_DIMS:
        raise cursor.error(f"tensor {name}: {num_dims} dimensions, expected 1 to {MAX_DIMS}")
    dims = [cursor.scalar("Q", name) for _ in range(num_dims)]
    num_rows = 1
    for i, dim in enumerate(dims):
        if not 1 <= dim < MAX_VALUES:
            raise cursor.error(f"tensor {name}: dimension of {dim}")
        num_rows *= dim if i else 1
    if num_rows * dims[0] >= MAX_VALUES:
        raise cursor.error(f"tensor {name}: too many values")
    number = cursor.scalar("I", name)
    try:
        kind = TensorType(number)
    except ValueError:
        if number not in _OTHER_TYPES:
            raise cursor.error(f"tensor {name}: unknown type {number}") from None
        supported = ", ".join(known.name for known in TensorType)
        raise UnsupportedModelError(
            f"{cursor.file_name}: tensor {name} has type {_OTHER_TYPES[number]}, which is not supported "
            f"(supported: {supported})"
        ) from None
    if dims[0] % BLOCK_SIZES[kind][0]:
        raise cursor.error(f"tensor {name}: rows of {dims[0]} values are not whole {kind.name} blocks")
    return _Entry(name, kind, num_rows, dims[0], cursor.scalar("Q", name))


def _map_tensors(cursor: _Cursor, entries: list[_Entry], start: int, alignment: int) -> dict[str, Weight]:
    tensors: dict[str, Weight] = {}
    end = start
    for entry in sorted(entries, key=lambda entry: entry.offset):
        values, size = BLOCK_SIZES[entry.kind]
        width = entry.num_cols // values * size
        begin = start + entry.offset
        if entry.offset % alignment:
            raise cursor.error(f"tensor {entry.name}: offset {entry.offset} is not a multiple of {alignment}")
        if begin < end:
            raise cursor.error(f"tensor {entry.name} overlaps another")
        end = begin + width * entry.num_rows
        if end > cursor.size:
            raise cursor.error(f"tensor {entry.name} ends at byte {end}, the file has {cursor.size}")
    for entry in entries:
        if entry.name in tensors:
            raise cursor.error(f"tensor {entry.name} appears twice")
        values, size = BLOCK_SIZES[entry.kind]
        width = entry.num_cols // values * size
        flat = np.frombuffer(cursor.view, np.uint8, width * entry.num_rows, start + entry.offset)
        data = flat.reshape(entry.num_rows, width)
        tensors[entry.name] = Weight(entry.name, entry.kind, entry.num_rows, entry.num_cols, data)
    return tensors
