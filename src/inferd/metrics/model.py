"""The figures of one served model: what its engine says of itself, and what its requests add."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from inferd.metrics.calls import CallMetrics
from inferd.metrics.cost import HostPrice, TenantFigures, Tenants
from inferd.metrics.histogram import (
    BATCH_BUCKETS,
    E2E_BUCKETS,
    LENGTH_BUCKETS,
    N_BUCKETS,
    STEP_TOKENS_BUCKETS,
    TOKEN_BUCKETS,
    Histogram,
    Latency,
)
from inferd.metrics.requests import DEFAULT_TARGETS, Clock, RequestInfo, RequestRecord, RequestTimer, Targets
from inferd.types import BucketCounts, EngineStats

PACE_SECONDS = 1.0  # over which a rate is taken
PERIOD_SECONDS = 60.0  # after which the time of the host goes to the books


@dataclass(frozen=True, slots=True)
class Figure:
    """A number in EngineStats and the metric it becomes."""

    name: str
    text: str
    of: Callable[[EngineStats], float]


COUNTERS = (
    Figure("num_preemptions", "Preempted sequences", lambda s: s.num_preemptions),
    Figure("prefix_cache_queries", "Prompt tokens looked up for reuse", lambda s: s.num_prefix_queried_tokens),
    Figure("prefix_cache_hits", "Prompt tokens found for reuse", lambda s: s.num_prefix_hit_tokens),
    Figure("prompt_tokens", "Prompt tokens computed or reused", lambda s: s.num_prompt_tokens),
    Figure("generation_tokens", "Tokens generated", lambda s: s.num_generated_tokens),
    Figure("spec_decode_num_drafts", "Rows of guessed tokens", lambda s: s.num_drafts),
    Figure("spec_decode_num_draft_tokens", "Guessed tokens that were checked", lambda s: s.num_drafted_tokens),
    Figure("spec_decode_num_accepted_tokens", "Guessed tokens that were right", lambda s: s.num_accepted_tokens),
    Figure("num_steps", "Engine steps", lambda s: s.num_steps),
    Figure("busy_seconds", "Time in which the engine had requests", lambda s: s.busy_seconds),
    Figure("worker_cpu_seconds", "CPU time of the worker, all threads", lambda s: s.cpu_seconds),
)
# metric -> its meaning, its buckets; those with a place in the state are latencies
REQUEST_HISTOGRAMS: dict[str, tuple[str, tuple[float, ...]]] = {
    "time_to_first_token_seconds": ("From arrival to the first token", TOKEN_BUCKETS),
    "inter_token_latency_seconds": ("Between tokens of one sequence", TOKEN_BUCKETS),
    "request_time_per_output_token_seconds": ("Mean time per token after the first, by request", TOKEN_BUCKETS),
    "e2e_request_latency_seconds": ("From arrival to the last token", E2E_BUCKETS),
    "request_queue_time_seconds": ("From arrival in the engine to the first step", E2E_BUCKETS),
    "request_prefill_time_seconds": ("From the first step to the first token", E2E_BUCKETS),
    "request_decode_time_seconds": ("From the first to the last token", E2E_BUCKETS),
    "request_inference_time_seconds": ("From the first step to the last token", E2E_BUCKETS),
    "request_busy_seconds": ("Share of a request in the engine's busy time", E2E_BUCKETS),
    "request_prompt_tokens": ("Prompt tokens of a request", LENGTH_BUCKETS),
    "request_generation_tokens": ("Tokens generated for a request", LENGTH_BUCKETS),
    "request_params_n": ("n of a request", N_BUCKETS),
    "request_params_max_tokens": ("max_tokens of a request, where it has one", LENGTH_BUCKETS),
}
STEP_HISTOGRAMS: dict[str, tuple[str, tuple[float, ...], Callable[[EngineStats], BucketCounts]]] = {
    "iteration_tokens_total": ("Tokens of an engine step", STEP_TOKENS_BUCKETS, lambda s: s.step_tokens),
    "step_seconds": ("Time of an engine step in the executor", TOKEN_BUCKETS, lambda s: s.step_seconds),
    "batch_size": ("Sequences of an engine step", BATCH_BUCKETS, lambda s: s.batch_size),
}
FINISH_REASONS = ("stop", "length", "abort", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPeriod:
    """A stretch of the host's time, as far as it belongs to one model; what was not busy was idle."""

    model: str
    begin: float  # seconds since 1970
    seconds: float
    busy: float
    per_hour: float  # the model's share of the host's price


@dataclass(frozen=True, slots=True)
class Pace:
    """How the engine does now: over the latest second that it said something about."""

    utilisation: float = 0.0  # share of its threads' time that was CPU time
    batch_size: float = 0.0  # mean sequences of a step; 0 without steps
    step_seconds: float = 0.0  # mean


class ModelMetrics:
    """Counters go on where they were when a worker restarts from zero."""

    def __init__(
        self,
        name: str,
        *,
        targets: Targets = DEFAULT_TARGETS,
        price: HostPrice | None = None,
        on_request: Callable[[RequestRecord], None] = lambda record: None,
        on_period: Callable[[HostPeriod], None] = lambda period: None,
        clock: Clock = time.monotonic,
    ) -> None:
        """price: the model's share of the host's."""
        self.name = name
        self.targets = targets
        self.price = price
        self.stats: EngineStats | None = None
        self.totals = {counter.name: 0.0 for counter in COUNTERS}
        self.accepted_by_position: list[int] = []
        self.histograms: dict[str, Latency] = {
            name: Latency(bounds) for name, (_, bounds) in REQUEST_HISTOGRAMS.items()
        }
        self.step_histograms = {name: Histogram(bounds) for name, (_, bounds, _) in STEP_HISTOGRAMS.items()}
        self.finished = dict.fromkeys(FINISH_REASONS, 0)
        self.tenants = Tenants()
        self.calls = CallMetrics(clock)  # of a model that makes no text
        self.cache_config: tuple[int, int] | None = None  # blocks, tokens of a block
        self.num_restarts = 0
        self.pace = Pace()
        self._on_request, self._on_period, self._clock = on_request, on_period, clock
        self._began_at = self._period_at = self._pace_at = clock()
        self._period_busy = 0.0
        self._pace_stats: EngineStats | None = None

    def on_stats(self, stats: EngineStats) -> None:
        old = self.stats
        for counter in COUNTERS:
            self.totals[counter.name] += counter.of(stats) - (counter.of(old) if old is not None else 0)
        for name, (_, _, of) in STEP_HISTOGRAMS.items():
            self.step_histograms[name].advance(of(old) if old is not None else BucketCounts(), of(stats))
        self._count_positions(old.accepted_by_position if old is not None else (), stats.accepted_by_position)
        self.stats = stats
        now = self._clock()
        if now - self._pace_at >= PACE_SECONDS:
            self._measure_pace(stats, now)
        if now - self._period_at >= PERIOD_SECONDS:
            self.end_period()

    def on_ready(self, num_blocks: int, block_size: int, num_restarts: int) -> None:
        """A new worker: its totals start from zero."""
        self.cache_config = num_blocks, block_size
        self.num_restarts = num_restarts
        self.stats = self._pace_stats = None

    def on_request(self, record: RequestRecord) -> None:
        self.finished[record.finish_reason] += 1
        figures = self.tenants.of(record.info.tenant)
        figures.num_requests += 1
        figures.num_judged += record.is_good is not None
        figures.num_good += record.is_good is True
        figures.num_prompt_tokens += record.num_prompt_tokens
        figures.num_cached_tokens += record.num_cached_tokens
        figures.num_output_tokens += record.num_output_tokens
        figures.busy_seconds += record.busy
        self._on_request(record)

    def observe(self, name: str, value: float, count: int = 1) -> None:
        self.histograms[name].observe(value, count)

    def timer(self, info: RequestInfo, begin: float) -> RequestTimer:
        return RequestTimer(self, info, begin, self._clock)

    @property
    def seconds(self) -> float:
        """Since this model has been part of the server: what the host is paid for."""
        return self._clock() - self._began_at

    @property
    def busy_seconds(self) -> float:
        return self.totals["busy_seconds"]

    @property
    def idle_seconds(self) -> float:
        return max(0.0, self.seconds - self.busy_seconds)

    @property
    def all_tenants(self) -> TenantFigures:
        """The sum over all requests that ended."""
        total = TenantFigures()
        for figures in self.tenants.figures.values():
            for name in TenantFigures.__slots__:
                setattr(total, name, getattr(total, name) + getattr(figures, name))
        return total

    def cost_of(self, seconds: float) -> float | None:
        """In the host's currency; None without a price."""
        return None if self.price is None else seconds * self.price.per_second

    def end_period(self) -> None:
        """Hands on the time since the last period, busy or not."""
        now, busy = self._clock(), self.busy_seconds
        seconds = now - self._period_at
        self._on_period(
            HostPeriod(
                model=self.name,
                begin=time.time() - seconds,
                seconds=seconds,
                busy=busy - self._period_busy,
                per_hour=self.price.per_hour if self.price is not None else 0.0,
            )
        )
        self._period_at, self._period_busy = now, busy

    def _count_positions(self, old: tuple[int, ...], new: tuple[int, ...]) -> None:
        counts = self.accepted_by_position
        counts.extend([0] * (len(new) - len(counts)))
        for position, count in enumerate(new):
            counts[position] += count - (old[position] if position < len(old) else 0)

    def _measure_pace(self, stats: EngineStats, now: float) -> None:
        old, self._pace_stats = self._pace_stats, stats
        seconds, self._pace_at = now - self._pace_at, now
        if old is None:
            return
        num_steps = stats.num_steps - old.num_steps
        cpu_seconds = stats.cpu_seconds - old.cpu_seconds
        self.pace = Pace(
            utilisation=min(1.0, cpu_seconds / (seconds * stats.num_threads)),
            batch_size=(stats.batch_size.sum - old.batch_size.sum) / num_steps if num_steps else 0.0,
            step_seconds=(stats.step_seconds.sum - old.step_seconds.sum) / num_steps if num_steps else 0.0,
        )
