"""What Prometheus reads: the vllm: names that dashboards know, and the same under inferd:."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inferd.types import EngineStats

E2E_BUCKETS = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
PREFIXES = ("vllm", "inferd")
LABELS = ("model_name",)

# name, help, value of a snapshot
GAUGES = (
    ("num_requests_running", "Requests in the running batch", lambda s: s.num_running),
    ("num_requests_waiting", "Requests that wait to run", lambda s: s.num_waiting),
    ("kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1", lambda s: s.num_used_blocks / max(1, s.num_blocks)),
)
COUNTERS = (
    ("num_preemptions", "Preempted requests", lambda s: s.num_preemptions),
    ("prefix_cache_queries", "Prompt tokens looked up in the prefix cache", lambda s: s.num_prefix_queried_tokens),
    ("prefix_cache_hits", "Prompt tokens found in the prefix cache", lambda s: s.num_prefix_hit_tokens),
    ("prompt_tokens", "Prompt tokens processed", lambda s: s.num_prompt_tokens),
    ("generation_tokens", "Tokens generated", lambda s: s.num_generated_tokens),
)


class ModelMetrics:
    """The figures of one model. Counters go on where they were when a worker restarts from zero."""

    def __init__(self, name: str, recorder: Recorder) -> None:
        self.name = name
        self.stats: EngineStats | None = None
        self._recorder = recorder
        self.totals = {counter: 0 for counter, _, _ in COUNTERS}

    def on_stats(self, stats: EngineStats) -> None:
        for counter, _, value in COUNTERS:
            new, old = value(stats), value(self.stats) if self.stats is not None else 0  # type: ignore[no-untyped-call]
            self.totals[counter] += new - old if new >= old else new
        self.stats = stats

    def timer(self) -> RequestTimer:
        return RequestTimer(self.name, self._recorder)

    def set_cache_config(self, num_blocks: int, block_size: int) -> None:
        for gauge in self._recorder.cache_config:
            gauge.labels(self.name, str(num_blocks), str(block_size)).set(1)


class RequestTimer:
    """The moments of one request, seen from the gateway (so with the way through the socket in them)."""

    def __init__(self, name: str, recorder: Recorder) -> None:
        self._name = name
        self._recorder = recorder
        self._start = time.monotonic()
        self._last: dict[int, float] = {}

    def on_tokens(self, index: int, num_tokens: int) -> None:
        now = time.monotonic()
        last = self._last.get(index)
        if last is None and not self._last:
            self._recorder.observe("time_to_first_token_seconds", self._name, now - self._start)
        elif last is not None and num_tokens:
            self._recorder.observe("inter_token_latency_seconds", self._name, (now - last) / num_tokens)
        self._last[index] = now

    def on_finish(self, reason: str) -> None:
        self._recorder.observe("e2e_request_latency_seconds", self._name, time.monotonic() - self._start)
        for counter in self._recorder.finished:
            counter.labels(self._name, reason).inc()


class _StatsCollector(Collector):
    def __init__(self, models: dict[str, ModelMetrics]) -> None:
        self._models = models

    def collect(self) -> list[Metric]:
        families: list[Metric] = []
        for prefix in PREFIXES:
            for name, text, value in GAUGES:
                gauge = GaugeMetricFamily(f"{prefix}:{name}", text, labels=LABELS)
                for model in self._models.values():
                    now = value(model.stats) if model.stats is not None else 0  # type: ignore[no-untyped-call]
                    gauge.add_metric([model.name], now)
                families.append(gauge)
            for name, text, _ in COUNTERS:
                counter = CounterMetricFamily(f"{prefix}:{name}", text, labels=LABELS)
                for model in self._models.values():
                    counter.add_metric([model.name], model.totals[name])
                families.append(counter)
        return families


class Recorder:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._models: dict[str, ModelMetrics] = {}
        self._registry.register(_StatsCollector(self._models))
        self._histograms = {
            name: self._histogram(name, text, buckets)
            for name, text, buckets in (
                ("time_to_first_token_seconds", "From arrival to the first token", TOKEN_BUCKETS),
                ("inter_token_latency_seconds", "Between tokens of one sequence", TOKEN_BUCKETS),
                ("e2e_request_latency_seconds", "From arrival to the last token", E2E_BUCKETS),
            )
        }
        labels = (*LABELS, "finished_reason")
        text = "Requests that ended, by reason"
        self.finished = [Counter(f"{p}:request_success", text, labels, registry=self._registry) for p in PREFIXES]
        config_labels = (*LABELS, "num_gpu_blocks", "block_size")
        text = "Size of the KV cache"
        self.cache_config = [
            Gauge(f"{p}:cache_config_info", text, config_labels, registry=self._registry) for p in PREFIXES
        ]

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> list[Histogram]:
        return [Histogram(f"{p}:{name}", text, LABELS, buckets=buckets, registry=self._registry) for p in PREFIXES]

    def of(self, name: str) -> ModelMetrics:
        return self._models.setdefault(name, ModelMetrics(name, self))

    def observe(self, name: str, model: str, value: float) -> None:
        for histogram in self._histograms[name]:
            histogram.labels(model).observe(value)

    def render(self) -> bytes:
        return generate_latest(self._registry)
