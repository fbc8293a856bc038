"""The registry of model families, and what their files share."""

from __future__ import annotations

import importlib
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from inferd.errors import MalformedFileError, UnsupportedModelError
from inferd.models.spec import DecoderSpec, layer_tensor_names

Source = Literal["gguf", "hf"]

MAX_LAYERS = 1024
MAX_HEAD_DIM = 512

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
        name = reprlib.repr(architecture)
        raise UnsupportedModelError(f"architecture {name} is not supported (supported: {supported})")
    return cast(Family, importlib.import_module(f"inferd.models.{FAMILIES[architecture]}"))


class Fields:
    """Typed access to what a file says about its model; errors name the field."""

    def __init__(self, values: Mapping[str, Any], prefix: str) -> None:
        self._values = values
        self._prefix = prefix  # of field names in errors

    def get(self, key: str, default: Any = None) -> Any:
        """default also for null."""
        value = self._values.get(key)
        return default if value is None else value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key, default)
        if value is None:
            raise MalformedFileError(f"missing key {self._prefix}{key}")
        finite = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e38  # false for NaN
        if not finite:
            raise MalformedFileError(f"{self._prefix}{key} must be a number, got {reprlib.repr(value)}")
        return cast(float, value)

    def positive(self, key: str, default: float | None = None) -> float:
        value = float(self.number(key, default))
        if value <= 0:
            raise MalformedFileError(f"{self._prefix}{key} must be above 0, got {value:g}")
        return value

    def integer(self, key: str, default: int | None = None, *, limit: int = 2**31 - 1) -> int:
        value = self.number(key, default)
        if int(value) != value or not 0 <= value <= limit:
            raise MalformedFileError(f"{self._prefix}{key} must be an integer from 0 to {limit}, got {value:g}")
        return int(value)

    def num_layers(self, key: str) -> int:
        return self.integer(key, limit=MAX_LAYERS)

    def refuse(self, *keys: str) -> None:
        """Features that would change the result and that no family here implements."""
        for key in keys:
            if self.get(key):
                raise UnsupportedModelError(f"{self._prefix}{key} = {reprlib.repr(self.get(key))} is not supported")


class Gguf(Fields):
    """The metadata keys of a file's own architecture, and the shapes of its tensors."""

    def __init__(self, metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, int]]) -> None:
        self.architecture = str(metadata.get("general.architecture", ""))
        prefix = f"{self.architecture}."
        own = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
        super().__init__(own, prefix)
        self.shapes = shapes  # tensor name -> (rows, cols)

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
    head_dim = get.integer("attention.key_length", hidden // num_heads, limit=MAX_HEAD_DIM)
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
        "attention_scale": get.positive("attention.scale", max(head_dim, 1) ** -0.5),
        "tied_head": "output.weight" not in get.shapes,
    }


def linear_scale(get: Gguf) -> float:
    """rope.scaling of type linear; other types are a family's own business or refused."""
    kind = get.get("rope.scaling.type", "none")
    if kind == "linear":
        return get.positive("rope.scaling.factor")
    if kind not in ("none", ""):
        name = f"{get.architecture}.rope.scaling.type = {reprlib.repr(kind)}"
        raise UnsupportedModelError(f"{name} is not supported (supported: none, linear)")
    return get.positive("rope.scale_linear", 1.0)


class Hf(Fields):
    """A Hugging Face config."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config, "config.json: ")

    def mapping(self, key: str) -> Mapping[str, Any]:
        value = self.get(key, {})
        if not isinstance(value, dict):
            raise MalformedFileError(f"config.json: {key} must be an object, got {reprlib.repr(value)}")
        return value

    def rope(self, layer_type: str = "full_attention") -> Hf:
        """Fields in the newer form, whichever form the file has: rope_type, rope_theta, ..."""
        parameters = self.mapping("rope_parameters")
        if any(isinstance(value, dict) for value in parameters.values()):  # one object per kind of layer
            parameters = Hf(parameters).mapping(layer_type)
        old = self.mapping("rope_scaling")
        merged = {"rope_theta": self.get("rope_theta", 10000.0), **old, **parameters}
        merged["rope_type"] = merged.get("rope_type") or merged.get("type") or "default"
        return Hf(merged)

    def require_activation(self, *allowed: str) -> None:
        for key in ("hidden_activation", "hidden_act"):  # Gemma's first configs: "gelu" under the second means tanh
            activation = self.get(key)
            if activation is not None:
                break
        if activation is not None and activation not in allowed:
            supported = ", ".join(allowed)
            raise UnsupportedModelError(
                f"config.json: {key} = {reprlib.repr(activation)} is not supported (supported: {supported})"
            )


def common_from_hf(config: Hf) -> dict[str, Any]:
    """The DecoderSpec fields whose keys are the same in every family."""
    config.refuse("attention_bias", "mlp_bias", "use_bidirectional_attention")
    num_heads, hidden = config.integer("num_attention_heads"), config.integer("hidden_size")
    if num_heads == 0:
        raise MalformedFileError("config.json: num_attention_heads is 0")
    head_dim = config.integer("head_dim", hidden // num_heads, limit=MAX_HEAD_DIM)
    return {
        "vocab_size": config.integer("vocab_size"),
        "hidden_size": hidden,
        "ffn_size": config.integer("intermediate_size"),
        "num_heads": num_heads,
        "num_kv_heads": config.integer("num_key_value_heads", num_heads),
        "head_dim": head_dim,
        "max_position": config.integer("max_position_embeddings"),
        "norm_eps": float(config.number("rms_norm_eps")),
        "attention_scale": max(head_dim, 1) ** -0.5,
        "tied_head": bool(config.get("tie_word_embeddings", False)),
    }


def unknown_rope(kind: object) -> UnsupportedModelError:
    supported = "default, linear, llama3, longrope"
    return UnsupportedModelError(f"rope_type {reprlib.repr(kind)} is not supported (supported: {supported})")


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
