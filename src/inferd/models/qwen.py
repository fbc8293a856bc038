"""Qwen2 and 2.5 (bias on q, k, v) and Qwen3 (RMS norm on q and k heads)."""

from __future__ import annotations

from inferd.models.families import (
    Gguf,
    Hf,
    Source,
    TensorRef,
    common_from_gguf,
    common_from_hf,
    linear_scale,
    usual_tensor_map,
)
from inferd.models.llama import rope_from_hf
from inferd.models.spec import DecoderSpec, LayerSpec, RopeSpec


def spec_from_gguf(get: Gguf) -> DecoderSpec:
    common = common_from_gguf(get)
    rope = RopeSpec(
        theta=get.positive("rope.freq_base", 10000.0), dims=common["head_dim"], scale=linear_scale(get)
    )
    layers = (LayerSpec(),) * get.num_layers("block_count")
    return _spec(get.architecture, layers, rope, common)


def spec_from_hf(config: Hf) -> DecoderSpec:
    common = common_from_hf(config)
    config.require_activation("silu")
    num_layers = config.num_layers("num_hidden_layers")
    windows = [0] * num_layers
    if config.get("use_sliding_window"):
        first = config.integer("max_window_layers", 0)
        windows = [0 if i < first else config.integer("sliding_window", 0) for i in range(num_layers)]
    layers = tuple(LayerSpec(window=window) for window in windows)
    return _spec(config.get("model_type"), layers, rope_from_hf(config.rope(), common["head_dim"]), common)


def _spec(family: str, layers: tuple[LayerSpec, ...], rope: RopeSpec, common: dict[str, object]) -> DecoderSpec:
    is_qwen2 = family == "qwen2"
    return DecoderSpec(
        family=family,
        layers=layers,
        ropes=(rope,),
        qkv_bias=is_qwen2,
        qk_norm=not is_qwen2,
        **common,  # type: ignore[arg-type]
    )


def tensor_map(spec: DecoderSpec, source: Source) -> dict[str, TensorRef]:
    return usual_tensor_map(spec, source)
