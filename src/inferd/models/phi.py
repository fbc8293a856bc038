"""Phi-3: fused qkv and gate_up, optional sliding window, partial rotary, longrope."""

from __future__ import annotations

import math
from dataclasses import replace

from inferd.errors import MalformedFileError
from inferd.models.families import (
    Gguf,
    Hf,
    Source,
    TensorRef,
    common_from_gguf,
    common_from_hf,
    usual_tensor_map,
)
from inferd.models.llama import rope_from_hf
from inferd.models.spec import DecoderSpec, LayerSpec, RopeSpec


def spec_from_gguf(get: Gguf) -> DecoderSpec:
    common = common_from_gguf(get)
    rope = RopeSpec(
        theta=get.positive("rope.freq_base", 10000.0),
        dims=get.integer("rope.dimension_count", common["head_dim"]),
    )
    if "rope_factors_short.weight" in get.shapes:  # longrope; the loader adds the factors. See _longrope
        common["max_position"] = get.integer("rope.scaling.original_context_length", common["max_position"])
        rope = replace(rope, magnitude=get.positive("rope.scaling.attn_factor", 1.0))
    elif "rope_factors_long.weight" in get.shapes:
        raise MalformedFileError("rope_factors_long.weight without rope_factors_short.weight")
    layers = (LayerSpec(window=get.integer("attention.sliding_window", 0)),) * get.num_layers("block_count")
    return DecoderSpec(family="phi3", layers=layers, ropes=(rope,), **common)


def spec_from_hf(config: Hf) -> DecoderSpec:
    common = common_from_hf(config)
    config.require_activation("silu")
    parameters = config.rope()
    partial = parameters.positive("partial_rotary_factor", config.number("partial_rotary_factor", 1.0))
    dims = int(common["head_dim"] * min(partial, 1.0))
    if parameters.get("rope_type") in ("longrope", "su"):
        rope = _longrope(config, parameters, dims)
        common["max_position"] = _original_context(config, parameters)
    else:
        rope = rope_from_hf(parameters, dims)
    layers = (LayerSpec(window=config.integer("sliding_window", 0)),) * config.num_layers("num_hidden_layers")
    return DecoderSpec(family="phi3", layers=layers, ropes=(rope,), **common)


def _longrope(config: Hf, parameters: Hf, dims: int) -> RopeSpec:
    """The short factors, and the attention factor of the full context.

    transformers switches to the long factors once a sequence passes the original context; with a KV cache that
    rotates old keys differently from new ones. So the short ones hold for good and the context ends where they do.
    """
    original = _original_context(config, parameters)
    ratio = config.integer("max_position_embeddings") / original
    derived = 1.0 if ratio <= 1 else math.sqrt(1 + math.log(ratio) / math.log(original))
    short = parameters.get("short_factor")
    if not isinstance(short, list) or len(short) != dims // 2:
        raise MalformedFileError(f"config.json: short_factor must be a list of {dims // 2} numbers")
    numbers = Hf({f"short_factor[{i}]": factor for i, factor in enumerate(short)})
    return RopeSpec(
        theta=parameters.positive("rope_theta"),
        dims=dims,
        factors=tuple(numbers.positive(f"short_factor[{i}]") for i in range(len(short))),
        magnitude=parameters.positive("attention_factor", derived),
    )


def _original_context(config: Hf, parameters: Hf) -> int:
    key = "original_max_position_embeddings"
    original = config.integer(key, parameters.integer(key, 0))
    if original < 2:
        raise MalformedFileError(f"config.json: longrope needs {key} above 1, got {original}")
    return original


def tensor_map(spec: DecoderSpec, source: Source) -> dict[str, TensorRef]:
    refs = usual_tensor_map(spec, source)
    prefix = "blk.{}." if source == "gguf" else "model.layers.{}."
    qkv = "attn_qkv.weight" if source == "gguf" else "self_attn.qkv_proj.weight"
    gate_up = "ffn_up.weight" if source == "gguf" else "mlp.gate_up_proj.weight"
    q_size, ffn = spec.num_heads * spec.head_dim, spec.ffn_size
    cuts = {
        "q": (qkv, 0, q_size),
        "k": (qkv, q_size, q_size + spec.kv_size),
        "v": (qkv, q_size + spec.kv_size, q_size + 2 * spec.kv_size),
        "gate": (gate_up, 0, ffn),
        "up": (gate_up, ffn, 2 * ffn),
    }
    for i in range(spec.num_layers):
        for name, (fused, begin, end) in cuts.items():
            key = f"layers.{i}.{name}"
            refs[key] = replace(refs[key], name=prefix.format(i) + fused, rows=(begin, end))
    return refs
