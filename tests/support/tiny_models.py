"""Tiny random models in memory, of every family and weight type, so that tests need no file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from inferd.models.checkpoint import Checkpoint, TokenizerSource
from inferd.models.loader import expected_shape
from inferd.models.spec import DecoderSpec, LayerSpec, RopeSpec, tensor_names
from inferd.quantization.types import BLOCK_SIZES, TensorType, Weight

VOCAB = 320
_ROPE = RopeSpec(theta=10000.0, dims=16)
_BASE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "ffn_size": 96,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 16,
    "layers": (LayerSpec(),) * 2,
    "ropes": (_ROPE,),
    "max_position": 4096,
    "norm_eps": 1e-6,
    "attention_scale": 0.25,
}
_GEMMA: dict[str, Any] = {
    "activation": "gelu_tanh",
    "post_norms": True,
    "embedding_scale": 8.0,
    "tied_head": True,
    "ropes": (_ROPE, replace(_ROPE, theta=500.0)),
}
_FAMILY: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama3": {"ropes": (replace(_ROPE, factors=(1.0, 1.0, 1.0, 2.0, 3.0, 8.0, 8.0, 8.0)),), "num_heads": 6},
    "mistral": {"layers": (LayerSpec(window=24),) * 2},
    "qwen2": {"qkv_bias": True, "tied_head": True, "num_heads": 12},
    "qwen3": {"qk_norm": True, "head_dim": 32, "ropes": (replace(_ROPE, dims=32),)},
    "gemma2": {
        **_GEMMA,
        "attention_softcap": 5.0,
        "logit_softcap": 3.0,
        "layers": (LayerSpec(window=20, rope=1), LayerSpec()),
    },
    "gemma3": {**_GEMMA, "qk_norm": True, "layers": (LayerSpec(window=20, rope=1),) * 2 + (LayerSpec(),)},
    "phi3": {"ropes": (replace(_ROPE, dims=12, magnitude=1.2),), "layers": (LayerSpec(window=40),) * 2},
}
FAMILIES = tuple(_FAMILY)


def tiny_checkpoint(
    family: str = "llama", *, kind: TensorType = TensorType.F32, seed: int = 0, **overrides: Any
) -> Checkpoint:
    """Random weights whose activations stay of order 1. K types widen hidden and ffn to a whole super-block."""
    values = _BASE | _FAMILY[family] | overrides
    if BLOCK_SIZES[kind][0] == 256:
        values |= {"hidden_size": 256, "ffn_size": 256, "num_heads": 16}
    spec = DecoderSpec(family=family, **values)
    rng = np.random.default_rng(seed)
    weights = {name: _random(name, *expected_shape(spec, name), kind, rng) for name in tensor_names(spec)}
    return Checkpoint(Path(f"tiny-{family}"), f"tiny-{family}", spec, weights, TokenizerSource())


def _random(name: str, rows: int, cols: int, kind: TensorType, rng: np.random.Generator) -> Weight:
    if name.endswith("norm"):
        values = rng.normal(1, 0.1, (rows, cols)).astype(np.float32)
        return Weight(name, TensorType.F32, rows, cols, values.view(np.uint8))
    if name.endswith("bias"):
        values = rng.normal(0, 0.1, (rows, cols)).astype(np.float32)
        return Weight(name, TensorType.F32, rows, cols, values.view(np.uint8))
    scale = cols**-0.5
    return Weight(name, kind, rows, cols, random_blocks(kind, rows, cols, scale, rng))


def random_blocks(kind: TensorType, rows: int, cols: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """(rows, row_bytes): valid blocks whose values have roughly the standard deviation `scale`."""
    if kind in (TensorType.F32, TensorType.F16, TensorType.BF16):
        values = rng.normal(0, scale, (rows, cols)).astype(np.float32)
        if kind == TensorType.F16:
            return values.astype(np.float16).view(np.uint8)
        if kind == TensorType.BF16:
            return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        return values.view(np.uint8)
    per_block, size = BLOCK_SIZES[kind]
    blocks = rng.integers(0, 256, (rows * cols // per_block, size), dtype=np.uint8)
    # byte offset of d and of the minimum's factor, and the spread of the values at d = 1 (of the minimum's at 1)
    layout = {
        TensorType.Q4_0: (0, None, 4.6, 0), TensorType.Q4_1: (0, 2, 4.6, -7.5), TensorType.Q5_0: (0, None, 9.2, 0),
        TensorType.Q5_1: (0, 2, 9.2, -15.5), TensorType.Q8_0: (0, None, 74, 0), TensorType.Q2_K: (80, 82, 8.4, 1.5),
        TensorType.Q3_K: (108, None, 43, 0), TensorType.Q4_K: (0, 2, 168, 7.5), TensorType.Q5_K: (0, 2, 340, 15.5),
        TensorType.Q6_K: (208, None, 1360, 0),
    }  # fmt: skip
    at, min_at, spread, centre = layout[kind]
    d = np.full(len(blocks), scale / spread) * rng.uniform(0.5, 1.5, len(blocks))
    blocks[:, at : at + 2] = d.astype(np.float16).view(np.uint8).reshape(-1, 2)
    if min_at is not None:
        minimum = (d * centre).astype(np.float16)
        blocks[:, min_at : min_at + 2] = minimum.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(rows, -1)
