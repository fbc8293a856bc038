"""The worker of a predictive model: calls checked on arrival, and rows of several calls computed together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inferd.config import EngineConfig
from inferd.errors import InvalidRequestError
from inferd.models.store import resolve
from inferd.predictive.model import PredictiveModel, Version, num_rows
from inferd.predictive.tensors import Array, TensorSpec, to_array, to_bytes
from inferd.worker.batcher import BatchPolicy, Pending
from inferd.worker.call_host import HostedService
from inferd.worker.protocol import Call, Infer, Inferred, Ready, Tensor

MAX_TIMEOUT = 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class _Work:
    version: Version
    inputs: dict[str, Array]
    outputs: tuple[str, ...]


class Predictor:
    """A CallService over a loaded model."""

    def __init__(self, model: PredictiveModel) -> None:
        self._model = model
        batching = model.settings.batching
        self.policy = BatchPolicy(
            max_batch=batching.max_batch_size, max_delay=batching.max_delay, max_queue=batching.max_queue
        )
        self.num_runners = model.settings.instances

    def pending(self, call: Call) -> Pending:
        if not isinstance(call, Infer):
            raise InvalidRequestError("this is a predictive model; it answers inference on tensors only")
        version = self._model.version(call.version)
        inputs = self._inputs(version, call.inputs)
        outputs = _selected(version.session.outputs, call.outputs)
        self._check_size(version, call.inputs, inputs)
        batching = self._model.settings.batching
        timeout = batching.default_timeout if call.timeout is None else _checked_timeout(call.timeout)
        shapes = tuple(array.shape[1:] for array in inputs.values())
        return Pending(
            call=call,
            cost=num_rows(inputs),
            group=(version.number, shapes) if version.is_batched else call.call_id,
            priority=_checked_priority(call.priority) or batching.default_priority,
            deadline=None if timeout is None else time.monotonic() + timeout,
            payload=_Work(version, inputs, outputs),
        )

    def run(self, batch: Sequence[Pending]) -> list[Inferred]:
        begin = time.monotonic()
        works: list[_Work] = [pending.payload for pending in batch]
        version = works[0].version
        names = [spec.name for spec in version.session.outputs if any(spec.name in work.outputs for work in works)]
        results = version.run([work.inputs for work in works], names)
        computed = time.monotonic()
        outputs = [
            self._tensors(version, work.outputs, dict(zip(names, arrays, strict=True)))
            for work, arrays in zip(works, results, strict=True)
        ]
        seconds = computed - begin, time.monotonic() - computed
        size = sum(pending.cost for pending in batch)
        return [
            Inferred(
                call_id=pending.call.call_id,
                outputs=tensors,
                version=version.number,
                queue_seconds=begin - pending.arrived,
                compute_seconds=seconds[0],
                output_seconds=seconds[1],
                batch_size=size,
            )
            for pending, tensors in zip(batch, outputs, strict=True)
        ]

    def _inputs(self, version: Version, tensors: Sequence[Tensor]) -> dict[str, Array]:
        """By name, in the order of the model."""
        given = {tensor.name: tensor for tensor in tensors}
        specs = version.session.inputs
        known = [spec.name for spec in specs]
        for tensor in tensors:
            if tensor.name not in known:
                raise InvalidRequestError(
                    f"inputs must be {', '.join(known)}, got '{tensor.name[:80]}'", param=tensor.name[:80]
                )
        if len(given) != len(tensors):
            raise InvalidRequestError("inputs must name each tensor once", param="inputs")
        for name in known:
            if name not in given:
                raise InvalidRequestError(f"input '{name}' is missing", param=name)
        return {
            spec.name: to_array(spec, given[spec.name].datatype, given[spec.name].shape, given[spec.name].data)
            for spec in specs
        }

    def _check_size(self, version: Version, tensors: Sequence[Tensor], inputs: dict[str, Array]) -> None:
        limits = self._model.settings.limits
        size = sum(len(tensor.data) for tensor in tensors)
        if size > limits.max_bytes:
            raise InvalidRequestError(f"inputs must hold at most {limits.max_bytes} bytes, got {size}", param="inputs")
        if not version.session.has_rows:
            return
        counts = {name: array.shape[0] for name, array in inputs.items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise InvalidRequestError(f"inputs must have the same number of rows, got {told}", param="inputs")
        rows = num_rows(inputs)
        if not 1 <= rows <= limits.max_rows:
            raise InvalidRequestError(f"inputs must have from 1 to {limits.max_rows} rows, got {rows}", param="inputs")

    def _tensors(self, version: Version, names: Sequence[str], arrays: dict[str, Array]) -> list[Tensor]:
        datatypes = {spec.name: spec.datatype for spec in version.session.outputs}
        tensors = [
            Tensor(name=name, datatype=datatypes[name], shape=arrays[name].shape, data=to_bytes(arrays[name]))
            for name in names
        ]
        size, limit = sum(len(tensor.data) for tensor in tensors), self._model.settings.limits.max_bytes
        if size > limit:
            raise InvalidRequestError(f"the outputs hold {size} bytes, at most {limit} are sent", param="outputs")
        return tensors


def _selected(specs: Sequence[TensorSpec], names: Sequence[str]) -> tuple[str, ...]:
    """The outputs asked for, in the order asked; all when none are named."""
    known = [spec.name for spec in specs]
    for name in names:
        if name not in known:
            raise InvalidRequestError(f"outputs must be among {', '.join(known)}, got '{name[:80]}'", param="outputs")
    if len(set(names)) != len(names):
        raise InvalidRequestError("outputs must name each tensor once", param="outputs")
    return tuple(names) or tuple(known)


def _checked_timeout(seconds: float) -> float:
    if not 0 < seconds <= MAX_TIMEOUT:
        raise InvalidRequestError(
            f"timeout must be above 0 and at most {MAX_TIMEOUT:g} s, got {seconds:g}", param="timeout"
        )
    return seconds


def _checked_priority(priority: int) -> int:
    """0: the model's own."""
    if not 0 <= priority < 2**31:
        raise InvalidRequestError(f"priority must be from 0 to {2**31 - 1}, got {priority}", param="priority")
    return priority


def load(model: str, engine: EngineConfig, progress: Callable[[int, int], None]) -> HostedService:
    """Raises ConfigError, ModelNotFoundError or ModelLoadError."""
    predictive = PredictiveModel(resolve(model), engine.resolved_num_threads)
    return HostedService(Ready(kind="predict", details=predictive.to_json()), Predictor(predictive))
