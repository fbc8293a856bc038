"""Weights of tiny Hugging Face models from their names alone, so that a golden holds names, shapes and logits only."""

from __future__ import annotations

import zlib

import numpy as np

NUM_TOKENS = 160


def weight(name: str, shape: tuple[int, ...], *, norm_offset: float) -> np.ndarray:
    """fp32; RandomState, because its streams never change. Norms lie around norm_offset (Gemma stores weight - 1)."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if "norm" in name:
        values = norm_offset + 0.2 * values
    elif name.endswith("bias"):
        values *= 0.3
    else:
        values *= 1.5 * shape[-1] ** -0.5
    return values.astype(np.float32)


def token_ids(vocab_size: int) -> np.ndarray:
    """(NUM_TOKENS,)"""
    return np.random.RandomState(7).randint(0, vocab_size, NUM_TOKENS)


def lora_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Of an adapter: what B A adds is about as large as the product it is added to."""
    values = weight(name, shape, norm_offset=0)
    return values * np.float32(0.5) if ".lora_B" in name else values
