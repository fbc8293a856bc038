"""What lies between the dialects and the engine: a call, who makes it, and how its answer is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from inferd.errors import InferdError
from inferd.gateway.json_fields import convert, integral
from inferd.metrics.cost import HostPrice
from inferd.metrics.requests import Targets
from inferd.types import SamplingParams, StructuredOutputs
from inferd.worker.client import Update
from inferd.worker.protocol import Accepted, Generate, Prompt, Ready

# what a dialect may set; stop and max_tokens are named by each in its own way
SAMPLING = frozenset(SamplingParams.__dataclass_fields__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """On whose behalf a call runs, and how."""

    tenant: str = ""
    weight: float = 1.0  # of the tenant's share
    adapter: str = ""  # the LoRA adapter that the model's name stood for
    is_background: bool = False
    traceparent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerContext:
    """What is known when the requests of a call are in the engine's queue. accepted: (num_prompts,)."""

    model: str  # the name that answers carry
    ready: Ready
    accepted: tuple[Accepted, ...]
    n: int  # sequences of each prompt
    begin: float  # of the call, by time.monotonic
    price: HostPrice | None  # the model's share of the host's


class StreamWriter(Protocol):
    """A streamed answer as bytes."""

    @property
    def content_type(self) -> bytes: ...
    @property
    def keep_alive(self) -> bytes:
        """Sent after a time of silence; b"" where the format has nothing for it."""
        ...

    def encode(self, updates: list[Update]) -> bytes:
        """All that `updates` add; b"" when text is held back."""
        ...

    def end(self) -> bytes: ...
    def fail(self, error: InferdError | Exception) -> bytes:
        """The last bytes of a stream that cannot go on: too late for a status."""
        ...


class WholeWriter(Protocol):
    """Collects all events; `to_json` is the body of the response."""

    def add(self, update: Update) -> None: ...
    def to_json(self) -> Any: ...


@runtime_checkable
class Headed(Protocol):
    """A writer that has headers of its own. Those of a stream are sent before its first event."""

    @property
    def headers(self) -> Mapping[str, str]: ...


class Call(Protocol):
    """One POST that makes text: num_prompts requests to the engine, answered together."""

    @property
    def num_prompts(self) -> int: ...
    @property
    def operation(self) -> str:
        """For traces: "chat" or "text_completion"."""
        ...

    @property
    def is_streamed(self) -> bool: ...
    def commands(self, ready: Ready, caller: Caller) -> Sequence[Generate]:
        """Raises InvalidRequestError naming the field, in the words of its dialect."""
        ...

    def targets(self, usual: Targets) -> Targets:
        """What this call counts as good service; `usual` where it does not say."""
        ...

    def stream_writer(self, context: AnswerContext) -> StreamWriter: ...
    def whole_writer(self, context: AnswerContext) -> WholeWriter: ...


def command_of(
    request_id: str,
    prompt: Prompt,
    ready: Ready,
    caller: Caller,
    values: Mapping[str, Any],
    structured: StructuredOutputs | None,
    **fields: Any,
) -> Generate:
    """A request to the engine. values: as sampling_of has them; fields: of Generate, that its caller has no part in.

    Raises InvalidRequestError in the names of SamplingParams.
    """
    if structured is not None:
        values = {**values, "structured_outputs": {"kind": structured.kind, "value": structured.value}}
    return Generate(
        request_id=request_id,
        prompt=prompt,
        sampling=sampling_of(ready, values),
        tenant=caller.tenant,
        weight=caller.weight,
        adapter=caller.adapter,
        is_background=caller.is_background,
        **fields,
    )


def sampling_of(ready: Ready, values: Mapping[str, Any]) -> SamplingParams:
    """The model's own defaults, and over them `values`: fields of SamplingParams. Raises InvalidRequestError."""
    defaults = {name: value for name, value in ready.generation_defaults.items() if name in SAMPLING}
    return convert(integral({**defaults, **values}), SamplingParams, str_keys=True)
