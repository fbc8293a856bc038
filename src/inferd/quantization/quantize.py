"""Rounding of fp32 values to types that kernels multiply faster."""

from __future__ import annotations

import numpy as np

from inferd.quantization.formats import F32, U8


def to_bf16(values: F32) -> U8:
    """(rows, cols) -> (rows, 2 * cols); to nearest, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits.astype(np.uint64) + 0x7FFF + (bits >> 16 & 1)) >> 16
    return rounded.astype(np.uint16).view(np.uint8).reshape(len(values), -1)


def to_q8_0(values: F32) -> U8:
    """(rows, cols), cols a multiple of 32 -> (rows, cols / 32 * 34): an fp16 scale and 32 int8 for each 32 values."""
    blocks = values.reshape(-1, 32)  # (num_blocks, 32)
    scales = (np.abs(blocks).max(axis=1, keepdims=True) / 127).astype(np.float16)  # (num_blocks, 1)
    divisors = scales.astype(np.float32)
    steps = np.divide(blocks, divisors, out=np.zeros_like(blocks), where=divisors != 0)
    quants = np.clip(np.rint(steps), -127, 127).astype(np.int8)
    return np.concatenate([scales.view(np.uint8), quants.view(np.uint8)], axis=1).reshape(len(values), -1)
