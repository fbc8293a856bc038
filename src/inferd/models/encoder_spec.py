"""EncoderSpec: a bidirectional encoder of the BERT kind as data, with what is done to its last states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EncoderActivation = Literal["gelu", "gelu_tanh", "relu"]
HeadActivation = Literal["none", "tanh", "relu"]
Pooling = Literal["mean", "cls", "last"]
ScoreActivation = Literal["none", "sigmoid", "softmax"]


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """A dense layer on the pooled vector."""

    size: int
    activation: HeadActivation = "none"


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Post-norm layers with biases everywhere: x = norm(x + attn(x)); x = norm(x + down(act(up(x)))).

    Before the first layer x = norm(word + position + type).
    """

    family: str
    vocab_size: int
    hidden_size: int
    ffn_size: int
    num_heads: int
    num_layers: int
    max_position: int  # tokens of the longest input
    norm_eps: float
    num_types: int = 0  # token types; 0: the model has none
    activation: EncoderActivation = "gelu"
    heads: tuple[HeadSpec, ...] = ()

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def out_size(self) -> int:
        return self.heads[-1].size if self.heads else self.hidden_size


def encoder_shapes(spec: EncoderSpec) -> dict[str, tuple[int, int]]:
    """Canonical name -> (rows, cols) of every tensor an executor needs; matrices are (out, in), vectors (1, n).

    "layers.{i}.qkv" has the rows of q, k and v, in this order; a matrix x has a vector x_bias, each norm a norm_bias.
    """
    hidden, ffn = spec.hidden_size, spec.ffn_size
    shapes = {"word": (spec.vocab_size, hidden), "position": (spec.max_position, hidden)}
    if spec.num_types:
        shapes["type"] = (spec.num_types, hidden)
    matrices: dict[str, tuple[int, int]] = {}
    norms = ["embed_norm"]
    for i in range(spec.num_layers):
        at = f"layers.{i}."
        matrices |= {at + "qkv": (3 * hidden, hidden), at + "o": (hidden, hidden)}
        matrices |= {at + "up": (ffn, hidden), at + "down": (hidden, ffn)}
        norms += [at + "attn_norm", at + "ffn_norm"]
    width = hidden
    for i, head in enumerate(spec.heads):
        matrices[f"heads.{i}"] = (head.size, width)
        width = head.size
    for name, (num_rows, _) in matrices.items():
        shapes[name + "_bias"] = (1, num_rows)
    for name in norms:
        shapes |= {name: (1, hidden), name + "_bias": (1, hidden)}
    return shapes | matrices
