"""The living definition of an encoder: NumPy, fp32, one sequence after the other."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from inferd.executors.base import F32
from inferd.executors.encoder_base import EncoderBatch
from inferd.models.encoder_loader import EncoderCheckpoint
from inferd.quantization.formats import dequantize_weight

_erf = np.vectorize(math.erf, otypes=[np.float64])


class ReferenceEncoder:
    """Implements executors/encoder_base.py."""

    def __init__(self, checkpoint: EncoderCheckpoint, *, max_num_tokens: int = 1 << 20) -> None:
        self._spec = checkpoint.spec
        self._weights = {name: dequantize_weight(weight) for name, weight in checkpoint.weights.items()}
        self.max_num_tokens = max_num_tokens

    def encode(self, batch: EncoderBatch) -> F32:
        rows = []
        for begin, end in pairwise(batch.starts.tolist()):
            states = self._states(batch.token_ids[begin:end].tolist(), batch.type_ids[begin:end].tolist())
            if batch.pooling == "none":
                rows.append(states)
                continue
            pooled = {"mean": states.mean(axis=0), "cls": states[0], "last": states[-1]}[batch.pooling]
            rows.append(self._heads(pooled[None]))
        return np.concatenate(rows)

    def close(self) -> None:
        self._weights.clear()

    def _states(self, ids: list[int], types: list[int]) -> F32:
        """(n, hidden) of one sequence."""
        weights, spec = self._weights, self._spec
        x = weights["word"][ids] + weights["position"][: len(ids)]
        if spec.num_types:
            x = x + weights["type"][types]
        x = self._norm(x, "embed_norm")
        for i in range(spec.num_layers):
            at = f"layers.{i}."
            x = self._norm(x + self._dense(self._attention(x, at), at + "o"), at + "attn_norm")
            x = self._norm(x + self._dense(self._activate(self._dense(x, at + "up")), at + "down"), at + "ffn_norm")
        return x

    def _attention(self, x: F32, at: str) -> F32:
        """(n, hidden): every token sees every other."""
        spec = self._spec
        qkv = self._dense(x, at + "qkv").reshape(len(x), 3, spec.num_heads, spec.head_dim)
        q, k, v = qkv.transpose(1, 2, 0, 3)  # (heads, n, head_dim) each
        scores = q @ k.transpose(0, 2, 1) / np.float32(math.sqrt(spec.head_dim))
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weighted = scores / scores.sum(axis=-1, keepdims=True) @ v
        rows: F32 = weighted.transpose(1, 0, 2).reshape(len(x), -1)
        return rows

    def _dense(self, x: F32, name: str) -> F32:
        rows: F32 = x @ self._weights[name].T + self._weights[name + "_bias"]
        return rows

    def _norm(self, x: F32, name: str) -> F32:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred * centred).mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(variance + np.float32(self._spec.norm_eps))
        rows: F32 = scaled * self._weights[name] + self._weights[name + "_bias"]
        return rows

    def _activate(self, x: F32) -> F32:
        kind = self._spec.activation
        if kind == "relu":
            rows: F32 = np.maximum(x, 0)
            return rows
        if kind == "gelu":
            exact: F32 = (x * 0.5 * (1 + _erf(x.astype(np.float64) / math.sqrt(2)))).astype(np.float32)
            return exact
        inner: F32 = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)
        smooth: F32 = x * np.float32(0.5) * (1 + np.tanh(inner))
        return smooth

    def _heads(self, x: F32) -> F32:
        for i, head in enumerate(self._spec.heads):
            x = self._dense(x, f"heads.{i}")
            x = {"none": x, "tanh": np.tanh(x), "relu": np.maximum(x, 0)}[head.activation]
        return x
