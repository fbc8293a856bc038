"""Phi-3: fused qkv and gate_up, optional sliding window, partial rotary, longrope."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from inferd.errors import MalformedFileError
from inferd.models.families import (
    Gguf,
    Hf,
    Source,
    TensorRef,
    common_from_gguf,
    common_from_hf,
    unknown_rope,
    usual_tensor_map,
)
from inferd.models.llama import rope_from_hf
from inferd.models.spec import DecoderSpec, LayerSpec, RopeSpec


def spec_from_gguf(get: Gguf) -> DecoderSpec:
    """The long and short factors of GGUF are tensors, which a spec does not see: only files without them load."""
    common = common_from_gguf(get)
    for name in ("rope_factors_long.weight", "rope_factors_short.weight"):
        if name in get.shapes:
            raise unknown_rope(f"longrope (tensor {name}) in GGUF")
    rope = RopeSpec(
        theta=float(get.number("rope.freq_base", 10000.0)),
        dims=get.integer("rope.dimension_count", common["head_dim"]),
    )
    layers = (LayerSpec(window=get.integer("attention.sliding_window", 0)),) * get.integer("block_count")
    return DecoderSpec(family="phi3", layers=layers, ropes=(rope,), **common)


def spec_from_hf(config: Hf) -> DecoderSpec:
    common = common_from_hf(config)
    parameters = config.rope()
    partial = parameters.get("partial_rotary_factor") or config.number("partial_rotary_factor", 1.0)
    dims = int(common["head_dim"] * float(partial))
    if parameters["rope_type"] in ("longrope", "su"):
        rope = _longrope(config, parameters, dims)
        common["max_position"] = _original_context(config, parameters)
    else:
        rope = rope_from_hf(parameters, dims)
    layers = (LayerSpec(window=config.integer("sliding_window", 0)),) * config.integer("num_hidden_layers")
    return DecoderSpec(family="phi3", layers=layers, ropes=(rope,), **common)


def _longrope(config: Hf, parameters: dict[str, Any], dims: int) -> RopeSpec:
    """The short factors, and the attention factor of the full context.

    transformers switches to the long factors once a sequence passes the original context; with a KV cache that
    rotates old keys differently from new ones. So the short ones hold for good and the context ends where they do.
    """
    original = _original_context(config, parameters)
    ratio = config.integer("max_position_embeddings") / original
    magnitude = parameters.get("attention_factor")
    if magnitude is None:
        magnitude = 1.0 if ratio <= 1 else math.sqrt(1 + math.log(ratio) / math.log(original))
    factors = tuple(float(factor) for factor in parameters["short_factor"])
    if len(factors) != dims // 2:
        raise MalformedFileError(f"config.json: short_factor has {len(factors)} values, expected {dims // 2}")
    return RopeSpec(theta=float(parameters["rope_theta"]), dims=dims, factors=factors, magnitude=float(magnitude))


def _original_context(config: Hf, parameters: dict[str, Any]) -> int:
    key = "original_max_position_embeddings"
    original = config.config.get(key) or parameters.get(key)
    if not isinstance(original, int) or original < 2:
        raise MalformedFileError(f"config.json: longrope needs {key}")
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
