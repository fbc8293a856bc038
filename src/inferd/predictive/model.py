"""A predictive model: its settings, its versions, and the rows of several calls computed as one batch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from inferd.errors import ConfigError, EngineError, InferdError, InvalidRequestError, ModelLoadError
from inferd.predictive.session import Session
from inferd.predictive.settings import Settings, load_settings
from inferd.predictive.tensors import DTYPES, Array, TensorSpec

log = logging.getLogger("inferd.predictive")
_PLATFORM = "onnxruntime_onnx"


@dataclass(frozen=True, slots=True)
class Version:
    """is_batched: rows of several calls may be computed together; else why_alone says what speaks against it."""

    number: str
    session: Session
    is_batched: bool
    why_alone: str

    def run(self, calls: Sequence[Mapping[str, Array]], outputs: Sequence[str]) -> list[list[Array]]:
        """The outputs of each call. Several calls are computed as one batch: is_batched must be true."""
        if len(calls) == 1:
            return [self.session.run(calls[0], outputs)]
        return _run_joined(self.session, calls, outputs)

    def to_json(self) -> dict[str, Any]:
        inputs = [spec.to_json() for spec in self.session.inputs]
        outputs = [spec.to_json() for spec in self.session.outputs]
        return {"inputs": inputs, "outputs": outputs, "is_batched": self.is_batched, "why_alone": self.why_alone}


class PredictiveModel:
    """versions: by number, the oldest first. Raises ModelLoadError or ConfigError, naming the file."""

    def __init__(self, path: Path, num_threads: int) -> None:
        """path: a .onnx file, or a directory with model.onnx or version folders. num_threads: of all instances."""
        self.settings = load_settings(path)
        self.num_threads = self.settings.threads or max(1, num_threads // self.settings.instances)
        files = _version_files(path, self.settings)
        self.versions = {number: _open(number, file, self.num_threads, self.settings) for number, file in files}
        self.latest = next(reversed(self.versions.values()))

    def version(self, number: str) -> Version:
        """ "" is the latest. Raises InvalidRequestError."""
        found = self.versions.get(number) if number else self.latest
        if found is None:
            known = ", ".join(self.versions)
            raise InvalidRequestError(f"version must be one of {known}, got '{number[:20]}'", param="version")
        return found

    def to_json(self) -> dict[str, Any]:
        """All that a client may know of the model, as plain values."""
        settings = self.settings
        batching = settings.batching
        return {
            "platform": _PLATFORM,
            "versions": {number: version.to_json() for number, version in self.versions.items()},
            "batching": {name: getattr(batching, name) for name in batching.__struct_fields__},
            "limits": {name: getattr(settings.limits, name) for name in settings.limits.__struct_fields__},
            "instances": settings.instances,
            "threads": self.num_threads,
            "labels": settings.labels,
            "features": settings.features,
        }


def _version_files(path: Path, settings: Settings) -> list[tuple[str, Path]]:
    if path.is_file() or (path / "model.onnx").is_file():
        if settings.versions not in ("all", "latest"):
            raise ConfigError("versions must be all or latest for a model without numbered folders")
        return [("1", path if path.is_file() else path / "model.onnx")]
    folders = {int(file.parent.name): file for file in path.glob("[0-9]*/model.onnx") if file.parent.name.isdecimal()}
    numbers = sorted(folders)
    if settings.versions == "latest":
        numbers = numbers[-1:]
    elif settings.versions != "all":
        if missing := sorted(set(settings.versions) - set(numbers)):
            raise ConfigError(f"versions names {missing[0]}, which has no {missing[0]}/model.onnx")
        numbers = sorted(set(settings.versions))
    if not numbers:
        raise ModelLoadError(f"{path.name} holds no model.onnx and no numbered folder with one")
    return [(str(number), folders[number]) for number in numbers]


def _open(number: str, file: Path, num_threads: int, settings: Settings) -> Version:
    session = Session(file, num_threads)
    _check_names(settings.labels, session.outputs, "labels")
    _check_names(settings.features, session.inputs, "features")
    samples = [_given_sample(session, sample) for sample in settings.warm_up]
    _warm_up(session, samples)
    why_alone = _why_alone(session, samples, settings.batching.enabled)
    return Version(number, session, not why_alone, why_alone)


def _check_names(names: Mapping[str, list[str]], specs: Sequence[TensorSpec], key: str) -> None:
    by_name = {spec.name: spec for spec in specs}
    for name, values in names.items():
        if name not in by_name:
            raise ConfigError(f"{key} names '{name}', the model has {', '.join(by_name)}")
        width = (by_name[name].shape or (-1,))[-1]
        if width not in (-1, len(values)):
            raise ConfigError(f"{key}.{name} must hold {width} names, got {len(values)}")


def _given_sample(session: Session, sample: Mapping[str, Any]) -> dict[str, Array]:
    specs = {spec.name: spec for spec in session.inputs}
    if set(sample) != set(specs):
        raise ConfigError(f"a sample of warm_up must name the inputs {', '.join(specs)}, got {', '.join(sample)}")
    arrays = {}
    for name, values in sample.items():
        try:
            arrays[name] = np.asarray(values, DTYPES[specs[name].datatype])
            specs[name].check(specs[name].datatype, arrays[name].shape)
        except (ValueError, TypeError, OverflowError, InvalidRequestError) as error:
            raise ConfigError(f"warm_up: {name}: {error}") from error
    return arrays


def _warm_up(session: Session, samples: Sequence[Mapping[str, Array]]) -> None:
    """The first run allocates and costs several times a later one: no client should wait for it."""
    names = [spec.name for spec in session.outputs]
    for sample in samples:
        try:
            session.run(sample, names)
        except InferdError as error:
            raise ModelLoadError(f"a sample of warm_up fails: {error}") from error
    if not samples:
        try:
            session.run(session.sample(0), names)
        except InferdError as error:
            log.warning("warmed up without a run, since the model takes no random inputs: %s", error)


def _why_alone(session: Session, samples: Sequence[Mapping[str, Array]], is_wanted: bool | None) -> str:
    """ "" when calls may be joined: shapes allow it, and a trial gave the same answers alone and together."""
    if is_wanted is False:
        return "batching.enabled is false"
    if not session.has_rows:
        if is_wanted:
            raise ConfigError("batching.enabled must be false: not every tensor has a first dimension of any size")
        return "not every tensor has a first dimension of any size"
    calls = [*samples, session.sample(1), session.sample(2)][:2]
    names = [spec.name for spec in session.outputs]
    try:
        alone = [session.run(call, names) for call in calls]
    except InferdError:
        return "" if is_wanted else "no trial: the model takes no random inputs, and warm_up has no two samples"
    try:
        together = _run_joined(session, calls, names)
    except InferdError:
        together = []
    pairs = zip(chain(*alone), chain(*together), strict=True) if together else ()
    if together and all(_is_close(*pair) for pair in pairs):
        return ""
    if is_wanted:
        raise ConfigError("batching.enabled must be false: rows computed together give other answers than alone")
    return "rows computed together give other answers than alone"


def _is_close(a: Array, b: Array) -> bool:
    if a.shape != b.shape or a.dtype.kind not in "f":
        return bool(np.array_equal(a, b))
    return bool(np.allclose(a, b, rtol=1e-2 if a.dtype.itemsize == 2 else 1e-4, atol=1e-4, equal_nan=True))


def _run_joined(session: Session, calls: Sequence[Mapping[str, Array]], outputs: Sequence[str]) -> list[list[Array]]:
    counts = [num_rows(call) for call in calls]
    joined = {name: np.concatenate([call[name] for call in calls]) for name in calls[0]}
    whole = session.run(joined, outputs)
    if any(array.shape[:1] != (sum(counts),) for array in whole):
        raise EngineError("the model does not give one row of output for each row of input")
    bounds = np.cumsum([0, *counts])
    return [[array[begin:end] for array in whole] for begin, end in pairwise(bounds)]


def num_rows(call: Mapping[str, Array]) -> int:
    """The size of the first dimension; 1 for a model whose inputs have none."""
    first = next(iter(call.values()), None)
    return int(first.shape[0]) if first is not None and first.ndim else 1
