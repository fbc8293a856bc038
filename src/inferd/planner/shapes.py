"""ModelShape: what of a model decides memory and time. Presets, parameter counts, KV bytes, FLOPs."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from inferd.planner.tables import choose, read_table


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A decoder as counts of layers of each kind. Sizes are elements, not bytes.

    Attention is GQA (kv_heads), or MLA when kv_lora_rank > 0. The first window_layers attention layers see the last
    `window` tokens only. Mixture-of-experts and Mamba-2 layers are counted apart from dense feed-forward ones.
    """

    id: str
    attention_layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    ffn_layers: int = 0
    ffn: int = 0
    gated: bool = True
    window_layers: int = 0
    window: int = 0
    moe_layers: int = 0
    experts: int = 0
    experts_per_token: int = 0
    expert_ffn: int = 0
    shared_ffn: int = 0
    kv_lora_rank: int = 0
    rope_dim: int = 0
    q_lora_rank: int = 0
    nope_dim: int = 0
    value_dim: int = 0
    ssm_layers: int = 0
    ssm_inner: int = 0
    ssm_state: int = 0
    ssm_groups: int = 0
    ssm_heads: int = 0
    tied: bool = False
    qkv_bias: bool = False
    other_params: int = 0  # stored but not read by a decode step, as a vision tower
    max_context: int = 0
    source: str = ""

    @property
    def layers(self) -> int:
        """Blocks with a residual add of their own, counted as the model card does."""
        mixers = self.attention_layers + self.ssm_layers
        return mixers + (self.ffn_layers if self.ssm_layers else 0)

    @property
    def is_mla(self) -> bool:
        return self.kv_lora_rank > 0

    @property
    def attention_params(self) -> int:
        """All attention layers: projections and their biases."""
        return self.attention_layers * (self._mla_params if self.is_mla else self._gqa_params)

    @property
    def _gqa_params(self) -> int:
        qkv = (self.heads + 2 * self.kv_heads) * self.head_dim
        return self.hidden * (qkv + self.heads * self.head_dim) + (qkv if self.qkv_bias else 0)

    @property
    def _mla_params(self) -> int:
        query = self.hidden * self.q_lora_rank + self.q_lora_rank * self.heads * (self.nope_dim + self.rope_dim)
        latent = self.hidden * (self.kv_lora_rank + self.rope_dim)
        expand = self.kv_lora_rank * self.heads * (self.nope_dim + self.value_dim)
        return query + latent + expand + self.heads * self.value_dim * self.hidden

    @property
    def dense_params(self) -> int:
        """Every matrix that each token uses, except embedding, head and routed experts."""
        matrices = 3 if self.gated else 2
        ffn = self.ffn_layers * matrices * self.hidden * self.ffn
        shared = self.moe_layers * (matrices * self.hidden * self.shared_ffn + self.hidden * self.experts)
        ssm = (
            self.ssm_layers * self.hidden * (3 * self.ssm_inner + 2 * self.ssm_groups * self.ssm_state + self.ssm_heads)
        )
        return self.attention_params + ffn + shared + ssm

    @property
    def expert_params(self) -> int:
        """One routed expert of one layer."""
        return (3 if self.gated else 2) * self.hidden * self.expert_ffn

    @property
    def routed_params(self) -> int:
        return self.moe_layers * self.experts * self.expert_params

    @property
    def embedding_params(self) -> int:
        """Embedding, and the head unless it is the same table."""
        return (1 if self.tied else 2) * self.vocab * self.hidden

    @property
    def norm_params(self) -> int:
        blocks = self.attention_layers + self.ssm_layers + self.ffn_layers + self.moe_layers
        return (blocks + 1) * self.hidden

    @property
    def total_params(self) -> int:
        body = self.dense_params + self.routed_params + self.norm_params
        return body + self.embedding_params + self.other_params

    @property
    def active_params(self) -> int:
        """Weights one token multiplies with, head included."""
        routed = self.moe_layers * self.experts_per_token * self.expert_params
        return self.dense_params + routed + self.vocab * self.hidden

    def experts_touched(self, tokens: float) -> float:
        """Experts of one layer that a step over `tokens` tokens reads, under uniform routing."""
        if not self.experts:
            return 0.0
        return self.experts * -math.expm1(tokens * math.log1p(-self.experts_per_token / self.experts))

    def kv_elements(self, context: float) -> float:
        """Elements cached by one sequence of `context` tokens, windows respected."""
        per_token = self.kv_lora_rank + self.rope_dim if self.is_mla else 2 * self.kv_heads * self.head_dim
        full = (self.attention_layers - self.window_layers) * context
        return per_token * (full + self.window_layers * min(context, self.window))

    @property
    def kv_elements_per_token(self) -> float:
        """What one more token costs while it is inside every window."""
        return self.kv_elements(1)

    @property
    def state_elements(self) -> int:
        """Recurrent state of one sequence: whatever its length."""
        convolution = 3 * (self.ssm_inner + 2 * self.ssm_groups * self.ssm_state)
        return self.ssm_layers * (self.ssm_inner * self.ssm_state + convolution)

    def attention_flops(self, context: float) -> float:
        """Of one token that sees `context` earlier ones, score and value products of all layers."""
        if self.is_mla:  # the compressed form: scores over latent and rope parts, values over the latent part
            per_key = 2 * self.heads * (2 * self.kv_lora_rank + self.rope_dim)
        else:
            per_key = 4 * self.heads * self.head_dim
        full = (self.attention_layers - self.window_layers) * context
        return per_key * (full + self.window_layers * min(context, self.window))

    def prefill_flops(self, tokens: float, cached: float = 0) -> float:
        """`tokens` new ones after `cached`: 2 P S + 2 L d (S^2 - H^2), the head once."""
        linear = 2 * (self.active_params - self.vocab * self.hidden) * tokens + 2 * self.vocab * self.hidden
        return linear + tokens * self._prefill_attention(cached + tokens / 2)

    def _prefill_attention(self, context: float) -> float:
        """As attention_flops; MLA expands keys and values for a prompt."""
        if not self.is_mla:
            return self.attention_flops(context)
        return 2 * self.heads * (self.nope_dim + self.rope_dim + self.value_dim) * self.attention_layers * context


@cache
def presets() -> dict[str, ModelShape]:
    """Name or alias -> shape."""
    shapes: dict[str, ModelShape] = {}
    for row in read_table("models"):
        shape = ModelShape(**{f.name: _cell(f.name, row[f.name]) for f in fields(ModelShape)})
        shapes |= dict.fromkeys((row["id"], *row["aliases"].split()), shape)
    return shapes


def _cell(field: str, text: str) -> Any:
    if field in ("id", "source"):
        return text
    return text == "1" if field in ("gated", "tied", "qkv_bias") else int(text)


def preset(name: str) -> ModelShape:
    """Raises ConfigError with near matches."""
    return choose("model", name.lower(), presets())
