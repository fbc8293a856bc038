"""What Prometheus reads: the vllm: names that dashboards know, the same under inferd:, and what inferd alone has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from inferd.metrics.model import COUNTERS, REQUEST_HISTOGRAMS, STEP_HISTOGRAMS, Figure, ModelMetrics

PREFIXES = ("vllm", "inferd")
OWN = "inferd"
LABELS = ("model_name",)
TENANT_LABELS = (*LABELS, "tenant")  # at most cost.MAX_TENANTS + 1 tenants of a model

_GAUGES = (
    Figure("num_requests_running", "Sequences in the running batch", lambda s: s.num_running),
    Figure("num_requests_waiting", "Sequences that wait to run", lambda s: s.num_waiting),
    Figure("kv_cache_usage_perc", "Share of KV blocks in use", lambda s: s.num_used_blocks / max(1, s.num_blocks)),
)
_TENANT_COUNTERS = (
    ("tenant_requests", "Requests that ended", "num_requests"),
    ("judged_requests", "Requests that count for the goodput", "num_judged"),
    ("goodput_requests", "Requests that met their targets", "num_good"),
    ("tenant_prompt_tokens", "Prompt tokens of requests that ended", "num_prompt_tokens"),
    ("tenant_cached_tokens", "Prompt tokens of these that were reused", "num_cached_tokens"),
    ("tenant_generation_tokens", "Tokens generated for requests that ended", "num_output_tokens"),
    ("tenant_busy_seconds", "Share of the requests in the engine's busy time", "busy_seconds"),
)


class ModelCollector(Collector):
    def __init__(self, models: Mapping[str, ModelMetrics]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        for prefix in PREFIXES:
            yield from self._states(prefix)
            yield from self._counters(prefix)
            yield from self._ends(prefix)
            yield from self._histograms(prefix)
        yield from self._paces()
        yield from self._tenants()
        yield from self._costs()

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
        for figure in COUNTERS:
            counter = CounterMetricFamily(f"{prefix}:{figure.name}", figure.text, labels=LABELS)
            for model in self._models.values():
                counter.add_metric([model.name], model.totals[figure.name])
            yield counter
        positions = CounterMetricFamily(
            f"{prefix}:spec_decode_num_accepted_tokens_per_pos",
            "Guessed tokens that were right, by their place in the row",
            labels=(*LABELS, "position"),
        )
        for model in self._models.values():
            for position, count in enumerate(model.accepted_by_position):
                positions.add_metric([model.name, str(position)], count)
        yield positions

    def _ends(self, prefix: str) -> Iterator[Metric]:
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

    def _histograms(self, prefix: str) -> Iterator[Metric]:
        texts = {name: text for name, (text, _) in REQUEST_HISTOGRAMS.items()}
        texts |= {name: text for name, (text, _, _) in STEP_HISTOGRAMS.items()}
        for name, text in texts.items():
            family = HistogramMetricFamily(f"{prefix}:{name}", text, labels=LABELS)
            for model in self._models.values():
                histogram = model.histograms.get(name) or model.step_histograms[name]
                family.add_metric([model.name], histogram.cumulative(), histogram.sum)
            yield family

    def _paces(self) -> Iterator[Metric]:
        text = "CPU time over the time of the kernels' threads, in the last second"
        cores = GaugeMetricFamily(f"{OWN}:core_utilisation", text, labels=LABELS)
        for model in self._models.values():
            cores.add_metric([model.name], model.pace.utilisation)
        yield cores
        text = "What a good request keeps to, unless it names its own"
        targets = GaugeMetricFamily(f"{OWN}:goodput_target_seconds", text, labels=(*LABELS, "of"))
        for model in self._models.values():
            targets.add_metric([model.name, "ttft"], model.targets.ttft)
            targets.add_metric([model.name, "itl"], model.targets.itl)
        yield targets

    def _tenants(self) -> Iterator[Metric]:
        for name, text, field in _TENANT_COUNTERS:
            counter = CounterMetricFamily(f"{OWN}:{name}", text, labels=TENANT_LABELS)
            for model in self._models.values():
                for tenant, figures in model.tenants.figures.items():
                    counter.add_metric([model.name, tenant], getattr(figures, field))
            yield counter

    def _costs(self) -> Iterator[Metric]:
        """Only of models whose host has a price."""
        labels = (*LABELS, "currency")
        price = GaugeMetricFamily(f"{OWN}:host_price_per_hour", "The model's share of the host's price", labels=labels)
        idle = CounterMetricFamily(f"{OWN}:idle_cost", "Price of the time without requests", labels=labels)
        busy = CounterMetricFamily(f"{OWN}:busy_cost", "Price of the time with requests", labels=labels)
        tenants = CounterMetricFamily(
            f"{OWN}:request_cost", "Price of the requests that ended, by tenant", labels=(*TENANT_LABELS, "currency")
        )
        for model in self._models.values():
            if model.price is None:
                continue
            currency = model.price.currency
            price.add_metric([model.name, currency], model.price.per_hour)
            idle.add_metric([model.name, currency], model.idle_seconds * model.price.per_second)
            busy.add_metric([model.name, currency], model.busy_seconds * model.price.per_second)
            for tenant, figures in model.tenants.figures.items():
                cost = figures.busy_seconds * model.price.per_second
                tenants.add_metric([model.name, tenant, currency], cost)
        yield from (price, idle, busy, tenants)
