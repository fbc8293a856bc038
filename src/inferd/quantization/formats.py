"""Exact dequantization of every tensor type, vectorised over blocks: what packed layouts are tested against."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from inferd.quantization.types import BLOCK_SIZES, TensorType, Weight

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64] | list[int]


def dequantize(kind: TensorType, data: U8, num_cols: int) -> F32:
    """data: (rows, row_bytes) -> (rows, num_cols) fp32."""
    num_rows = data.shape[0]
    if kind == TensorType.F32:
        return np.ascontiguousarray(data).view(np.float32).reshape(num_rows, num_cols)
    if kind == TensorType.F16:
        return np.ascontiguousarray(data).view(np.float16).reshape(num_rows, num_cols).astype(np.float32)
    if kind == TensorType.BF16:
        wide = np.ascontiguousarray(data).view(np.uint16).astype(np.uint32) << 16
        return wide.view(np.float32).reshape(num_rows, num_cols)
    values, size = BLOCK_SIZES[kind]
    blocks = np.ascontiguousarray(data).reshape(-1, size)  # (num_blocks, bytes per block)
    return _DECODERS[kind](blocks).reshape(num_rows, num_cols // values * values)


def dequantize_weight(weight: Weight) -> F32:
    """(num_rows, num_cols)"""
    return dequantize(weight.kind, weight.data, weight.num_cols)


def dequantize_rows(weight: Weight, row_ids: Ids) -> F32:
    """(len(row_ids), num_cols)"""
    return dequantize(weight.kind, weight.data[np.asarray(row_ids)], weight.num_cols)


def _half(blocks: U8, at: int) -> F32:
    """(num_blocks, 1): the fp16 at a byte offset."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def _nibbles(data: U8) -> U8:
    """(n, 16) -> (n, 32): all low nibbles, then all high ones."""
    return np.concatenate([data & 15, data >> 4], axis=1)


def _fifth_bits(data: U8) -> U8:
    """(n, 4) -> (n, 32): bit i of the little-endian word, moved to bit 4."""
    return np.unpackbits(data, axis=1, bitorder="little") << np.uint8(4)


def _q4_0(b: U8) -> F32:
    return _half(b, 0) * (_nibbles(b[:, 2:]).astype(np.float32) - 8)


def _q4_1(b: U8) -> F32:
    return _half(b, 0) * _nibbles(b[:, 4:]).astype(np.float32) + _half(b, 2)


def _q5_0(b: U8) -> F32:
    return _half(b, 0) * ((_nibbles(b[:, 6:]) | _fifth_bits(b[:, 2:6])).astype(np.float32) - 16)


def _q5_1(b: U8) -> F32:
    return _half(b, 0) * (_nibbles(b[:, 8:]) | _fifth_bits(b[:, 4:8])).astype(np.float32) + _half(b, 2)


def _q8_0(b: U8) -> F32:
    return _half(b, 0) * np.ascontiguousarray(b[:, 2:]).view(np.int8).astype(np.float32)


def _two_bits(data: U8) -> U8:
    """(n, 64) -> (n, 256): halves of 32 bytes, each holding four runs of 32 two-bit values."""
    halves = data.reshape(-1, 2, 1, 32)
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    return (halves >> shifts & np.uint8(3)).reshape(-1, 256)


def _q2_k(b: U8) -> F32:
    scales = b[:, :16]
    step = _half(b, 80) * (scales & 15).astype(np.float32)  # (n, 16)
    base = _half(b, 82) * (scales >> 4).astype(np.float32)
    q = _two_bits(b[:, 16:80]).reshape(-1, 16, 16).astype(np.float32)
    return step[:, :, None] * q - base[:, :, None]


def _q3_k(b: U8) -> F32:
    packed = b[:, 96:108]
    low = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=1)
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(1, 4, 1)
    high = (packed[:, 8:].reshape(-1, 1, 4) >> shifts & 3).reshape(-1, 16)
    scales = (low | high << 4).astype(np.int8) - 32
    step = _half(b, 108) * scales.astype(np.float32)  # (n, 16)
    third = (b[:, None, :32] >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1) & 1).reshape(-1, 256)
    q = _two_bits(b[:, 32:96]).astype(np.int8) - (third ^ 1).astype(np.int8) * 4
    values: F32 = step[:, :, None] * q.reshape(-1, 16, 16).astype(np.float32)
    return values


def _scales_and_mins(packed: U8) -> tuple[U8, U8]:
    """(n, 12) -> two (n, 8): the 6-bit scales and minima of Q4_K and Q5_K."""
    a, b, c = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([a & 63, c & 15 | a >> 2 & 48], axis=1)
    minima = np.concatenate([b & 63, c >> 4 | b >> 2 & 48], axis=1)
    return scales, minima


def _q45_k(b: U8, q: U8) -> F32:
    scales, minima = _scales_and_mins(b[:, 4:16])
    step = _half(b, 0) * scales.astype(np.float32)  # (n, 8)
    base = _half(b, 2) * minima.astype(np.float32)
    return step[:, :, None] * q.reshape(-1, 8, 32).astype(np.float32) - base[:, :, None]


def _pair_nibbles(data: U8) -> U8:
    """(n, 128) -> (n, 256): runs of 32 bytes give 32 low nibbles, then 32 high ones."""
    runs = data.reshape(-1, 4, 1, 32)
    return (runs >> np.array([0, 4], np.uint8).reshape(1, 1, 2, 1) & np.uint8(15)).reshape(-1, 256)


def _q4_k(b: U8) -> F32:
    return _q45_k(b, _pair_nibbles(b[:, 16:]))


def _q5_k(b: U8) -> F32:
    high = (b[:, None, 16:48] >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1) & np.uint8(1)).reshape(-1, 256)
    return _q45_k(b, _pair_nibbles(b[:, 48:]) | high << np.uint8(4))


def _q6_k(b: U8) -> F32:
    low = b[:, :128].reshape(-1, 2, 1, 64) >> np.array([0, 4], np.uint8).reshape(1, 1, 2, 1) & 15
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    high = b[:, 128:192].reshape(-1, 2, 1, 32) >> shifts & 3
    q = (low.reshape(-1, 256) | high.reshape(-1, 256) << 4).astype(np.int8) - 32
    scales = np.ascontiguousarray(b[:, 192:208]).view(np.int8).astype(np.float32)
    step = _half(b, 208) * scales  # (n, 16)
    return step[:, :, None] * q.reshape(-1, 16, 16).astype(np.float32)


_DECODERS: dict[TensorType, Callable[[U8], F32]] = {
    TensorType.Q4_0: _q4_0,
    TensorType.Q4_1: _q4_1,
    TensorType.Q5_0: _q5_0,
    TensorType.Q5_1: _q5_1,
    TensorType.Q8_0: _q8_0,
    TensorType.Q2_K: _q2_k,
    TensorType.Q3_K: _q3_k,
    TensorType.Q4_K: _q4_k,
    TensorType.Q5_K: _q5_k,
    TensorType.Q6_K: _q6_k,
}
