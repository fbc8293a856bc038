"""Calls as Prometheus reads them: inferd's own names, and Triton's, which its dashboards and autoscalers know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from inferd.metrics.calls import PARTS, CallMetrics
from inferd.metrics.model import ModelMetrics

_LABELS = ("model_name",)
_TRITON_LABELS = ("model", "version")
_VERSIONS = "all"  # calls are counted by model
_REASONS = {"refused": "OTHER", "overloaded": "REJECTED", "cancelled": "CANCELED", "failed": "BACKEND"}


class CallCollector(Collector):
    """Says nothing of models that were never called: most make text."""

    def __init__(self, models: Mapping[str, ModelMetrics]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        used = [(model.name, model.calls) for model in self._models.values() if model.calls.is_used]
        if used:
            yield from _own(used)
            yield from _triton(used)


def _own(used: list[tuple[str, CallMetrics]]) -> Iterator[Metric]:
    calls = CounterMetricFamily("inferd:calls", "Calls that ended, by how", labels=(*_LABELS, "outcome"))
    rows = CounterMetricFamily("inferd:call_rows", "Rows of calls that succeeded", labels=_LABELS)
    runs = CounterMetricFamily("inferd:call_executions", "Runs of the model", labels=_LABELS)
    pending = GaugeMetricFamily("inferd:calls_pending", "Calls that wait or are computed", labels=_LABELS)
    for name, metrics in used:
        for outcome, count in {"success": metrics.num_success, **metrics.failures}.items():
            calls.add_metric([name, outcome], count)
        rows.add_metric([name], metrics.num_inferences)
        runs.add_metric([name], metrics.num_executions)
        pending.add_metric([name], metrics.num_pending)
    yield from (calls, rows, runs, pending)
    for part in PARTS:
        text = f"Time of a call that succeeded: {part.replace('_', ' ')}"
        family = HistogramMetricFamily(f"inferd:call_{part}_seconds", text, labels=_LABELS)
        for name, metrics in used:
            family.add_metric([name], metrics.latencies[part].cumulative(), metrics.latencies[part].sum)
        yield family
    sizes = HistogramMetricFamily("inferd:call_batch_size", "Rows of the batch that a call was in", labels=_LABELS)
    for name, metrics in used:
        sizes.add_metric([name], metrics.batch_sizes.cumulative(), metrics.batch_sizes.sum)
    yield sizes


def _triton(used: list[tuple[str, CallMetrics]]) -> Iterator[Metric]:
    """Under Triton's names without _total, which its dashboards read so: as gauges that only grow."""

    def family(name: str, text: str, labels: tuple[str, ...] = _TRITON_LABELS) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"nv_inference_{name}", text, labels=labels)

    failures = family("request_failure", "Calls that failed, by reason", (*_TRITON_LABELS, "reason"))
    for name, metrics in used:
        for kind, count in metrics.failures.items():
            failures.add_metric([name, _VERSIONS, _REASONS[kind]], count)
    yield failures
    counts: dict[str, tuple[str, Callable[[CallMetrics], float]]] = {
        "request_success": ("Calls that succeeded", lambda m: m.num_success),
        "count": ("Rows computed", lambda m: m.num_inferences),
        "exec_count": ("Runs of the model", lambda m: round(m.num_executions)),
        "pending_request_count": ("Calls that wait or are computed", lambda m: m.num_pending),
    }
    for name, (text, of) in counts.items():
        gauge = family(name, text)
        for model, metrics in used:
            gauge.add_metric([model, _VERSIONS], of(metrics))
        yield gauge
    for part in PARTS:
        gauge = family(f"{part}_duration_us", f"Time of calls that succeeded: {part.replace('_', ' ')}")
        for model, metrics in used:
            gauge.add_metric([model, _VERSIONS], round(metrics.seconds[part] * 1e6))
        yield gauge
