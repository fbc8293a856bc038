"""One request as the gateway sees it: its moments, what the engine measured of it, and whether it met its targets.

Times to the first token, between tokens and to the end are taken here, so the way through the worker's socket is in
them, as it is for the client. Queue, prefill, decode and busy time are the engine's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from inferd.types import RequestTimings, SamplingParams

Clock = Callable[[], float]
MIN_TARGET, MAX_TARGET = 0.001, 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class Targets:
    """The service level of a request, in seconds: to the first token, and between tokens on average."""

    ttft: float = 0.2
    itl: float = 0.03


DEFAULT_TARGETS = Targets()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestInfo:
    """What is known of a request before it runs."""

    id: str
    tenant: str
    sampling: SamplingParams
    targets: Targets = DEFAULT_TARGETS
    operation: str = "chat"  # or text_completion
    traceparent: str = ""  # of the caller's trace, as its header said


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One request that ended. Times in seconds; None: not measured, because it never came so far."""

    info: RequestInfo
    model: str
    arrival: float  # seconds since 1970
    queue: float | None
    prefill: float | None
    decode: float | None
    ttft: float | None
    tpot: float | None
    e2e: float
    busy: float
    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int
    num_preemptions: int
    finish_reason: str  # stop, length, abort (the client left) or error
    is_good: bool | None  # met its targets; None: not judged
    cost: float | None  # in the host's currency; None without a price


class Sink(Protocol):
    """Where a request's figures go: the metrics of its model."""

    @property
    def name(self) -> str: ...
    def observe(self, name: str, value: float, count: int = 1) -> None: ...
    def cost_of(self, busy_seconds: float) -> float | None: ...
    def on_request(self, record: RequestRecord) -> None: ...


class RequestTimer:
    """Fed by whoever serves the request: on_tokens, on_timings and on_end, the last two in either order."""

    def __init__(self, sink: Sink, info: RequestInfo, begin: float, clock: Clock = time.monotonic) -> None:
        """begin: when the request came, by `clock`."""
        self.info = info
        self.timings: RequestTimings | None = None  # of the engine
        self._sink = sink
        self._clock = clock
        self._begin = begin
        self._arrival = time.time() - (clock() - begin)
        self._first = 0.0
        self._sequences: dict[int, tuple[float, float]] = {}  # index -> when its first and its latest tokens came
        self._num_tokens = 0
        self._num_prompt_tokens = 0
        self._is_told = False  # what the engine measured, or that there is nothing
        self._end: tuple[str, float] | None = None  # how, and when

    @property
    def ttft(self) -> float | None:
        return self._first - self._begin if self._sequences else None

    @property
    def tpot(self) -> float | None:
        """Mean time per token after the first of each sequence; None when there is none."""
        num_more = self._num_tokens - len(self._sequences)
        if num_more <= 0:
            return None
        return sum(last - first for first, last in self._sequences.values()) / num_more

    def on_tokens(self, index: int, num_tokens: int) -> None:
        """New tokens of one sequence. Those that come together share the time since the ones before."""
        now = self._clock()
        times = self._sequences.get(index)
        if times is not None:
            self._sink.observe("inter_token_latency_seconds", (now - times[1]) / num_tokens, num_tokens)
        elif not self._sequences:
            self._first = now
            self._sink.observe("time_to_first_token_seconds", now - self._begin)
        self._sequences[index] = (now if times is None else times[0], now)
        self._num_tokens += num_tokens

    def on_timings(self, timings: RequestTimings | None) -> None:
        """What the engine measured, once; None when there is nothing to wait for."""
        self.timings, self._is_told = timings, True
        if timings is not None:
            self._observe_timings(timings)
        if self._end is not None:
            self._record(*self._end)

    def on_end(self, reason: str, num_prompt_tokens: int) -> None:
        """Once, however the request ended: stop, length, abort (the client left) or error."""
        self._num_prompt_tokens = num_prompt_tokens
        self._end = reason, self._clock() - self._begin
        self._observe_end(self._end[1])
        if self._is_told or reason in ("stop", "length"):  # else the engine's last word is still to come
            self._record(*self._end)

    def _observe_timings(self, timings: RequestTimings) -> None:
        observe = self._sink.observe
        observe("request_queue_time_seconds", timings.queue)
        if self._sequences or timings.num_output_tokens:
            observe("request_prefill_time_seconds", timings.prefill)
            observe("request_decode_time_seconds", timings.decode)
            observe("request_inference_time_seconds", timings.prefill + timings.decode)
        observe("request_busy_seconds", timings.busy)

    def _observe_end(self, e2e: float) -> None:
        observe, sampling = self._sink.observe, self.info.sampling
        observe("e2e_request_latency_seconds", e2e)
        observe("request_prompt_tokens", self._num_prompt_tokens)
        observe("request_generation_tokens", self._num_tokens)
        observe("request_params_n", sampling.n)
        if sampling.max_tokens is not None:
            observe("request_params_max_tokens", sampling.max_tokens)
        if (tpot := self.tpot) is not None:
            observe("request_time_per_output_token_seconds", tpot)

    def _judge(self, reason: str, e2e: float) -> bool | None:
        """Whether it met its targets. An error did not; a client that left is counted only if it had been let down."""
        targets = self.info.targets
        waited = e2e if self.ttft is None else self.ttft
        is_late = waited > targets.ttft or (self.tpot or 0.0) > targets.itl
        if reason == "abort" and not is_late:
            return None
        return reason != "error" and not is_late

    def _record(self, reason: str, e2e: float) -> None:
        timings = self.timings
        started = timings is not None and timings.num_output_tokens > 0
        self._sink.on_request(
            RequestRecord(
                info=self.info,
                model=self._sink.name,
                arrival=self._arrival,
                queue=timings.queue if timings is not None else None,
                prefill=timings.prefill if timings is not None and started else None,
                decode=timings.decode if timings is not None and started else None,
                ttft=self.ttft,
                tpot=self.tpot,
                e2e=e2e,
                busy=timings.busy if timings is not None else 0.0,
                num_prompt_tokens=self._num_prompt_tokens,
                num_cached_tokens=timings.num_cached_tokens if timings is not None else 0,
                num_output_tokens=max(self._num_tokens, timings.num_output_tokens if timings is not None else 0),
                num_preemptions=timings.num_preemptions if timings is not None else 0,
                finish_reason=reason,
                is_good=self._judge(reason, e2e),
                cost=self._sink.cost_of(timings.busy if timings is not None else 0.0),
            )
        )
