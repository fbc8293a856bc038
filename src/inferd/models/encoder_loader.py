"""A model directory becomes an EncoderCheckpoint: the encoder, its pooling and heads, its tokenizer's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from inferd.errors import MalformedFileError, UnsupportedModelError
from inferd.models import bert
from inferd.models.encoder_spec import EncoderSpec, HeadActivation, HeadSpec, Pooling, ScoreActivation, encoder_shapes
from inferd.models.families import Hf
from inferd.models.safetensors_dir import read_json, read_json_value, read_model_directory, read_safetensors
from inferd.quantization.formats import dequantize_weight
from inferd.quantization.types import TensorType, Weight

FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert")
_POOLINGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_DENSE_ACTIVATIONS: dict[str, HeadActivation] = {"Tanh": "tanh", "Identity": "none", "ReLU": "relu"}
# tensors with no part in vectors or scores: the language model's head, and BERT's pooler without a classifier
_HARMLESS = ("cls.", "lm_head.", "vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "pooler.")


@dataclass(frozen=True, slots=True)
class EncoderCheckpoint:
    """labels: () for a model that makes vectors. max_tokens: that one input is read with, special tokens included.

    score_activation: what makes scores of the labels' raw values. prompts: texts to put before an input, by name.
    """

    path: Path
    name: str
    spec: EncoderSpec
    weights: Mapping[str, Weight]
    max_tokens: int
    pooling: Pooling
    labels: tuple[str, ...] = ()
    score_activation: ScoreActivation = "none"
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str = ""


def load_encoder(path: Path) -> EncoderCheckpoint:
    """Raises ModelLoadError naming the key or tensor that is wrong."""
    if not path.is_dir():
        raise UnsupportedModelError(f"{path.name}: encoders are read from model directories with safetensors")
    directory = read_model_directory(path)
    config = Hf(directory.config)
    family = str(config.get("model_type", ""))
    if family not in FAMILIES:
        raise UnsupportedModelError(f"encoder {family!r} is not supported (supported: {', '.join(FAMILIES)})")
    config.refuse("quantization_config")
    tensors = dict(directory.tensors)
    spec = bert.spec_from_hf(config, family)
    labels = _labels(config)
    modules = _SentenceModules.of(path, tensors)
    heads = _classifier(config, family, len(labels), tensors) if labels else modules.heads
    spec = replace(spec, heads=heads)
    prompts = _optional_json(path / "config_sentence_transformers.json")
    checkpoint = EncoderCheckpoint(
        path=path,
        name=path.name,
        spec=spec,
        weights=_weights(config, spec, tensors),
        max_tokens=min(modules.max_tokens or spec.max_position, spec.max_position),
        pooling="cls" if labels else modules.pooling,
        labels=labels,
        score_activation=_score_activation(config, len(labels)),
        prompts=_prompts(prompts),
        default_prompt=str(prompts.get("default_prompt_name") or ""),
    )
    if checkpoint.default_prompt and checkpoint.default_prompt not in checkpoint.prompts:
        raise MalformedFileError("config_sentence_transformers.json: default_prompt_name is not one of its prompts")
    return checkpoint


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _prompts(config: Mapping[str, Any]) -> dict[str, str]:
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise MalformedFileError("config_sentence_transformers.json: prompts must map names to texts")
    return prompts


def _labels(config: Hf) -> tuple[str, ...]:
    """The classifier's, () for a model without one."""
    architectures = config.get("architectures") or [""]
    kind = str(architectures[0])
    if kind.endswith(("ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")):
        raise UnsupportedModelError(f"config.json: {kind} is not supported (vectors and sequence classification are)")
    if not kind.endswith("ForSequenceClassification"):
        return ()
    names = config.mapping("id2label")
    count = len(names) or config.integer("num_labels", 2)
    return tuple(str(names.get(str(i), f"LABEL_{i}")) for i in range(count))


def _score_activation(config: Hf, num_labels: int) -> ScoreActivation:
    """As sentence-transformers keeps it for cross-encoders; else by the kind of problem."""
    if not num_labels:
        return "none"
    own = config.mapping("sentence_transformers").get("activation_fn")
    own = own or config.get("sbert_ce_default_activation_function")
    if own is not None:
        name = str(own).rpartition(".")[2]
        known: dict[str, ScoreActivation] = {"Identity": "none", "Sigmoid": "sigmoid", "Softmax": "softmax"}
        if name not in known:
            message = f"config.json: activation_fn {own!r} is not supported (supported: {', '.join(known)})"
            raise UnsupportedModelError(message)
        return known[name]
    if num_labels == 1 or config.get("problem_type") == "multi_label_classification":
        return "sigmoid"
    return "softmax"


def _classifier(config: Hf, family: str, num_labels: int, tensors: dict[str, Weight]) -> tuple[HeadSpec, ...]:
    """Renames its tensors to heads.{i}."""
    heads = []
    for i, (name, activation) in enumerate(bert.names_of(config, family).classifier):
        for suffix, own in ((".weight", ""), (".bias", "_bias")):
            if name + suffix not in tensors:
                raise MalformedFileError(f"missing tensor {name}{suffix}")
            tensors[f"heads.{i}{own}"] = tensors.pop(name + suffix)
        heads.append(HeadSpec(tensors[f"heads.{i}"].num_rows, activation))
    if heads[-1].size != num_labels:
        raise MalformedFileError(f"config.json: {num_labels} labels, but the classifier has {heads[-1].size}")
    return tuple(heads)


@dataclass(frozen=True, slots=True)
class _SentenceModules:
    """What sentence-transformers keeps beside the model."""

    pooling: Pooling = "mean"
    heads: tuple[HeadSpec, ...] = ()
    max_tokens: int = 0  # 0: does not say

    @staticmethod
    def of(path: Path, tensors: dict[str, Weight]) -> _SentenceModules:
        """Puts the tensors of its dense layers into `tensors`, as heads.{i}."""
        max_tokens = Hf(_optional_json(path / "sentence_bert_config.json")).integer("max_seq_length", 0)
        if not (path / "modules.json").exists():
            return _SentenceModules(max_tokens=max_tokens)
        pooling: Pooling = "mean"
        heads: list[HeadSpec] = []
        for kind, folder in _module_list(path):
            if kind == "Pooling":
                pooling = _pooling(read_json(folder / "config.json"))
            elif kind == "Dense":
                heads.append(_dense(folder, len(heads), tensors))
            elif kind not in ("Transformer", "Normalize"):
                raise UnsupportedModelError(f"modules.json: module {kind!r} is not supported")
        return _SentenceModules(pooling, tuple(heads), max_tokens)


def _module_list(path: Path) -> list[tuple[str, Path]]:
    """(class name, folder) of each module."""
    modules = read_json_value(path / "modules.json")
    found = []
    for module in modules if isinstance(modules, list) else [None]:
        if not isinstance(module, dict) or not isinstance(module.get("type"), str):
            raise MalformedFileError("modules.json must list modules with a type")
        folder = str(module.get("path", ""))
        if folder != Path(folder).name and folder:
            raise MalformedFileError(f"modules.json: path {folder[:80]!r} leaves the directory")
        found.append((module["type"].rpartition(".")[2], path / folder))
    return found


def _pooling(config: Mapping[str, Any]) -> Pooling:
    if config.get("include_prompt") is False:
        raise UnsupportedModelError("1_Pooling/config.json: include_prompt = false is not supported")
    named = config.get("pooling_mode")
    if named in ("mean", "cls", "lasttoken"):
        return "last" if named == "lasttoken" else named
    modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        chosen = ", ".join(modes) or repr(named)
        message = f"1_Pooling/config.json: {chosen} is not supported (one of mean, cls and last token is)"
        raise UnsupportedModelError(message)
    return _POOLINGS[modes[0]]


def _dense(folder: Path, index: int, tensors: dict[str, Weight]) -> HeadSpec:
    config = read_json(folder / "config.json")
    name = str(config.get("activation_function", "Identity")).rpartition(".")[2]
    if name not in _DENSE_ACTIVATIONS:
        raise UnsupportedModelError(f"{folder.name}/config.json: activation_function {name!r} is not supported")
    own = read_safetensors(folder / "model.safetensors")
    if "linear.weight" not in own:
        raise MalformedFileError(f"{folder.name}: missing tensor linear.weight")
    weight = tensors[f"heads.{index}"] = own["linear.weight"]
    zeros = Weight("", TensorType.F32, 1, weight.num_rows, np.zeros((1, 4 * weight.num_rows), np.uint8))
    tensors[f"heads.{index}_bias"] = own.get("linear.bias", zeros)
    return HeadSpec(weight.num_rows, _DENSE_ACTIVATIONS[name])


def _weights(config: Hf, spec: EncoderSpec, tensors: Mapping[str, Weight]) -> dict[str, Weight]:
    """Canonical name -> Weight for every tensor of the spec, checked. Raises for a tensor that has no place in it."""
    names = bert.names_of(config, spec.family)
    has_prefix = any(name.startswith(names.prefix) for name in tensors)
    prefix = names.prefix if has_prefix else ""
    file_names = bert.tensor_names(config, spec.family, spec.num_layers)
    weights: dict[str, Weight] = {}
    used: set[str] = set()
    for name, shape in encoder_shapes(spec).items():
        parts = (name,) if name.startswith("heads.") else tuple(prefix + part for part in file_names[name])
        found = [_tensor(tensors, part, used) for part in parts]
        weight = _joined(name, found)
        if name == "position":
            first = names.first_position
            weight = replace(weight, data=weight.data[first:], num_rows=weight.num_rows - first)
        if (weight.num_rows, weight.num_cols) != shape:
            raise MalformedFileError(
                f"tensor {parts[0]} is {weight.num_rows} x {weight.num_cols}, expected {shape[0]} x {shape[1]}"
            )
        weights[name] = weight
    for name in tensors:
        if name not in used and not name.removeprefix(prefix).startswith(_HARMLESS):
            raise UnsupportedModelError(f"tensor {name} is not part of any encoder inferd runs in this form")
    return weights


def _tensor(tensors: Mapping[str, Weight], name: str, used: set[str]) -> Weight:
    """LayerNorm of the oldest checkpoints says gamma and beta."""
    old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    for candidate in (name, old):
        if candidate in tensors:
            used.add(candidate)
            return tensors[candidate]
    raise MalformedFileError(f"missing tensor {name}")


def _joined(name: str, parts: list[Weight]) -> Weight:
    """Rows one after the other; vectors end to end."""
    if len(parts) == 1:
        return replace(parts[0], name=name)
    if name.endswith("_bias"):
        values = np.concatenate([dequantize_weight(part) for part in parts], axis=1)  # (1, n)
        return Weight(name, TensorType.F32, 1, values.shape[1], values.view(np.uint8))
    if len({(part.kind, part.num_cols) for part in parts}) > 1:
        raise UnsupportedModelError(f"tensors {', '.join(part.name for part in parts)} differ in type or width")
    data = np.concatenate([part.data for part in parts])
    return replace(parts[0], name=name, num_rows=data.shape[0], data=data)
