"""LoRA adapters: PEFT directories and GGUF adapter files, mapped onto the canonical names of a model and checked.

A target computes y = W x + scale * B (A x). B has the order of rows of W: where a format of files permutes or fuses
rows of W, it does so with B. So an adapter is read by its own format, whatever format the model came in.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inferd.errors import MalformedFileError, ModelNotFoundError, UnsupportedModelError
from inferd.models.families import Fields, Source, TensorRef, family_of
from inferd.models.gguf import read_gguf
from inferd.models.loader import expected_shape, transform
from inferd.models.safetensors_dir import inside, read_json, read_safetensors
from inferd.models.spec import DecoderSpec
from inferd.quantization.formats import F32, dequantize_weight
from inferd.quantization.types import Weight

TARGETS = ("q", "k", "v", "o", "gate", "up", "down")
MAX_RANK = 512
_CONFIG, _TENSORS = "adapter_config.json", "adapter_model.safetensors"
# what PEFT may do beyond two matrices beside a linear layer
_REFUSED_FIELDS = (
    "use_dora", "use_qalora", "modules_to_save", "lora_bias", "fan_in_fan_out", "layer_replication",
    "target_parameters", "trainable_token_indices", "alora_invocation_tokens", "use_bdlora", "kasa_config",
    "monteclora_config",
)  # fmt: skip
_REFUSED_INITS = ("pissa", "olora", "loftq", "corda", "lora_ga")  # these change the model's own weights too
_PEFT_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")
_GGUF_NAME = re.compile(r"(.+)\.lora_([ab])")
_MAX_PATTERN_LEN, _MAX_PATTERN_LOOPS = 256, 4  # a regular expression of a file must not run for minutes
Scale = Callable[[str, int], float]  # (name in the file, rank) -> what a product is multiplied by


@dataclass(frozen=True, slots=True)
class LoraWeight:
    """y += scale * B (A x) on one linear of the model."""

    a: F32  # (rank, in)
    b: F32  # (out, rank)
    scale: float


@dataclass(frozen=True, slots=True)
class Adapter:
    """weights: canonical name of a matrix ("layers.3.q") -> what is added to its product."""

    path: Path
    weights: Mapping[str, LoraWeight]

    @property
    def max_rank(self) -> int:
        return max(len(weight.a) for weight in self.weights.values())


def load_adapter(path: Path, spec: DecoderSpec) -> Adapter:
    """A PEFT directory or a GGUF file, for the model of the spec.

    Raises ModelNotFoundError without the files, ModelLoadError naming the field or tensor that is wrong or that asks
    for what is not supported.
    """
    weights = _read_peft(path, spec) if path.is_dir() else _read_gguf(path, spec)
    if not weights:
        raise MalformedFileError(f"{path.name}: the adapter has no tensors")
    return Adapter(path, weights)


@dataclass(slots=True)
class _Pair:
    """The two matrices of one linear of the file, which may be a fusion of several of the model's."""

    a: Weight | None = None
    b: Weight | None = None


def _read_peft(path: Path, spec: DecoderSpec) -> dict[str, LoraWeight]:
    config = Fields(read_json(path / _CONFIG), f"{_CONFIG}: ")
    _check_peft(config)
    if not (path / _TENSORS).exists():
        raise ModelNotFoundError(f"{path}: {_TENSORS} is missing (adapters in pickle files are not read)")
    pairs: dict[str, _Pair] = {}
    for name, weight in read_safetensors(inside(path, _TENSORS)).items():
        found = _PEFT_NAME.fullmatch(name)
        if found is None:
            raise UnsupportedModelError(f"{_TENSORS}: tensor {name} is not the A or B of a linear layer")
        module = found[1].replace("language_model.", "", 1)  # the decoder inside a model that also sees images
        pair = pairs.setdefault(f"{module}.weight", _Pair())
        setattr(pair, found[2].lower(), weight)
    _check_targets(config, pairs)
    alpha, rank = config.positive("lora_alpha", 8), config.integer("r", 8, limit=MAX_RANK)
    ranks, alphas = _Patterns(config, "rank_pattern"), _Patterns(config, "alpha_pattern")

    def scale(name: str, actual: int) -> float:
        module = name.removesuffix(".weight")
        wanted = ranks.value(module, rank)
        if actual != wanted:
            raise MalformedFileError(f"{_TENSORS}: {module} has rank {actual}, {_CONFIG} says {wanted:g}")
        divisor = math.sqrt(actual) if config.get("use_rslora") else actual
        return float(alphas.value(module, alpha) / divisor)

    return _map(pairs, spec, "hf", scale)


def _check_peft(config: Fields) -> None:
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise UnsupportedModelError(f"{_CONFIG}: peft_type = {reprlib.repr(kind)} is not supported (supported: LORA)")
    config.refuse(*_REFUSED_FIELDS)
    bias = config.get("bias", "none")
    if bias != "none":
        raise UnsupportedModelError(f"{_CONFIG}: bias = {reprlib.repr(bias)} is not supported (supported: none)")
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower().startswith(_REFUSED_INITS):
        raise UnsupportedModelError(
            f"{_CONFIG}: init_lora_weights = {reprlib.repr(init)} changes the model's own weights: convert the adapter "
            "to a plain LoRA when it is saved"
        )


def _check_targets(config: Fields, names: Iterable[str]) -> None:
    """Every module that a list of targets names must be there: a file that lost some would pass for a weaker one."""
    targets = config.get("target_modules")
    if not isinstance(targets, list) or config.get("exclude_modules"):
        return
    modules = [f".{name.removesuffix('.weight')}" for name in names]
    for target in targets:
        if not any(module.endswith(f".{target}") for module in modules):
            raise MalformedFileError(f"{_TENSORS} has no tensor of {target}, which {_CONFIG}: target_modules names")


class _Patterns:
    """rank_pattern or alpha_pattern: module name, or a regular expression for its end, -> number. The first wins."""

    def __init__(self, config: Fields, field: str) -> None:
        values = config.get(field, {})
        if not isinstance(values, dict):
            raise MalformedFileError(f"{_CONFIG}: {field} must be an object")
        numbers = Fields(values, f"{_CONFIG}: {field}: ")
        self._entries = [(self._compile(key, field), numbers.positive(key)) for key in values]

    def value(self, module: str, default: float) -> float:
        return next((number for pattern, number in self._entries if pattern.fullmatch(module)), default)

    @staticmethod
    def _compile(key: str, field: str) -> re.Pattern[str]:
        too_slow = len(key) > _MAX_PATTERN_LEN or len(re.findall(r"[*+{]", key)) > _MAX_PATTERN_LOOPS
        if too_slow or re.search(r"\)[*+{?]", key):
            raise UnsupportedModelError(f"{_CONFIG}: {field}: {key[:80]!r} is too complicated an expression")
        try:
            return re.compile(rf"(.*\.)?({key})")
        except re.error:
            raise MalformedFileError(f"{_CONFIG}: {field}: {key[:80]!r} is not a regular expression") from None


def _read_gguf(path: Path, spec: DecoderSpec) -> dict[str, LoraWeight]:
    file = read_gguf(path)
    config = Fields(file.metadata, f"{path.name}: ")
    for key, wanted in (("general.type", "adapter"), ("adapter.type", "lora")):
        if config.get(key) != wanted:
            raise UnsupportedModelError(f"{path.name}: {key} must be {wanted!r}, got {reprlib.repr(config.get(key))}")
    config.refuse("adapter.alora.invocation_tokens")
    architecture = str(config.get("general.architecture", ""))
    if family_of(architecture) is not family_of(spec.family):
        raise UnsupportedModelError(f"{path.name}: the adapter is for {architecture}, the model is {spec.family}")
    pairs: dict[str, _Pair] = {}
    for name, weight in file.tensors.items():
        found = _GGUF_NAME.fullmatch(name)
        if found is None:
            raise UnsupportedModelError(f"{path.name}: tensor {name} is not the lora_a or lora_b of a linear layer")
        setattr(pairs.setdefault(found[1], _Pair()), found[2], weight)
    alpha = float(config.number("adapter.lora.alpha", 0))
    return _map(pairs, spec, "gguf", lambda name, rank: alpha / rank if alpha else 1.0)


def _map(pairs: Mapping[str, _Pair], spec: DecoderSpec, source: Source, scale: Scale) -> dict[str, LoraWeight]:
    """Canonical name -> LoraWeight."""
    places = _places(spec, source)
    weights = {}
    for name, pair in pairs.items():
        if name not in places:
            raise UnsupportedModelError(f"the adapter changes {name}, which is no linear layer of this model's blocks")
        if pair.a is None or pair.b is None:
            raise MalformedFileError(f"the adapter has only one of the two matrices of {name}")
        _check_shapes(pair.a, pair.b, places[name], spec)
        a, factor = _values(pair.a), scale(name, pair.a.num_rows)
        for target, ref in places[name]:
            weights[target] = LoraWeight(a, _values(transform(pair.b, ref)), factor)
    return weights


def _places(spec: DecoderSpec, source: Source) -> dict[str, list[tuple[str, TensorRef]]]:
    """Name of a linear in the files of a format -> the model's matrices in it."""
    places: dict[str, list[tuple[str, TensorRef]]] = {}
    for target, ref in family_of(spec.family).tensor_map(spec, source).items():
        if target.rpartition(".")[2] in TARGETS:
            places.setdefault(ref.name, []).append((target, ref))
    return places


def _check_shapes(a: Weight, b: Weight, places: list[tuple[str, TensorRef]], spec: DecoderSpec) -> None:
    rank = a.num_rows
    if not 1 <= rank <= MAX_RANK:
        raise UnsupportedModelError(f"tensor {a.name} has rank {rank}, supported are 1 to {MAX_RANK}")
    num_cols = expected_shape(spec, places[0][0])[1]
    num_rows = sum(expected_shape(spec, target)[0] for target, _ in places)
    for weight, expected in ((a, (rank, num_cols)), (b, (num_rows, rank))):
        if (weight.num_rows, weight.num_cols) != expected:
            raise MalformedFileError(
                f"tensor {weight.name} is {weight.num_rows} x {weight.num_cols}, this model needs "
                f"{expected[0]} x {expected[1]}"
            )


def _values(weight: Weight) -> F32:
    """(num_rows, num_cols)"""
    values = np.array(dequantize_weight(weight), order="C")  # not a view of the file, which may change
    if not np.isfinite(values).all():
        raise MalformedFileError(f"tensor {weight.name} holds values that are not finite")
    return values
