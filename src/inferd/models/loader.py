"""A path becomes a Checkpoint: read, mapped onto canonical names, every shape checked against the spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from inferd.errors import InvalidRequestError, MalformedFileError, UnsupportedModelError
from inferd.models.checkpoint import Checkpoint, TokenizerSource
from inferd.models.families import MAX_HEAD_DIM, MAX_LAYERS, Gguf, Hf, TensorRef, family_of
from inferd.models.gguf import read_gguf
from inferd.models.safetensors_dir import read_json, read_model_directory
from inferd.models.spec import DecoderSpec, tensor_names
from inferd.quantization.formats import dequantize_weight
from inferd.quantization.types import TensorType, Weight
from inferd.types import SamplingParams

# divisors of the RoPE frequencies that GGUF keeps as tensors: llama3's, and longrope's for the original context
_ROPE_FACTORS = ("rope_freqs.weight", "rope_factors_short.weight")
# tensors that say nothing new: frequencies, and the head of a tied model
_HARMLESS = (*_ROPE_FACTORS, "rope_factors_long.weight", "rotary_emb.inv_freq", "lm_head.weight")
_SAMPLING_KEYS = ("temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty")
# field of SamplingParams -> GGUF key after general.sampling.
_GGUF_SAMPLING = {
    "temperature": "temp",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "penalty_repeat",
}


def load_checkpoint(path: Path) -> Checkpoint:
    """A .gguf file or a model directory. Raises ModelLoadError naming the key or tensor that is wrong."""
    return _load_directory(path) if path.is_dir() else _load_gguf(path)


def _load_gguf(path: Path) -> Checkpoint:
    file = read_gguf(path)
    shapes = {name: (weight.num_rows, weight.num_cols) for name, weight in file.tensors.items()}
    get = Gguf(file.metadata, shapes)
    if "general.architecture" not in file.metadata:
        raise MalformedFileError(f"{path.name}: missing key general.architecture")
    family = family_of(get.architecture)
    spec = family.spec_from_gguf(get)
    for name in _ROPE_FACTORS:
        if name in file.tensors:
            spec = _with_rope_factors(spec, file.tensors[name])
    check_spec(spec)
    template = file.metadata.get("tokenizer.chat_template")
    sampling = {key: file.metadata.get(f"general.sampling.{name}") for key, name in _GGUF_SAMPLING.items()}
    refs = family.tensor_map(spec, "gguf")
    _refuse_unused(refs, file.tensors)
    return Checkpoint(
        path=path,
        name=_printable(file.metadata.get("general.name", path.stem)),
        spec=spec,
        weights=map_weights(spec, refs, file.tensors),
        tokenizer=TokenizerSource(gguf_metadata=file.metadata),
        chat_template=template if isinstance(template, str) else None,
        generation_defaults=_sampling_defaults(sampling, "general.sampling"),
    )


def _load_directory(path: Path) -> Checkpoint:
    directory = read_model_directory(path)
    config = dict(directory.config)
    architecture = config.get("model_type")
    if not isinstance(architecture, str):
        raise MalformedFileError("config.json: missing model_type")
    if config.get("quantization_config"):
        raise UnsupportedModelError("config.json: quantization_config is not supported (F32, F16 and BF16 weights are)")
    family = family_of(architecture)
    spec = family.spec_from_hf(Hf(config))
    check_spec(spec)
    refs = family.tensor_map(spec, "hf")
    _refuse_unused(refs, directory.tensors)
    return Checkpoint(
        path=path,
        name=path.name,
        spec=spec,
        weights=map_weights(spec, refs, directory.tensors),
        tokenizer=TokenizerSource(directory=path),
        chat_template=_directory_template(path),
        generation_defaults=_generation_defaults(directory.generation_config, config, spec.vocab_size),
    )


def _directory_template(path: Path) -> str | None:
    file = path / "chat_template.jinja"
    if file.exists():
        return file.read_text("utf-8")
    tokenizer_config = path / "tokenizer_config.json"
    template = read_json(tokenizer_config).get("chat_template") if tokenizer_config.exists() else None
    if isinstance(template, list):  # named templates: [{"name": ..., "template": ...}]
        named = {item.get("name"): item.get("template") for item in template if isinstance(item, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _generation_defaults(
    generation: Mapping[str, Any], config: Mapping[str, Any], vocab_size: int
) -> dict[str, Any]:
    """Sampling values count unless do_sample is false; eos ids always."""
    sampling = {key: generation.get(key) for key in _SAMPLING_KEYS}
    defaults = _sampling_defaults({} if generation.get("do_sample") is False else sampling, "generation_config.json")
    eos = generation.get("eos_token_id", config.get("eos_token_id"))
    ids = eos if isinstance(eos, list) else [eos]
    defaults["eos_token_ids"] = [i for i in ids if type(i) is int and 0 <= i < vocab_size]
    return defaults


def _sampling_defaults(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Checked here once: a bad default must not fail every request that leaves it out."""
    given = {key: value for key, value in values.items() if value is not None}
    for key, value in given.items():
        try:
            SamplingParams(**{key: value})
        except (InvalidRequestError, OverflowError) as error:
            raise MalformedFileError(f"{where}: {key}: {_printable(error)}") from None
    return given


def _printable(value: object) -> str:
    """Metadata strings keep any bytes; what is shown must be valid Unicode."""
    return str(value).encode("utf-8", "replace").decode()


def _refuse_unused(refs: Mapping[str, TensorRef], tensors: Mapping[str, Weight]) -> None:
    """A tensor with no place in the spec (a bias, a router) would change the result."""
    used = {ref.name for ref in refs.values()}
    for name in tensors:
        if name not in used and not name.endswith(_HARMLESS):
            raise UnsupportedModelError(f"tensor {name} is not part of any architecture inferd runs in this form")


def _with_rope_factors(spec: DecoderSpec, weight: Weight) -> DecoderSpec:
    factors = tuple(float(factor) for factor in dequantize_weight(weight).reshape(-1))
    if len(factors) != spec.ropes[0].dims // 2:
        dims = spec.ropes[0].dims
        raise MalformedFileError(f"tensor {weight.name} has {len(factors)} factors for {dims} rotated dims")
    return replace(spec, ropes=tuple(replace(rope, factors=factors) for rope in spec.ropes))


def check_spec(spec: DecoderSpec) -> None:
    """Raises MalformedFileError when a size cannot be meant."""

    def require(ok: bool, what: str) -> None:
        if not ok:
            raise MalformedFileError(f"the model's configuration is not sane: {what}")

    require(1 <= spec.num_layers <= MAX_LAYERS, f"{spec.num_layers} layers (1 to {MAX_LAYERS})")
    require(1 <= spec.num_kv_heads <= spec.num_heads <= 1024, f"{spec.num_heads} heads, {spec.num_kv_heads} kv heads")
    require(spec.num_heads % spec.num_kv_heads == 0, f"{spec.num_heads} heads, {spec.num_kv_heads} kv heads")
    require(2 <= spec.head_dim <= MAX_HEAD_DIM and spec.head_dim % 2 == 0, f"head size {spec.head_dim}")
    require(1 <= spec.hidden_size <= 1 << 20, f"hidden size {spec.hidden_size}")
    require(1 <= spec.ffn_size <= 1 << 22, f"feed-forward size {spec.ffn_size}")
    require(1 <= spec.vocab_size <= 1 << 24, f"vocabulary of {spec.vocab_size}")
    require(1 <= spec.max_position <= 1 << 28, f"context of {spec.max_position}")
    require(0 <= spec.norm_eps < 1, f"norm epsilon {spec.norm_eps}")
    require(0 < spec.attention_scale < 1e6, f"attention scale {spec.attention_scale}")
    require(0 <= spec.attention_softcap < 1e6 and 0 <= spec.logit_softcap < 1e6, "a soft cap out of range")
    require(all(layer.window >= 0 for layer in spec.layers), "a negative window")
    for rope in spec.ropes:
        require(0 <= rope.dims <= spec.head_dim and rope.dims % 2 == 0, f"{rope.dims} rotated dims")
        require(0 < rope.theta < 1e15 and 0 < rope.scale < 1e9, f"rope theta {rope.theta}, scale {rope.scale}")
        require(0 < rope.magnitude < 1e3, f"rope attention factor {rope.magnitude}")
        require(all(0 < factor < 1e6 for factor in rope.factors), "a rope factor out of range")


def expected_shape(spec: DecoderSpec, name: str) -> tuple[int, int]:
    """(rows, cols) of a canonical tensor; vectors are (1, n)."""
    hidden, ffn = spec.hidden_size, spec.ffn_size
    q_size, kv_size = spec.num_heads * spec.head_dim, spec.kv_size
    last = name.rsplit(".", 1)[-1]
    shapes = {
        "embed": (spec.vocab_size, hidden),
        "head": (spec.vocab_size, hidden),
        "q": (q_size, hidden),
        "k": (kv_size, hidden),
        "v": (kv_size, hidden),
        "o": (hidden, q_size),
        "gate": (ffn, hidden),
        "up": (ffn, hidden),
        "down": (hidden, ffn),
        "q_bias": (1, q_size),
        "k_bias": (1, kv_size),
        "v_bias": (1, kv_size),
        "q_norm": (1, spec.head_dim),
        "k_norm": (1, spec.head_dim),
    }
    return shapes.get(last, (1, hidden))


def map_weights(
    spec: DecoderSpec, refs: Mapping[str, TensorRef], tensors: Mapping[str, Weight]
) -> dict[str, Weight]:
    """Canonical name -> Weight for every tensor of the spec, transformed and checked."""
    weights = {}
    for name in tensor_names(spec):
        ref = refs[name]
        if ref.name not in tensors:
            raise MalformedFileError(f"missing tensor {ref.name}")
        weight = transform(tensors[ref.name], ref)
        expected = expected_shape(spec, name)
        if (weight.num_rows, weight.num_cols) != expected:
            raise MalformedFileError(
                f"tensor {ref.name} is {weight.num_rows} x {weight.num_cols}, expected {expected[0]} x {expected[1]}"
            )
        weights[name] = replace(weight, name=name)
    return weights


def transform(weight: Weight, ref: TensorRef) -> Weight:
    """A tensor of a file, or the rows of a fused one, in the order that executors want."""
    if ref.rows:
        begin, end = ref.rows
        if end > weight.num_rows:
            raise MalformedFileError(f"tensor {ref.name} has {weight.num_rows} rows, expected {end} or more")
        weight = replace(weight, data=weight.data[begin:end], num_rows=end - begin)
    if ref.unpermute_heads:
        half = weight.num_rows // ref.unpermute_heads // 2
        if half * 2 * ref.unpermute_heads != weight.num_rows:
            raise MalformedFileError(f"tensor {ref.name}: {weight.num_rows} rows for {ref.unpermute_heads} heads")
        # rows of a head come as (half, 2): pairs side by side; executors want the two halves one after the other
        pairs = weight.data.reshape(ref.unpermute_heads, half, 2, -1)
        weight = replace(weight, data=pairs.swapaxes(1, 2).reshape(weight.num_rows, -1))
    if ref.plus_one:
        values = dequantize_weight(weight) + np.float32(1)
        weight = replace(weight, kind=TensorType.F32, data=values.view(np.uint8).reshape(weight.num_rows, -1))
    return weight
