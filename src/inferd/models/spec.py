"""DecoderSpec: a decoder-only transformer as data. Family files produce it, executors interpret it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["silu", "gelu_tanh"]


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary embedding of one layer kind; pairs are (i, i + dims/2), "halves" order, after loading.

    inv_freq[i] = theta ** (-2i/dims) / (scale * factors[i]); cos and sin are multiplied by `magnitude`.
    """

    theta: float
    dims: int  # rotated leading dims of each head; the rest pass through
    scale: float = 1.0  # linear position scaling (positions are divided by it)
    factors: tuple[float, ...] = ()  # (dims/2,) per-frequency divisors (llama3, longrope); empty = 1
    magnitude: float = 1.0  # longrope attention factor


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """What may differ from layer to layer."""

    window: int = 0  # sliding window: a query at p sees keys in (p - window, p]; 0 = all
    rope: int = 0  # index into DecoderSpec.ropes


@dataclass(frozen=True, slots=True)
class DecoderSpec:
    """Llama-shaped decoder. Per layer:

    a = attn(norm(x)); x += post_norm(a); f = down(act(gate(norm(x))) * up(norm(x))); x += post_norm(f)
    """

    family: str
    vocab_size: int  # width of the logits
    hidden_size: int
    ffn_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    layers: tuple[LayerSpec, ...]
    ropes: tuple[RopeSpec, ...]
    max_position: int
    norm_eps: float
    activation: Activation = "silu"
    attention_scale: float = 0.0  # multiplies q.k; 0 is not valid, family files set it
    qkv_bias: bool = False
    qk_norm: bool = False  # RMS norm over head_dim on q and k, before RoPE
    post_norms: bool = False  # gemma2/3: RMS norm of each block's output before the residual add
    attention_softcap: float = 0.0  # 0 = off; s -> cap * tanh(s / cap)
    logit_softcap: float = 0.0
    embedding_scale: float = 1.0
    tied_head: bool = False

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def kv_size(self) -> int:
        """Values of K (or of V) per token and layer."""
        return self.num_kv_heads * self.head_dim

    @property
    def num_parameters(self) -> int:
        """Weights of all matrices (norms and biases left out)."""
        attention = self.hidden_size * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        per_layer = attention + 3 * self.hidden_size * self.ffn_size
        heads = 1 if self.tied_head else 2
        return self.num_layers * per_layer + heads * self.vocab_size * self.hidden_size


def layer_tensor_names(spec: DecoderSpec) -> tuple[str, ...]:
    """Canonical names inside one layer, without the "layers.{i}." prefix.

    Matrices are (out, in): q, k, v, o, gate, up, down. Vectors: *_norm (RMS weights, used as they are: a family whose
    file stores weight-1 adds the 1 at load), *_bias.
    """
    names = ["attn_norm", "q", "k", "v", "o", "ffn_norm", "gate", "up", "down"]
    if spec.qkv_bias:
        names += ["q_bias", "k_bias", "v_bias"]
    if spec.qk_norm:
        names += ["q_norm", "k_norm"]
    if spec.post_norms:
        names += ["post_attn_norm", "post_ffn_norm"]
    return tuple(names)


def tensor_names(spec: DecoderSpec) -> tuple[str, ...]:
    """Every canonical tensor an executor needs: embed (vocab, hidden), final_norm, head unless tied, and all layers."""
    names = ["embed", "final_norm"] + ([] if spec.tied_head else ["head"])
    inside = layer_tensor_names(spec)
    return tuple(names + [f"layers.{i}.{name}" for i in range(spec.num_layers) for name in inside])
