"""Values of tensors between JSON and bytes, without NumPy: this runs in the gateway."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Callable
from itertools import chain
from typing import Any

from inferd.errors import InvalidRequestError

_LENGTH = struct.Struct("<I")
MAX_DIMS = 16
# the letters that array.array knows them by; hosts of inferd are little-endian, as the wire is
_LETTERS = {"INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B", "UINT16": "H", "UINT32": "I",
            "UINT64": "Q", "FP32": "f", "FP64": "d"}  # fmt: skip
BINARY_ONLY = frozenset({"FP16", "BF16"})
_JSON_TYPES: dict[str, set[type]] = {"BOOL": {bool}, "BYTES": {str}, "FP32": {int, float}, "FP64": {int, float}}
DATATYPES = frozenset({*_LETTERS, *BINARY_ONLY, "BOOL", "BYTES"})


def to_bytes(name: str, datatype: str, shape: list[int], data: list[Any]) -> bytes:
    """data: flat, or nested as shape says. Raises InvalidRequestError that names the input."""

    def wrong(what: str) -> InvalidRequestError:
        return InvalidRequestError(f"input '{name[:80]}' {what}", param=name[:80])

    if datatype in BINARY_ONLY:
        raise wrong(f"is {datatype}, which JSON cannot carry: send it as binary data")
    values = _flat(data, len(shape))
    if values is None or len(values) != math.prod(shape):
        raise wrong(f"must hold {math.prod(shape)} values for the shape {shape[:MAX_DIMS]}, flat or nested like it")
    kinds = set(map(type, values))
    allowed = _JSON_TYPES.get(datatype, {int})
    if not kinds <= allowed:
        found = ", ".join(sorted(kind.__name__ for kind in kinds - allowed))
        raise wrong(f"must hold values of {datatype}, got {found}")
    try:
        return _WRITERS[datatype](values)
    except OverflowError:
        raise wrong(f"holds a number beyond the range of {datatype}") from None


def _flat(data: list[Any], num_dims: int) -> list[Any] | None:
    """None when some values are nested deeper than others, or than the shape."""
    values = data
    for _ in range(max(0, num_dims - 1)):
        if not values or not isinstance(values[0], list):
            break
        if set(map(type, values)) != {list}:
            return None
        values = list(chain.from_iterable(values))
    return None if any(isinstance(value, list) for value in values[:1]) else values


def _numbers(letter: str) -> Callable[[list[Any]], bytes]:
    def write(values: list[Any]) -> bytes:
        numbers = array(letter, values)
        if letter == "f" and (math.inf in numbers or -math.inf in numbers):  # JSON has none: it was too large
            raise OverflowError
        return numbers.tobytes()

    return write


def _texts(values: list[str]) -> bytes:
    try:
        parts = [value.encode() for value in values]
    except UnicodeEncodeError:
        raise InvalidRequestError("a text holds half of a surrogate pair") from None
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


_WRITERS: dict[str, Callable[[list[Any]], bytes]] = {
    **{datatype: _numbers(letter) for datatype, letter in _LETTERS.items()},
    "BOOL": bytes,
    "BYTES": _texts,
}


def from_bytes(name: str, datatype: str, data: bytes) -> list[Any]:
    """The values of an output as JSON has them. Raises InvalidRequestError where it cannot."""
    if datatype in BINARY_ONLY:
        raise _unsayable(name, datatype)
    if datatype == "BOOL":
        return list(map(bool, data))
    if datatype == "BYTES":
        return list(read_texts(data))
    values = array(_LETTERS[datatype], data).tolist()
    if datatype in ("FP32", "FP64") and not all(map(math.isfinite, values)):
        raise _unsayable(name, "NaN or infinity")
    return values


def _unsayable(name: str, what: str) -> InvalidRequestError:
    message = f"output '{name}' holds {what}, which JSON cannot carry: ask for it with binary_data"
    return InvalidRequestError(message, param="outputs")


def read_texts(data: bytes) -> list[str]:
    """As the worker sent them, each behind its length."""
    texts, at = [], 0
    while at < len(data):
        (size,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        texts.append(data[at : at + size].decode("utf-8", "replace"))
        at += size
    return texts
