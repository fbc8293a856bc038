"""The registry of model families, and what their files share."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from inferd.errors import MalformedFileError, UnsupportedModelError
from inferd.models.spec import DecoderSpec, layer_tensor_names

Source = Literal["gguf", "hf"]

# architecture (GGUF general.architecture and Hugging Face model_type) -> module of inferd.models
FAMILIES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen",
    "qwen3": "qwen",
    "gemma2": "gemma",
    "gemma3": "gemma",
    "gemma3_text": "gemma",
    "phi3": "phi",
}


@dataclass(frozen=True, slots=True)
class TensorRef:
    """Where a canonical tensor comes from, and what is done to it at load."""

    name: str  # in the file
    rows: tuple[int, int] | None = None  # a slice of a fused tensor
    unpermute_heads: int = 0  # rows of GGUF llama q and k are interleaved for RoPE; 0 = leave
    plus_one: bool = False  # the file stores weight - 1


class Family(Protocol):
    """What a family module offers."""

    def spec_from_gguf(self, get: Gguf) -> DecoderSpec: ...

    def spec_from_hf(self, config: Hf) -> DecoderSpec: ...

    def tensor_map(self, spec: DecoderSpec, source: Source) -> dict[str, TensorRef]: ...


def family_of(architecture: str) -> Family:
    """Raises UnsupportedModelError with the supported names."""
    if architecture not in FAMILIES:
        supported = ", ".join(FAMILIES)
        raise UnsupportedModelError(f"architecture {architecture!r} is not supported (supported: {supported})")
    return cast(Family, importlib.import_module(f"inferd.models.{FAMILIES[architecture]}"))


class Gguf:
    """Typed access to a family's metadata keys; errors name the key."""

    def __init__(self, metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, int]]) -> None:
        self.metadata = metadata
        self.shapes = shapes  # tensor name -> (rows, cols)
        self.architecture = str(metadata.get("general.architecture", ""))

    def number(self, key: str, default: float | None = None) -> float:
        name = f"{self.architecture}.{key}"
        value = self.metadata.get(name, default)
        if value is None:
            raise MalformedFileError(f"missing key {name}")
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise MalformedFileError(f"{name} must be a number, got {str(value)[:60]}")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.number(key, default)
        if int(value) != value or not 0 <= value < 2**31:
            raise MalformedFileError(f"{self.architecture}.{key} must be an integer from 0 to 2**31-1, got {value}")
        return int(value)

    def text(self, key: str, default: str) -> str:
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        return str(value)

    def refuse(self, *keys: str) -> None:
        """Features that would change the result and that no family here implements."""
        for key in keys:
            name = f"{self.architecture}.{key}"
            if self.metadata.get(name):
                raise UnsupportedModelError(f"{name} = {self.metadata[name]} is not supported")

    @property
    def vocab_size(self) -> int:
        if "token_embd.weight" not in self.shapes:
            raise MalformedFileError("missing tensor token_embd.weight")
        return self.shapes["token_embd.weight"][0]


def common_from_gguf(get: Gguf) -> dict[str, Any]:
    """The DecoderSpec fields whose keys are the same in every family."""
    get.refuse("expert_count", "attention.max_alibi_bias", "attention.clamp_kqv")
    num_heads = get.integer("attention.head_count")
    hidden = get.integer("embedding_length")
    if num_heads == 0:
        raise MalformedFileError(f"{get.architecture}.attention.head_count is 0")
    head_dim = get.integer("attention.key_length", hidden // num_heads)
    if get.integer("attention.value_length", head_dim) != head_dim:
        raise UnsupportedModelError(f"{get.architecture}.attention.value_length differs from the key length")
    return {
        "vocab_size": get.vocab_size,
        "hidden_size": hidden,
        "ffn_size": get.integer("feed_forward_length"),
        "num_heads": num_heads,
        "num_kv_heads": get.integer("attention.head_count_kv", num_heads),
        "head_dim": head_dim,
        "max_position": get.integer("context_length"),
        "norm_eps": float(get.number("attention.layer_norm_rms_epsilon")),
        "attention_scale": head_dim**-0.5 if head_dim else 0.0,
        "tied_head": "output.weight" not in get.shapes,
    }


def linear_scale(get: Gguf) -> float:
    """rope.scaling of type linear; other types are a family's own business or refused."""
    kind = get.text("rope.scaling.type", "none")
    if kind == "linear":
        return float(get.number("rope.scaling.factor"))
    if kind not in ("none", ""):
        raise UnsupportedModelError(f"{get.architecture}.rope.scaling.type = {kind} is not supported (none, linear)")
    return float(get.number("rope.scale_linear", 1.0))


class Hf:
    """Typed access to a Hugging Face config; errors name the key."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def number(self, key: str, default: float | None = None) -> float:
        value = self.config.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise MalformedFileError(f"config.json: {key} must be a number, got {str(value)[:60]}")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.number(key, default)
        if int(value) != value or not 0 <= value < 2**31:
            raise MalformedFileError(f"config.json: {key} must be an integer from 0 to 2**31-1, got {value}")
        return int(value)

    def rope(self, layer_type: str = "full_attention") -> dict[str, Any]:
        """Parameters in the newer form, whichever form the file has: {"rope_type", "rope_theta", ...}."""
        parameters = self.config.get("rope_parameters") or {}
        if isinstance(parameters.get(layer_type), dict):
            parameters = parameters[layer_type]
        old = self.config.get("rope_scaling") or {}
        merged = {"rope_theta": self.config.get("rope_theta", 10000.0), **old, **parameters}
        merged["rope_type"] = merged.get("rope_type") or merged.get("type") or "default"
        return merged


def common_from_hf(config: Hf) -> dict[str, Any]:
    """The DecoderSpec fields whose keys are the same in every family."""
    num_heads, hidden = config.integer("num_attention_heads"), config.integer("hidden_size")
    if num_heads == 0:
        raise MalformedFileError("config.json: num_attention_heads is 0")
    head_dim = config.integer("head_dim", hidden // num_heads)
    return {
        "vocab_size": config.integer("vocab_size"),
        "hidden_size": hidden,
        "ffn_size": config.integer("intermediate_size"),
        "num_heads": num_heads,
        "num_kv_heads": config.integer("num_key_value_heads", num_heads),
        "head_dim": head_dim,
        "max_position": config.integer("max_position_embeddings"),
        "norm_eps": float(config.number("rms_norm_eps")),
        "attention_scale": head_dim**-0.5 if head_dim else 0.0,
        "tied_head": bool(config.config.get("tie_word_embeddings", False)),
    }


def unknown_rope(kind: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"rope_type {kind!r} is not supported (default, linear, llama3, longrope)")


_GGUF_LAYER = {
    "attn_norm": "attn_norm.weight",
    "q": "attn_q.weight",
    "k": "attn_k.weight",
    "v": "attn_v.weight",
    "o": "attn_output.weight",
    "q_bias": "attn_q.bias",
    "k_bias": "attn_k.bias",
    "v_bias": "attn_v.bias",
    "q_norm": "attn_q_norm.weight",
    "k_norm": "attn_k_norm.weight",
    "ffn_norm": "ffn_norm.weight",
    "gate": "ffn_gate.weight",
    "up": "ffn_up.weight",
    "down": "ffn_down.weight",
    "post_attn_norm": "post_attention_norm.weight",
    "post_ffn_norm": "post_ffw_norm.weight",
}
_HF_LAYER = {
    "attn_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
    "ffn_norm": "post_attention_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}
_TOP = {
    "gguf": {"embed": "token_embd.weight", "final_norm": "output_norm.weight", "head": "output.weight"},
    "hf": {"embed": "model.embed_tokens.weight", "final_norm": "model.norm.weight", "head": "lm_head.weight"},
}


def usual_tensor_map(
    spec: DecoderSpec, source: Source, renamed: Mapping[str, str] | None = None
) -> dict[str, TensorRef]:
    """Canonical name -> TensorRef for every tensor the spec needs; renamed replaces names inside a layer."""
    inside = {**(_GGUF_LAYER if source == "gguf" else _HF_LAYER), **(renamed or {})}
    prefix = "blk.{}." if source == "gguf" else "model.layers.{}."
    top = dict(_TOP[source])
    if spec.tied_head:
        del top["head"]
    refs = {name: TensorRef(file_name) for name, file_name in top.items()}
    for i in range(spec.num_layers):
        for name in layer_tensor_names(spec):
            refs[f"layers.{i}.{name}"] = TensorRef(prefix.format(i) + inside[name])
    return refs
