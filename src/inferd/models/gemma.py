"""Gemma 2 and 3: norms before and after each block, scaled embeddings, local and global layers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

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

_LOCAL_THETA = 10000.0
_GLOBAL_EVERY = {"gemma2": 2, "gemma3": 6}  # one global layer ends each group of this many


def spec_from_gguf(get: Gguf) -> DecoderSpec:
    common = common_from_gguf(get)
    family = get.architecture
    num_layers, window = get.integer("block_count"), get.integer("attention.sliding_window", 4096)
    every = get.integer("attention.sliding_window_pattern", _GLOBAL_EVERY[family])
    theta, dims = float(get.number("rope.freq_base", 10000.0)), common["head_dim"]
    scale = linear_scale(get)
    is_local = [(i + 1) % every != 0 for i in range(num_layers)]
    if family == "gemma2":
        common["attention_softcap"] = float(get.number("attn_logit_softcapping", 50.0))
        common["logit_softcap"] = float(get.number("final_logit_softcapping", 30.0))
        if num_layers == 46:  # the 27B: query_pre_attn_scalar is hidden / heads, not the head size
            common["attention_scale"] = (common["hidden_size"] / common["num_heads"]) ** -0.5
        local = global_ = RopeSpec(theta=theta, dims=dims, scale=scale)
    else:
        if num_layers == 62:  # the 27B, likewise
            common["attention_scale"] = (common["hidden_size"] / common["num_heads"]) ** -0.5
        local, global_ = RopeSpec(theta=_LOCAL_THETA, dims=dims), RopeSpec(theta=theta, dims=dims, scale=scale)
    return _spec(family, is_local, window, global_, local, common)


def spec_from_hf(config: Hf) -> DecoderSpec:
    family = "gemma2" if config.config["model_type"] == "gemma2" else "gemma3"
    config = Hf({"tie_word_embeddings": True, **config.config})
    common = common_from_hf(config)
    common["attention_scale"] = float(config.number("query_pre_attn_scalar", common["head_dim"])) ** -0.5
    num_layers = config.integer("num_hidden_layers")
    types = config.config.get("layer_types")
    every = config.integer("sliding_window_pattern", _GLOBAL_EVERY[family])
    is_local = [
        (types[i] == "sliding_attention") if types else (i + 1) % every != 0 for i in range(num_layers)
    ]
    global_ = rope_from_hf(config.rope("full_attention"), common["head_dim"])
    local = global_
    if family == "gemma2":
        common["attention_softcap"] = float(config.number("attn_logit_softcapping", 0))
        common["logit_softcap"] = float(config.number("final_logit_softcapping", 0))
    else:
        parameters = (config.config.get("rope_parameters") or {}).get("sliding_attention") or {}
        theta = parameters.get("rope_theta", config.number("rope_local_base_freq", _LOCAL_THETA))
        local = RopeSpec(theta=float(theta), dims=common["head_dim"])
    return _spec(family, is_local, config.integer("sliding_window", 4096), global_, local, common)


def _spec(
    family: str, is_local: list[bool], window: int, global_: RopeSpec, local: RopeSpec, common: dict[str, Any]
) -> DecoderSpec:
    layers = tuple(LayerSpec(window=window, rope=1) if local_layer else LayerSpec() for local_layer in is_local)
    return DecoderSpec(
        family=family,
        layers=layers,
        ropes=(global_, local),
        activation="gelu_tanh",
        qk_norm=family == "gemma3",
        post_norms=True,
        embedding_scale=math.sqrt(common["hidden_size"]),
        **common,
    )


_HF_NAMES = {
    "post_attn_norm": "post_attention_layernorm.weight",
    "ffn_norm": "pre_feedforward_layernorm.weight",
    "post_ffn_norm": "post_feedforward_layernorm.weight",
}


def tensor_map(spec: DecoderSpec, source: Source) -> dict[str, TensorRef]:
    if source == "gguf":  # the file's norms already have the 1 added
        return usual_tensor_map(spec, source)
    refs = usual_tensor_map(spec, source, _HF_NAMES)
    return {name: replace(ref, plus_one=name.endswith("norm")) for name, ref in refs.items()}
