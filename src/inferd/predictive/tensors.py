"""Tensors of the protocol as NumPy arrays and back, checked against what a model declares."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.errors import InvalidRequestError

Array = NDArray[Any]
_LENGTH = struct.Struct("<I")
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),  # of str
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output as the model declares it. shape: -1 where any size goes; None: the model does not say."""

    name: str
    datatype: str
    shape: tuple[int, ...] | None

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape or ())}

    def check(self, datatype: str, shape: tuple[int, ...]) -> None:
        """Raises InvalidRequestError that names the tensor and what it must be."""
        if datatype != self.datatype:
            raise _wrong(self.name, f"must be {self.datatype}, got {datatype[:16]}")
        fits = self.shape is None or (
            len(shape) == len(self.shape)
            and all(size == want or want == -1 for size, want in zip(shape, self.shape, strict=True))
        )
        if not fits:
            raise _wrong(self.name, f"must have the shape {list(self.shape or ())}, got {list(shape[:16])}")


def _wrong(name: str, what: str) -> InvalidRequestError:
    return InvalidRequestError(f"input '{name}' {what}", param=name)


def to_array(spec: TensorSpec, datatype: str, shape: tuple[int, ...], data: bytes) -> Array:
    """data: as protocol.Tensor has it. The array, (*shape), may share its memory. Raises InvalidRequestError."""
    spec.check(datatype, shape)
    if any(size < 0 for size in shape):
        raise _wrong(spec.name, f"must have sizes of at least 0, got {list(shape[:16])}")
    count = math.prod(shape)
    if datatype == "BYTES":
        return _strings(spec.name, count, data).reshape(shape)
    dtype = DTYPES[datatype]
    if len(data) != count * dtype.itemsize:
        raise _wrong(
            spec.name, f"must hold {count * dtype.itemsize} bytes for {list(shape)} of {datatype}, got {len(data)}"
        )
    if datatype == "BOOL" and data and max(data) > 1:
        raise _wrong(spec.name, "must hold 0 or 1 in every byte")
    return np.frombuffer(data, dtype).reshape(shape)


def _strings(name: str, count: int, data: bytes) -> Array:
    """(count,) of str; each text stands behind its length in bytes."""
    if count > len(data) // _LENGTH.size:  # before memory is taken for them
        raise _wrong(name, f"must hold {count} texts, each behind its length in 4 bytes")
    texts, at = np.empty(count, object), 0
    for index in range(count):
        if at + _LENGTH.size > len(data):
            raise _wrong(name, f"must hold {count} texts, got {index}")
        (size,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + size > len(data):
            raise _wrong(name, f"ends within its text {index}")
        try:
            texts[index] = data[at : at + size].decode()
        except UnicodeDecodeError:
            raise _wrong(name, f"must hold UTF-8, text {index} does not") from None
        at += size
    if at != len(data):
        raise _wrong(name, f"holds {len(data) - at} bytes behind its last text")
    return texts


def to_bytes(array: Array) -> bytes:
    """What protocol.Tensor holds of it: little-endian in C order, texts behind their lengths."""
    if array.dtype != object:
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    parts = (text if isinstance(text, bytes) else str(text).encode() for text in array.reshape(-1))
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)
