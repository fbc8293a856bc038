"""The living definition: the model in NumPy, fp32, one sequence after the other. Slow on purpose, clear first."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from inferd.executors.base import F32, I32, StepBatch, StepResult
from inferd.executors.reference_sampler import log_softmax, sample_row
from inferd.models.checkpoint import Checkpoint
from inferd.models.lora import Adapter
from inferd.models.spec import DecoderSpec, RopeSpec
from inferd.quantization.formats import dequantize_rows, dequantize_weight


class ReferenceExecutor:
    """Implements executors/base.py. Dequantized matrices are kept: 4 bytes per parameter once all were used."""

    def __init__(
        self, checkpoint: Checkpoint, *, num_blocks: int, block_size: int, max_num_batched_tokens: int = 2048
    ) -> None:
        self._checkpoint = checkpoint
        self._spec = checkpoint.spec
        self._num_blocks = num_blocks
        self._block_size = block_size
        self._max_num_batched_tokens = max_num_batched_tokens
        shape = (self._spec.num_layers, num_blocks, block_size, self._spec.num_kv_heads, self._spec.head_dim)
        self._k = np.zeros(shape, np.float32)
        self._v = np.zeros(shape, np.float32)
        self._matrices: dict[str, F32] = {}
        self._adapters: dict[int, Adapter] = {}
        self._num_adapters = 0  # ever

    @property
    def spec(self) -> DecoderSpec:
        return self._spec

    @property
    def num_blocks(self) -> int:
        return self._num_blocks

    @property
    def block_size(self) -> int:
        return self._block_size

    @property
    def max_num_batched_tokens(self) -> int:
        return self._max_num_batched_tokens

    def load_adapter(self, adapter: Adapter) -> int:
        self._num_adapters += 1
        self._adapters[self._num_adapters - 1] = adapter
        return self._num_adapters - 1

    def unload_adapter(self, adapter_id: int) -> None:
        del self._adapters[adapter_id]

    def close(self) -> None:
        self._matrices.clear()

    def step(self, batch: StepBatch) -> StepResult:
        return _sample(self.logits(batch), batch)

    def logits(self, batch: StepBatch) -> F32:
        """One step that returns the raw logits of its rows, (R, vocab)."""
        self._check(batch)
        for source, target in batch.block_copies:
            self._k[:, target] = self._k[:, source]
            self._v[:, target] = self._v[:, source]
        x = dequantize_rows(self._checkpoint.weights["embed"], batch.token_ids.astype(np.int64))
        x = x * np.float32(self._spec.embedding_scale)  # (num_tokens, hidden)
        for layer in range(self._spec.num_layers):
            x = self._layer(layer, x, batch)
        return self._head(x[batch.logit_rows])

    def _weight(self, name: str) -> F32:
        if name not in self._matrices:
            self._matrices[name] = dequantize_weight(self._checkpoint.weights[name])
        return self._matrices[name]

    def _vector(self, name: str) -> F32:
        return self._weight(name).reshape(-1)

    def _linear(self, x: F32, name: str, batch: StepBatch) -> F32:
        """(num_tokens, out): x W^T, and for the rows of an adapter scale (x A^T) B^T."""
        y = x @ self._weight(name).T
        for s, adapter_id in enumerate(batch.adapter_ids):
            if adapter_id >= 0 and (lora := self._adapters[int(adapter_id)].weights.get(name)) is not None:
                rows = slice(batch.query_starts[s], batch.query_starts[s + 1])
                y[rows] += np.float32(lora.scale) * (x[rows] @ lora.a.T) @ lora.b.T
        return y

    def _norm(self, x: F32, name: str) -> F32:
        return rms_norm(x, self._vector(name), self._spec.norm_eps)

    def _layer(self, layer: int, x: F32, batch: StepBatch) -> F32:
        at, spec = f"layers.{layer}.", self._spec
        attended = self._attention(layer, self._norm(x, at + "attn_norm"), batch)
        x = x + (self._norm(attended, at + "post_attn_norm") if spec.post_norms else attended)
        normed = self._norm(x, at + "ffn_norm")
        gate, up = self._linear(normed, at + "gate", batch), self._linear(normed, at + "up", batch)
        block = self._linear(activate(gate, spec.activation) * up, at + "down", batch)
        return x + (self._norm(block, at + "post_ffn_norm") if spec.post_norms else block)

    def _attention(self, layer: int, x: F32, batch: StepBatch) -> F32:
        at, spec = f"layers.{layer}.", self._spec
        q, k, v = (self._linear(x, at + name, batch) for name in ("q", "k", "v"))
        if spec.qkv_bias:
            q, k, v = (y + self._vector(at + name) for y, name in ((q, "q_bias"), (k, "k_bias"), (v, "v_bias")))
        q = q.reshape(len(x), spec.num_heads, spec.head_dim)
        k = k.reshape(len(x), spec.num_kv_heads, spec.head_dim)
        v = v.reshape(len(x), spec.num_kv_heads, spec.head_dim)
        if spec.qk_norm:
            q, k = self._norm(q, at + "q_norm"), self._norm(k, at + "k_norm")
        out = np.empty_like(q)
        for s in range(len(batch.context_lens)):
            rows = slice(batch.query_starts[s], batch.query_starts[s + 1])
            context, table = int(batch.context_lens[s]), batch.block_tables[s]
            out[rows] = self._attend(layer, q[rows], k[rows], v[rows], context, table)
        return self._linear(out.reshape(len(x), -1), at + "o", batch)

    def _attend(self, layer: int, q: F32, k: F32, v: F32, context: int, block_table: I32) -> F32:
        """New rows of one sequence: append K and V, then attend to everything visible. (n, heads, head_dim)"""
        spec, window = self._spec, self._spec.layers[layer].window
        length = context + len(q)
        positions = np.arange(context, length)
        rope = spec.ropes[spec.layers[layer].rope]
        q, k = rotate(q, positions, rope), rotate(k, positions, rope)
        blocks, slots = block_table[positions // self._block_size], positions % self._block_size
        self._k[layer, blocks, slots], self._v[layer, blocks, slots] = k, v
        used = block_table[: -(-length // self._block_size)]
        keys = self._k[layer, used].reshape(-1, spec.num_kv_heads, spec.head_dim)[:length]
        values = self._v[layer, used].reshape(-1, spec.num_kv_heads, spec.head_dim)[:length]
        group = spec.num_heads // spec.num_kv_heads
        keys, values = np.repeat(keys, group, axis=1), np.repeat(values, group, axis=1)  # (length, heads, head_dim)
        scores = np.einsum("qhd,khd->hqk", q, keys, optimize=True) * np.float32(spec.attention_scale)
        if spec.attention_softcap:
            scores = soft_cap(scores, spec.attention_softcap)
        seen = np.arange(length)[None, :] <= positions[:, None]
        if window:
            seen &= np.arange(length)[None, :] > positions[:, None] - window
        scores = np.where(seen[None], scores, np.float32(-np.inf))
        result: F32 = np.einsum("hqk,khd->qhd", softmax(scores), values, optimize=True)
        return result

    def _head(self, x: F32) -> F32:
        logits = self._norm(x, "final_norm") @ self._weight("embed" if self._spec.tied_head else "head").T
        return soft_cap(logits, self._spec.logit_softcap) if self._spec.logit_softcap else logits

    def _check(self, batch: StepBatch) -> None:
        lengths = batch.context_lens + np.diff(batch.query_starts)
        checks = (
            (0 < len(batch.token_ids) <= self._max_num_batched_tokens, "token_ids: too few or too many"),
            (_inside(batch.token_ids, self._spec.vocab_size), "token_ids: outside the vocabulary"),
            (batch.query_starts[-1] == len(batch.token_ids), "query_starts: not a partition of token_ids"),
            (bool((np.diff(batch.query_starts) > 0).all()), "query_starts: a sequence without new tokens"),
            (bool((batch.context_lens >= 0).all()), "context_lens: negative"),
            (len(batch.adapter_ids) == len(batch.context_lens), "adapter_ids: not one entry per sequence"),
            (all(a == -1 or a in self._adapters for a in batch.adapter_ids.tolist()), "adapter_ids: no such adapter"),
            (_inside(batch.block_tables, self._num_blocks), "block_tables: no such block"),
            (_inside(batch.block_copies, self._num_blocks), "block_copies: no such block"),
            (bool((lengths <= batch.block_tables.shape[1] * self._block_size).all()), "block_tables: too short"),
            (_inside(batch.logit_rows, len(batch.token_ids)), "logit_rows: no such row"),
        )
        for ok, what in checks:
            if not ok:
                raise ValueError(f"step: {what}")


def _inside(values: I32, limit: int) -> bool:
    return bool(((values >= 0) & (values < limit)).all())


def rms_norm(x: F32, weight: F32, eps: float) -> F32:
    """Over the last axis."""
    mean_square: F32 = np.mean(x * x, axis=-1, keepdims=True, dtype=np.float32)
    result: F32 = x / np.sqrt(mean_square + np.float32(eps)) * weight
    return result


def softmax(x: F32) -> F32:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    result: F32 = e / e.sum(axis=-1, keepdims=True)
    return result


def soft_cap(x: F32, cap: float) -> F32:
    result: F32 = np.float32(cap) * np.tanh(x / np.float32(cap))
    return result


def activate(x: F32, kind: str) -> F32:
    with np.errstate(over="ignore"):
        if kind == "silu":
            silu: F32 = x / (1 + np.exp(-x))
            return silu
        inner = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x * x * x)
        gelu: F32 = np.float32(0.5) * x * (1 + np.tanh(inner))
        return gelu


@lru_cache(maxsize=16)
def inverse_frequencies(rope: RopeSpec) -> F32:
    """(dims / 2,) radians per position, rounded to fp32 where transformers rounds."""
    exponents = np.arange(0, rope.dims, 2, dtype=np.float32) / np.float32(rope.dims)
    powers: F32 = np.power(np.float32(rope.theta), exponents, dtype=np.float32)
    factors = np.asarray(rope.factors or (1.0,), np.float32)
    result: F32 = np.float32(1.0) / powers / factors / np.float32(rope.scale)
    return result


def rotate(x: F32, positions: npt.NDArray[np.int64], rope: RopeSpec) -> F32:
    """x: (n, heads, head_dim); pairs (i, i + dims/2) turn by position * inv_freq[i]."""
    half = rope.dims // 2
    angles = positions.astype(np.float32)[:, None] * inverse_frequencies(rope)  # (n, half)
    cosine = (np.cos(angles) * np.float32(rope.magnitude))[:, None, :]
    sine = (np.sin(angles) * np.float32(rope.magnitude))[:, None, :]
    a, b, rest = x[..., :half], x[..., half : rope.dims], x[..., rope.dims :]
    return np.concatenate([a * cosine - b * sine, b * cosine + a * sine, rest], axis=-1)


def _sample(logits: F32, batch: StepBatch) -> StepResult:
    s, num_rows = batch.sampling, len(logits)
    num_top = max(0, int(s.num_logprobs.max(initial=0)))
    token_ids, ranks = np.zeros(num_rows, np.int32), np.zeros(num_rows, np.int32)
    logprobs = np.zeros(num_rows, np.float32)
    top_ids, top_logprobs = np.full((num_rows, num_top), -1, np.int32), np.zeros((num_rows, num_top), np.float32)
    for row in range(num_rows):
        token = token_ids[row] = sample_row(logits[row], s, row)
        if s.num_logprobs[row] < 0:
            continue
        logs = log_softmax(logits[row])
        x = logits[row]
        logprobs[row] = logs[token]
        ranks[row] = 1 + int((x > x[token]).sum()) + int((x[:token] == x[token]).sum())
        best = np.argsort(-x, kind="stable")[: s.num_logprobs[row]]
        top_ids[row, : len(best)], top_logprobs[row, : len(best)] = best, logs[best]
    return StepResult(token_ids=token_ids, logprobs=logprobs, ranks=ranks, top_ids=top_ids, top_logprobs=top_logprobs)
