"""Llama 2 and 3, SmolLM2, Mistral: pre-norm, SiLU, optional llama3 RoPE scaling, optional sliding window."""

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
    linear_scale,
    unknown_rope,
    usual_tensor_map,
)
from inferd.models.spec import DecoderSpec, LayerSpec, RopeSpec


def spec_from_gguf(get: Gguf) -> DecoderSpec:
    common = common_from_gguf(get)
    rope = RopeSpec(
        theta=get.positive("rope.freq_base", 10000.0),
        dims=get.integer("rope.dimension_count", common["head_dim"]),
        scale=linear_scale(get),
    )
    window = get.integer("attention.sliding_window", 0)
    layers = (LayerSpec(window=window),) * get.num_layers("block_count")
    return DecoderSpec(family=get.architecture, layers=layers, ropes=(rope,), **common)


def spec_from_hf(config: Hf) -> DecoderSpec:
    common = common_from_hf(config)
    config.require_activation("silu")
    rope = rope_from_hf(config.rope(), common["head_dim"])
    window = config.integer("sliding_window", 0)
    layers = (LayerSpec(window=window),) * config.num_layers("num_hidden_layers")
    return DecoderSpec(family=config.get("model_type"), layers=layers, ropes=(rope,), **common)


def rope_from_hf(rope: Hf, dims: int) -> RopeSpec:
    """Types default, linear and llama3."""
    base, kind = RopeSpec(theta=rope.positive("rope_theta"), dims=dims), rope.get("rope_type")
    if kind == "default":
        return base
    if kind == "linear":
        return replace(base, scale=rope.positive("factor"))
    if kind == "llama3":
        return replace(base, factors=llama3_factors(rope, base))
    raise unknown_rope(kind)


def llama3_factors(rope: Hf, base: RopeSpec) -> tuple[float, ...]:
    """Long wavelengths are divided by `factor`, short ones left, those between blended."""
    factor, low, high = (rope.positive(key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    context = rope.positive("original_max_position_embeddings")
    if low >= high:
        raise MalformedFileError(f"config.json: low_freq_factor {low:g} must be below high_freq_factor {high:g}")
    factors = []
    for i in range(base.dims // 2):
        wavelength = 2 * math.pi * base.theta ** (2 * i / base.dims)
        if wavelength < context / high:
            factors.append(1.0)
        elif wavelength > context / low:
            factors.append(factor)
        else:
            smooth = (context / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return tuple(factors)


def tensor_map(spec: DecoderSpec, source: Source) -> dict[str, TensorRef]:
    refs = usual_tensor_map(spec, source)
    if source == "gguf":
        for i in range(spec.num_layers):
            for name, heads in (("q", spec.num_heads), ("k", spec.num_kv_heads)):
                key = f"layers.{i}.{name}"
                refs[key] = replace(refs[key], unpermute_heads=heads)
    return refs
