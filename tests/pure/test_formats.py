"""Dequantization against the gguf library, and the test quantizer against it."""

from __future__ import annotations

import numpy as np
import pytest

from inferd.models.gguf import read_gguf
from inferd.quantization.formats import dequantize, dequantize_rows, dequantize_weight
from inferd.quantization.types import BLOCK_SIZES, TensorType, Weight
from support.models import model_path
from support.quantize import quantize

gguf = pytest.importorskip("gguf")

# byte offsets of the fp16 scales inside a block
_SCALES = {
    TensorType.Q4_0: (0,), TensorType.Q4_1: (0, 2), TensorType.Q5_0: (0,), TensorType.Q5_1: (0, 2),
    TensorType.Q8_0: (0,), TensorType.Q2_K: (80, 82), TensorType.Q3_K: (108,), TensorType.Q4_K: (0, 2),
    TensorType.Q5_K: (0, 2), TensorType.Q6_K: (208,),
}  # fmt: skip


def _random_blocks(kind: TensorType, num_rows: int, num_cols: int) -> np.ndarray:
    values, size = BLOCK_SIZES[kind]
    rng = np.random.default_rng(int(kind))
    if kind in (TensorType.F32, TensorType.F16, TensorType.BF16):
        return quantize(kind, rng.normal(size=(num_rows, num_cols)).astype(np.float32))
    blocks = rng.integers(0, 256, (num_rows * num_cols // values, size), np.uint8)  # (num_blocks, size)
    for at in _SCALES[kind]:
        scales = rng.normal(size=(len(blocks), 1)).astype(np.float16)
        blocks[:, at : at + 2] = scales.view(np.uint8)
    return blocks.reshape(num_rows, -1)


@pytest.mark.parametrize("kind", list(TensorType), ids=lambda kind: kind.name)
def test_equals_the_gguf_library_bit_for_bit(kind: TensorType) -> None:
    data = _random_blocks(kind, 64, 1024)
    ours = dequantize(kind, data, 1024)
    theirs = gguf.quants.dequantize(data, gguf.GGMLQuantizationType(int(kind))).reshape(64, 1024)
    assert ours.dtype == np.float32
    assert ours.shape == (64, 1024)
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.astype(np.float32).view(np.uint32))


@pytest.mark.parametrize("kind", list(TensorType), ids=lambda kind: kind.name)
def test_rows_are_those_of_the_whole(kind: TensorType) -> None:
    weight = Weight("w", kind, 8, 512, _random_blocks(kind, 8, 512))
    whole = dequantize_weight(weight)
    np.testing.assert_array_equal(dequantize_rows(weight, [5, 0, 5]), whole[[5, 0, 5]])


@pytest.mark.parametrize("alias", ["smollm2", "gemma3:270m"])
def test_real_tensors(alias: str) -> None:
    tensors = read_gguf(model_path(alias)).tensors
    for kind in {weight.kind for weight in tensors.values()}:
        weight = next(weight for weight in tensors.values() if weight.kind == kind)
        rows = weight.data[:256]
        theirs = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(int(kind)))
        np.testing.assert_array_equal(dequantize_rows(weight, np.arange(len(rows))), theirs)


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        (TensorType.F32, 0), (TensorType.F16, 2**-11), (TensorType.BF16, 2**-8), (TensorType.Q4_0, 1 / 7),
        (TensorType.Q4_1, 1 / 7), (TensorType.Q5_0, 1 / 15), (TensorType.Q5_1, 1 / 15), (TensorType.Q8_0, 1 / 127),
    ],
    ids=lambda value: getattr(value, "name", ""),
)  # fmt: skip
def test_quantizer_errs_by_at_most_half_a_step(kind: TensorType, step: float) -> None:
    values = np.random.default_rng(3).uniform(-1, 1, (16, 256)).astype(np.float32)
    values[3, :32] = 0  # a block of zeros must not divide by its scale
    error = np.abs(dequantize(kind, quantize(kind, values), 256) - values).max()
    assert error <= 0.5 * step + 0.004 * (step > 0)  # 0.004: rounding of the fp16 scale and minimum


@pytest.mark.parametrize("kind", list(_SCALES), ids=lambda kind: kind.name)
def test_extreme_scales_equal_the_gguf_library(kind: TensorType) -> None:
    """Zero, subnormal, largest, infinite and NaN scales and minima, in every combination, of both signs."""
    positive = [0, 1, 0x03FF, 0x0400, 0x3C00, 0x7BFF, 0x7C00, 0x7C01, 0x7E00]
    halves = np.array([*positive, *(half | 0x8000 for half in positive)], np.uint16)
    values, size = BLOCK_SIZES[kind]
    rng = np.random.default_rng(int(kind) + 100)
    blocks = rng.integers(0, 256, (len(halves) ** 2, size), np.uint8)  # (num_blocks, size)
    blocks[::7, :] = 0xFF
    blocks[3::7, :] = 0
    for at, chosen in zip(_SCALES[kind], np.meshgrid(halves, halves), strict=False):
        blocks[:, at : at + 2] = np.ascontiguousarray(chosen.reshape(-1, 1)).view(np.uint8)
    with np.errstate(all="ignore"):
        ours = dequantize(kind, blocks, values)
        theirs = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(int(kind))).reshape(ours.shape)
    assert np.isfinite(ours).any()
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    numbers = ~np.isnan(ours)
    np.testing.assert_array_equal(ours[numbers].view(np.uint32), theirs[numbers].view(np.uint32))
