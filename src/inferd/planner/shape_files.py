"""ModelShape from what a model file says: a Hugging Face config.json, or the metadata of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inferd.errors import ConfigError
from inferd.planner.precision import Precision
from inferd.planner.shapes import ModelShape

# Every n-th layer sees all tokens, in families whose files give a window and no pattern.
_FULL_EVERY = {"gemma3": 6, "gemma3_text": 6, "gemma2": 2, "gpt-oss": 2, "gpt_oss": 2, "cohere2": 4, "llama4": 4}
_RECURRENT = ("mamba", "ssm_", "rwkv", "linear_attn", "layers_block_type", "hybrid_override_pattern")
_BIASED = {"qwen2", "qwen2_moe", "qwen2moe"}


def shape_from_config(config: Mapping[str, Any], name: str) -> ModelShape:
    """config: a parsed config.json. Raises ConfigError that names the file and the key."""
    if isinstance(inner := config.get("text_config"), Mapping):
        config = {**inner, "tie_word_embeddings": config.get("tie_word_embeddings", inner.get("tie_word_embeddings"))}
    strange = [key for key in config if key.startswith(_RECURRENT)]
    if strange:
        raise ConfigError(f"model: {name}: recurrent layers ({strange[0]}) are planned for presets only")
    read = _Reader(config, name)
    layers, hidden, heads = read("num_hidden_layers"), read("hidden_size"), read("num_attention_heads")
    family = str(config.get("model_type", ""))
    moe = _config_moe(read, layers)
    return ModelShape(
        id=name,
        attention_layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=read("num_key_value_heads", heads),
        head_dim=read("head_dim", hidden // heads),
        vocab=read("vocab_size"),
        ffn_layers=layers - moe["moe_layers"],
        ffn=read("intermediate_size"),
        **moe,
        **_config_window(config, read, layers, family),
        **_config_latent(read),
        tied=_flag(config, "tie_word_embeddings", family.startswith("gemma")),
        qkv_bias=_flag(config, "attention_bias", family in _BIASED),
        max_context=read("max_position_embeddings", 0),
        source=f"{name}: config.json",
    )


class _Reader:
    """A whole number above zero, or its default."""

    def __init__(self, values: Mapping[str, Any], name: str, prefix: str = "") -> None:
        self.values, self.name, self.prefix = values, name, prefix

    def __call__(self, key: str, default: int | None = None) -> int:
        value = self.values.get(self.prefix + key)
        if value is None and default is not None:
            return default
        if isinstance(value, Sequence) and not isinstance(value, str) and value:
            value = max(value)  # per layer: planned as if all were the largest
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**40:
            raise ConfigError(f"model: {self.name}: {self.prefix}{key} must be a whole number above 0, got {value!r}")
        return value

    def first(self, *keys: str) -> int:
        return next((self(key) for key in keys if self.values.get(self.prefix + key) is not None), 0)


def _flag(config: Mapping[str, Any], key: str, default: bool) -> bool:
    value = config.get(key)
    return default if value is None else bool(value)


def _config_moe(read: _Reader, layers: int) -> dict[str, Any]:
    experts = read.first("num_local_experts", "num_experts", "n_routed_experts")
    if experts < 2:
        return {"moe_layers": 0}
    width = read("moe_intermediate_size", read("intermediate_size"))
    every = max(1, read.first("interleave_moe_layer_step", "decoder_sparse_step", "moe_layer_freq"))
    shared = read("shared_expert_intermediate_size", read("n_shared_experts", 0) * width)
    return {
        "moe_layers": (layers - read("first_k_dense_replace", 0)) // every,
        "experts": experts,
        "experts_per_token": read.first("num_experts_per_tok", "num_experts_per_token"),
        "expert_ffn": width,
        "shared_ffn": shared,
    }


def _config_window(config: Mapping[str, Any], read: _Reader, layers: int, family: str) -> dict[str, Any]:
    if config.get("sliding_window") is None or config.get("use_sliding_window") is False:
        return {}
    window, kinds = read("sliding_window"), config.get("layer_types")
    if isinstance(kinds, Sequence) and not isinstance(kinds, str):
        return {"window": window, "window_layers": sum(kind == "sliding_attention" for kind in kinds)}
    return {"window": window, "window_layers": _windowed(layers, read("sliding_window_pattern", 0), family)}


def _windowed(layers: int, pattern: int, family: str) -> int:
    full_every = pattern or _FULL_EVERY.get(family, 0)
    return layers - layers // full_every if full_every else layers


def _config_latent(read: _Reader) -> dict[str, Any]:
    if not read("kv_lora_rank", 0):
        return {}
    query = read("q_lora_rank", 0) or read("hidden_size")  # without a query rank the projection is whole
    return {
        "kv_lora_rank": read("kv_lora_rank"),
        "rope_dim": read("qk_rope_head_dim"),
        "q_lora_rank": query,
        "nope_dim": read("qk_nope_head_dim"),
        "value_dim": read("v_head_dim"),
    }


def shape_from_gguf(metadata: Mapping[str, Any], tensors: Sequence[str], name: str) -> ModelShape:
    """metadata: GGUF keys -> values; tensors: names of all tensors. Raises ConfigError that names the key."""
    family = metadata.get("general.architecture")
    if not isinstance(family, str):
        raise ConfigError(f"model: {name}: general.architecture is missing")
    if any(".ssm_" in tensor for tensor in tensors):
        raise ConfigError(f"model: {name}: recurrent layers are planned for presets only")
    read = _Reader(metadata, name, family + ".")
    layers, hidden, heads = read("block_count"), read("embedding_length"), read("attention.head_count")
    moe = _gguf_moe(read, layers)
    latent = _gguf_latent(read)
    window = read("attention.sliding_window", 0)
    tokens = metadata.get("tokenizer.ggml.tokens")
    return ModelShape(
        id=name,
        attention_layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=read("attention.head_count_kv", heads),
        head_dim=latent["value_dim"] if latent else read("attention.key_length", hidden // heads),
        **latent,
        vocab=len(tokens) if isinstance(tokens, Sequence) else read("vocab_size"),
        ffn_layers=layers - moe["moe_layers"],
        ffn=read("feed_forward_length", 0),
        **moe,
        window=window,
        window_layers=_windowed(layers, 0, family) if window else 0,
        tied="output.weight" not in tensors,
        qkv_bias=any(tensor.endswith("attn_q.bias") for tensor in tensors),
        max_context=read("context_length", 0),
        source=f"{name}: GGUF metadata",
    )


def _gguf_moe(read: _Reader, layers: int) -> dict[str, Any]:
    experts = read("expert_count", 0)
    if experts < 2:
        return {"moe_layers": 0}
    width = read("expert_feed_forward_length", read("feed_forward_length", 0))
    return {
        "moe_layers": layers - read("leading_dense_block_count", 0),
        "experts": experts,
        "experts_per_token": read("expert_used_count"),
        "expert_ffn": width,
        "shared_ffn": read("expert_shared_feed_forward_length", read("expert_shared_count", 0) * width),
    }


def _gguf_latent(read: _Reader) -> dict[str, Any]:
    if not read("attention.kv_lora_rank", 0):
        return {}
    rope = read("rope.dimension_count")
    return {
        "kv_lora_rank": read("attention.kv_lora_rank"),
        "rope_dim": rope,
        "q_lora_rank": read("attention.q_lora_rank", 0) or read("embedding_length"),
        "nope_dim": read("attention.key_length_mla", read("attention.key_length")) - rope,
        "value_dim": read("attention.value_length_mla", read("attention.value_length")),
    }


def file_precision(shape: ModelShape, tensor_bytes: Mapping[str, int]) -> Precision:
    """The file as it is: bits per weight of its embeddings and of the rest. tensor_bytes: tensor name -> bytes."""
    tables = {"token_embd.weight", "output.weight"}
    embedding = sum(size for name, size in tensor_bytes.items() if name in tables)
    rest = sum(tensor_bytes.values()) - embedding
    return Precision(
        name="the file's own format",
        linear_bits=8 * rest / (shape.dense_params + shape.routed_params + shape.norm_params),
        embedding_bits=8 * embedding / shape.embedding_params,
        rate="int8",
        note="bytes of the file's tensors",
    )
