"""What Prometheus reads: the vllm: names that dashboards know, and the same under inferd:."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from inferd.metrics.histogram import Histogram
from inferd.types import EngineStats

E2E_BUCKETS = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
LENGTH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
N_BUCKETS = (1, 2, 5, 10, 20, 64)
PREFIXES = ("vllm", "inferd")
LABELS = ("model_name",)


@dataclass(frozen=True, slots=True)
class _Figure:
    name: str
    text: str
    of: Callable[[EngineStats], float]


_GAUGES = (
    _Figure("num_requests_running", "Sequences in the running batch", lambda s: s.num_running),
    _Figure("num_requests_waiting", "Sequences that wait to run", lambda s: s.num_waiting),
    _Figure("kv_cache_usage_perc", "Share of KV blocks in use", lambda s: s.num_used_blocks / max(1, s.num_blocks)),
)
_COUNTERS = (
    _Figure("num_preemptions", "Preempted sequences", lambda s: s.num_preemptions),
    _Figure("prefix_cache_queries", "Prompt tokens looked up for reuse", lambda s: s.num_prefix_queried_tokens),
    _Figure("prefix_cache_hits", "Prompt tokens found for reuse", lambda s: s.num_prefix_hit_tokens),
    _Figure("prompt_tokens", "Prompt tokens computed or reused", lambda s: s.num_prompt_tokens),
    _Figure("generation_tokens", "Tokens generated", lambda s: s.num_generated_tokens),
    _Figure("spec_decode_num_draft_tokens", "Guessed tokens that were checked", lambda s: s.num_drafted_tokens),
    _Figure("spec_decode_num_accepted_tokens", "Guessed tokens that were right", lambda s: s.num_accepted_tokens),
    _Figure("num_steps", "Engine steps", lambda s: s.num_steps),
)
_HISTOGRAMS = (
    ("time_to_first_token_seconds", "From arrival to the first token", TOKEN_BUCKETS),
    ("inter_token_latency_seconds", "Between tokens of one sequence", TOKEN_BUCKETS),
    ("request_time_per_output_token_seconds", "Mean time per token after the first, by request", TOKEN_BUCKETS),
    ("e2e_request_latency_seconds", "From arrival to the last token", E2E_BUCKETS),
    ("request_decode_time_seconds", "From the first to the last token", E2E_BUCKETS),
    ("request_prompt_tokens", "Prompt tokens of a request", LENGTH_BUCKETS),
    ("request_generation_tokens", "Tokens generated for a request", LENGTH_BUCKETS),
    ("request_params_n", "n of a request", N_BUCKETS),
    ("request_params_max_tokens", "max_tokens of a request, where it has one", LENGTH_BUCKETS),
)


class ModelMetrics:
    """The figures of one model. Counters go on where they were when a worker restarts from zero."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stats: EngineStats | None = None
        self.totals = {counter.name: 0.0 for counter in _COUNTERS}
        self.histograms = {name: Histogram(bounds) for name, _, bounds in _HISTOGRAMS}
        self.finished = {"stop": 0, "length": 0, "abort": 0, "error": 0}
        self.cache_config: tuple[int, int] | None = None  # blocks, tokens of a block
        self.num_restarts = 0

    def on_stats(self, stats: EngineStats) -> None:
        for counter in _COUNTERS:
            new = counter.of(stats)
            old = counter.of(self.stats) if self.stats is not None else 0
            self.totals[counter.name] += new - old if new >= old else new
        self.stats = stats

    def on_ready(self, num_blocks: int, block_size: int, num_restarts: int) -> None:
        self.cache_config = num_blocks, block_size
        self.num_restarts = num_restarts

    def observe(self, name: str, value: float, count: int = 1) -> None:
        self.histograms[name].observe(value, count)

    def timer(self) -> RequestTimer:
        return RequestTimer(self)


class RequestTimer:
    """The moments of one request, seen from the gateway (so with the way through the socket in them)."""

    def __init__(self, metrics: ModelMetrics) -> None:
        self._metrics = metrics
        self._start = time.monotonic()
        self._first = 0.0
        self._last: dict[int, float] = {}  # choice -> when its latest token came
        self._num_tokens = 0

    def on_tokens(self, choice: int, num_tokens: int) -> None:
        now = time.monotonic()
        last = self._last.get(choice)
        if last is not None:
            self._metrics.observe("inter_token_latency_seconds", (now - last) / num_tokens, num_tokens)
        elif not self._last:
            self._first = now
            self._metrics.observe("time_to_first_token_seconds", now - self._start)
        self._last[choice] = now
        self._num_tokens += num_tokens

    def on_end(self, reason: str, *, num_prompt_tokens: int, n: int, max_tokens: int | None) -> None:
        """Once, however the request ended: stop, length, abort (the client left) or error."""
        metrics, now = self._metrics, time.monotonic()
        metrics.finished[reason] += 1
        metrics.observe("e2e_request_latency_seconds", now - self._start)
        metrics.observe("request_prompt_tokens", num_prompt_tokens)
        metrics.observe("request_generation_tokens", self._num_tokens)
        metrics.observe("request_params_n", n)
        if max_tokens is not None:
            metrics.observe("request_params_max_tokens", max_tokens)
        if not self._last:
            return
        metrics.observe("request_decode_time_seconds", now - self._first)
        num_more = self._num_tokens - len(self._last)
        if num_more > 0:
            mean = (now - self._first) * len(self._last) / num_more
            metrics.observe("request_time_per_output_token_seconds", mean)


class _ModelCollector(Collector):
    def __init__(self, models: dict[str, ModelMetrics]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        for prefix in PREFIXES:
            yield from self._states(prefix)
            yield from self._counters(prefix)
            yield from self._latencies(prefix)

    def _states(self, prefix: str) -> Iterator[Metric]:
        for figure in _GAUGES:
            gauge = GaugeMetricFamily(f"{prefix}:{figure.name}", figure.text, labels=LABELS)
            for model in self._models.values():
                gauge.add_metric([model.name], figure.of(model.stats) if model.stats is not None else 0)
            yield gauge
        info = GaugeMetricFamily(
            f"{prefix}:cache_config_info", "Size of the KV cache", labels=(*LABELS, "num_gpu_blocks", "block_size")
        )
        for model in self._models.values():
            if model.cache_config is not None:
                info.add_metric([model.name, *map(str, model.cache_config)], 1)
        yield info

    def _counters(self, prefix: str) -> Iterator[Metric]:
        for figure in _COUNTERS:
            counter = CounterMetricFamily(f"{prefix}:{figure.name}", figure.text, labels=LABELS)
            for model in self._models.values():
                counter.add_metric([model.name], model.totals[figure.name])
            yield counter
        ends = CounterMetricFamily(
            f"{prefix}:request_success", "Requests that ended, by reason", labels=(*LABELS, "finished_reason")
        )
        restarts = CounterMetricFamily(f"{prefix}:worker_restarts", "Workers that had to be replaced", labels=LABELS)
        for model in self._models.values():
            for reason, count in model.finished.items():
                ends.add_metric([model.name, reason], count)
            restarts.add_metric([model.name], model.num_restarts)
        yield ends
        yield restarts

    def _latencies(self, prefix: str) -> Iterator[Metric]:
        for name, text, _ in _HISTOGRAMS:
            family = HistogramMetricFamily(f"{prefix}:{name}", text, labels=LABELS)
            for model in self._models.values():
                histogram = model.histograms[name]
                family.add_metric([model.name], histogram.cumulative(), histogram.sum)
            yield family


class Recorder:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._models: dict[str, ModelMetrics] = {}
        self._registry.register(_ModelCollector(self._models))

    def of(self, name: str) -> ModelMetrics:
        return self._models.setdefault(name, ModelMetrics(name))

    def render(self) -> bytes:
        return generate_latest(self._registry)
