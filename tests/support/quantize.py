"""Round-to-nearest quantization of the simple types, to build tiny models."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inferd.quantization.types import TensorType

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

_BITS = {TensorType.Q4_0: 4, TensorType.Q4_1: 4, TensorType.Q5_0: 5, TensorType.Q5_1: 5, TensorType.Q8_0: 8}
_WITH_MINIMUM = (TensorType.Q4_1, TensorType.Q5_1)


def quantize(kind: TensorType, values: F32) -> U8:
    """(rows, cols) -> (rows, row_bytes)"""
    num_rows = values.shape[0]
    values = np.ascontiguousarray(values, np.float32)
    if kind == TensorType.F32:
        return values.view(np.uint8).reshape(num_rows, -1)
    if kind == TensorType.F16:
        return values.astype(np.float16).view(np.uint8).reshape(num_rows, -1)
    if kind == TensorType.BF16:
        bits = values.view(np.uint32).astype(np.uint64)
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16  # to nearest, ties to even
        return rounded.astype(np.uint16).view(np.uint8).reshape(num_rows, -1)
    blocks = values.reshape(-1, 32)  # (num_blocks, 32)
    return _quantize_blocks(kind, blocks).reshape(num_rows, -1)


def _half_bytes(values: F32) -> U8:
    """(num_blocks, 1) -> (num_blocks, 2)"""
    return np.ascontiguousarray(values.astype(np.float16)).view(np.uint8)


def _quantize_blocks(kind: TensorType, blocks: F32) -> U8:
    """(num_blocks, 32) -> (num_blocks, bytes per block)"""
    top = 2 ** _BITS[kind] - 1
    if kind in _WITH_MINIMUM:
        base = blocks.min(axis=1, keepdims=True)
        scale = ((blocks.max(axis=1, keepdims=True) - base) / top).astype(np.float16).astype(np.float32)
        q = np.rint(_divide(blocks - base, scale)).clip(0, top).astype(np.uint8)
        head = [_half_bytes(scale), _half_bytes(base)]
    else:
        half = 2 ** (_BITS[kind] - 1)
        scale = (np.abs(blocks).max(axis=1, keepdims=True) / (half - 1)).astype(np.float16).astype(np.float32)
        signed = np.rint(_divide(blocks, scale)).clip(-half, half - 1)
        if kind == TensorType.Q8_0:
            return np.concatenate([_half_bytes(scale), signed.astype(np.int8).view(np.uint8)], axis=1)
        q = (signed + half).astype(np.uint8)
        head = [_half_bytes(scale)]
    if _BITS[kind] == 5:
        head.append(np.packbits(q >> 4, axis=1, bitorder="little"))
    return np.concatenate([*head, q[:, :16] & 15 | (q[:, 16:] & 15) << 4], axis=1)


def _divide(values: F32, scale: F32) -> F32:
    return np.divide(values, scale, out=np.zeros_like(values), where=scale != 0)
