"""Gemma 2 and 3: norms before and after each block, scaled embeddings, local and global layers."""

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
    num_layers, window = get.num_layers("block_count"), get.integer("attention.sliding_window", 4096)
    every = max(1, get.integer("attention.sliding_window_pattern", _GLOBAL_EVERY[family]))
    theta, dims = get.positive("rope.freq_base", 10000.0), common["head_dim"]
    scale = linear_scale(get)
    is_local = [(i + 1) % every != 0 for i in range(num_layers)]
    if family == "gemma2":
        common["attention_softcap"] = float(get.number("attn_logit_softcapping", 50.0))
        common["logit_softcap"] = float(get.number("final_logit_softcapping", 30.0))
        if num_layers == 46:  # the 27B: query_pre_attn_scalar is hidden / heads, not the head size
            common["attention_scale"] = _per_head_scale(common)
        local = global_ = RopeSpec(theta=theta, dims=dims, scale=scale)
    else:
        if num_layers == 62:  # the 27B, likewise
            common["attention_scale"] = _per_head_scale(common)
        local = RopeSpec(theta=get.positive("rope.freq_base_swa", _LOCAL_THETA), dims=dims)
        global_ = RopeSpec(theta=theta, dims=dims, scale=scale)
    return _spec(family, is_local, window, global_, local, common)


def _per_head_scale(common: dict[str, Any]) -> float:
    return float((max(common["hidden_size"], 1) / common["num_heads"]) ** -0.5)


def spec_from_hf(config: Hf) -> DecoderSpec:
    family = "gemma2" if config.get("model_type") == "gemma2" else "gemma3"
    common = common_from_hf(config)
    config.require_activation("gelu_pytorch_tanh", "gelu")
    common["tied_head"] = bool(config.get("tie_word_embeddings", True))
    common["attention_scale"] = config.positive("query_pre_attn_scalar", max(common["head_dim"], 1)) ** -0.5
    global_ = rope_from_hf(config.rope("full_attention"), common["head_dim"])
    local = global_
    if family == "gemma2":
        common["attention_softcap"] = float(config.number("attn_logit_softcapping", 0))
        common["logit_softcap"] = float(config.number("final_logit_softcapping", 0))
    else:
        parameters = Hf(Hf(config.mapping("rope_parameters")).mapping("sliding_attention"))
        theta = parameters.positive("rope_theta", config.number("rope_local_base_freq", _LOCAL_THETA))
        local = RopeSpec(theta=theta, dims=common["head_dim"])
    return _spec(family, _local_layers(config, family), config.integer("sliding_window", 4096), global_, local, common)


def _local_layers(config: Hf, family: str) -> list[bool]:
    num_layers, types = config.num_layers("num_hidden_layers"), config.get("layer_types")
    if types is None:
        every = max(1, config.integer("sliding_window_pattern", _GLOBAL_EVERY[family]))
        return [(i + 1) % every != 0 for i in range(num_layers)]
    known = ("sliding_attention", "full_attention")
    if not isinstance(types, list) or len(types) != num_layers or not all(kind in known for kind in types):
        raise MalformedFileError(f"config.json: layer_types must be {num_layers} of {', '.join(known)}")
    return [kind == "sliding_attention" for kind in types]


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
