"""GET /inferd/state: what the dashboard draws. Polled once a second; 0.7 ms with all windows full."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from inferd.gateway.router import Model
from inferd.metrics.model import ModelMetrics
from inferd.metrics.recorder import Recorder
from inferd.metrics.requests import RequestRecord
from inferd.worker.supervisor import Supervisor

_LATENCIES = {
    "ttft": "time_to_first_token_seconds",
    "itl": "inter_token_latency_seconds",
    "tpot": "request_time_per_output_token_seconds",
    "queue": "request_queue_time_seconds",
    "prefill": "request_prefill_time_seconds",
    "decode": "request_decode_time_seconds",
    "e2e": "e2e_request_latency_seconds",
}


def state_of(recorder: Recorder, models: Iterable[Model], version: str) -> dict[str, Any]:
    price = recorder.price
    return {
        "version": version,
        "now": time.time(),
        "uptime": recorder.uptime,
        "currency": None if price is None else price.currency,
        "models": [{"name": m.name, "status": status_of(m.worker), **_figures(m.metrics)} for m in models],
        "requests": [_request(record) for record in recorder.latest],
    }


def status_of(worker: Supervisor) -> str:
    """ready, loading (for the first time), restarting or failed; one that makes no progress counts as restarting."""
    if worker.failure is not None:
        return "failed"
    if worker.is_ready:
        return "ready"
    return "loading" if worker.ready is None else "restarting"


def _figures(metrics: ModelMetrics) -> dict[str, Any]:
    requests = metrics.all_tenants
    return {
        **_engine(metrics),
        "totals": {
            "prompt_tokens": int(metrics.totals["prompt_tokens"]),
            "generation_tokens": int(metrics.totals["generation_tokens"]),
            "cached_tokens": requests.num_cached_tokens,
            "preemptions": int(metrics.totals["num_preemptions"]),
            "steps": int(metrics.totals["num_steps"]),
            "drafted_tokens": int(metrics.totals["spec_decode_num_draft_tokens"]),
            "accepted_tokens": int(metrics.totals["spec_decode_num_accepted_tokens"]),
            "requests": requests.num_requests,
        },
        "latency": {short: _latency(metrics, name) for short, name in _LATENCIES.items()},
        "goodput": {
            "num_requests": requests.num_judged,
            "num_good": requests.num_good,
            "ttft_target": metrics.targets.ttft,
            "itl_target": metrics.targets.itl,
        },
        "busy_seconds": metrics.busy_seconds,
        **asdict(metrics.pace),
        "cost": _cost(metrics),
    }


def _engine(metrics: ModelMetrics) -> dict[str, Any]:
    """As the worker said last; zeros before it said anything."""
    stats, (num_blocks, block_size) = metrics.stats, metrics.cache_config or (0, 0)
    return {
        "num_running": stats.num_running if stats else 0,
        "num_waiting": stats.num_waiting if stats else 0,
        "num_blocks": num_blocks,
        "block_size": block_size,
        "num_used_blocks": stats.num_used_blocks if stats else 0,
        "num_cached_blocks": stats.num_cached_blocks if stats else 0,
        "kv_map": _shares(stats.kv_used_map if stats else b""),
        "kv_cached_map": _shares(stats.kv_cached_map if stats else b""),
    }


def _shares(cells: bytes) -> list[float]:
    return [round(cell / 255, 3) for cell in cells]


def _latency(metrics: ModelMetrics, name: str) -> dict[str, Any]:
    histogram = metrics.histograms[name]
    p50, p90, p99 = histogram.percentiles(50, 90, 99)
    return {"p50": p50, "p90": p90, "p99": p99, "count": histogram.count}


def _cost(metrics: ModelMetrics) -> dict[str, Any] | None:
    """None without a price."""
    if metrics.price is None:
        return None
    tenants = metrics.tenants.figures.items()
    return {
        "per_hour": metrics.price.per_hour,
        "busy": metrics.cost_of(metrics.busy_seconds),
        "idle": metrics.cost_of(metrics.idle_seconds),
        "by_tenant": {tenant: metrics.cost_of(figures.busy_seconds) for tenant, figures in tenants},
    }


def _request(record: RequestRecord) -> dict[str, Any]:
    names = ("arrival", "queue", "prefill", "decode", "ttft", "tpot", "e2e", "num_prompt_tokens", "num_cached_tokens",
             "num_output_tokens", "num_preemptions", "finish_reason", "is_good", "cost")  # fmt: skip
    own = {name: getattr(record, name) for name in names}
    return {"id": record.info.id, "model": record.model, "tenant": record.info.tenant, **own}
