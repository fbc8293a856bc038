"""GET /inferd/state: what the dashboard draws. Polled once a second; 0.7 ms with all windows full."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from inferd.gateway.residency import FOREVER
from inferd.gateway.router import Model
from inferd.metrics.calls import CallMetrics
from inferd.metrics.histogram import Latency
from inferd.metrics.model import ModelMetrics
from inferd.metrics.recorder import Recorder
from inferd.metrics.requests import RequestRecord

_LATENCIES = {
    "ttft": "time_to_first_token_seconds",
    "itl": "inter_token_latency_seconds",
    "tpot": "request_time_per_output_token_seconds",
    "queue": "request_queue_time_seconds",
    "prefill": "request_prefill_time_seconds",
    "decode": "request_decode_time_seconds",
    "e2e": "e2e_request_latency_seconds",
}


def state_of(
    recorder: Recorder, models: Iterable[Model], version: str, memory_budget: int | None = None, tenant: str = ""
) -> dict[str, Any]:
    """tenant: who asks. Sums are over all tenants; requests and costs are those of this one, of all where it is ""."""
    price = recorder.price
    return {
        "version": version,
        "now": time.time(),
        "uptime": recorder.uptime,
        "currency": None if price is None else price.currency,
        "memory_budget": memory_budget,
        "models": [_model(model, tenant) for model in models],
        "requests": [_request(one) for one in recorder.latest if tenant in ("", one.info.tenant)],
    }


def _model(model: Model, tenant: str) -> dict[str, Any]:
    """kind: None until it was loaded once. calls: None for a model that makes text."""
    ready, calls = model.worker.ready, model.metrics.calls
    return {
        "name": model.name,
        "status": status_of(model),
        "kind": None if ready is None else ready.kind,
        "calls": _calls(calls) if calls.is_used or (ready is not None and ready.kind != "generate") else None,
        **_residence(model),
        **_figures(model.metrics, tenant),
    }


def _calls(calls: CallMetrics) -> dict[str, Any]:
    return {
        "num_success": calls.num_success,
        "failures": calls.failures,
        "num_pending": calls.num_pending,
        "rows": calls.num_inferences,
        "executions": round(calls.num_executions),
        "latency": {part: _percentiles(histogram) for part, histogram in calls.latencies.items()},
    }


def status_of(model: Model) -> str:
    """asleep, loading, ready, restarting, leaving or failed; one that makes no progress counts as restarting."""
    worker, phase = model.worker, model.place.phase
    if worker.failure is not None:
        return "failed"
    if phase != "resident":
        return phase
    if worker.is_loading:
        return "loading"
    return "ready" if worker.is_ready else "restarting"


def _residence(model: Model) -> dict[str, Any]:
    """What is known of the model in memory; loaded_share while it is loading."""
    place, worker = model.place, model.worker
    is_away = place.phase == "asleep"
    return {
        "memory_bound": model.num_bytes,
        "resident_bytes": None if is_away else _resident_bytes(worker.pid),
        "loaded_share": worker.loaded_share if worker.is_loading else None,
        "idle_seconds": time.monotonic() - place.used_at if place.num_users == 0 and place.used_at else None,
        "idle_timeout": None if place.idle_timeout == FOREVER else place.idle_timeout,
        "num_loads": place.num_loads,
        "num_evictions": place.num_evictions,
    }


def _resident_bytes(pid: int | None) -> int | None:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _figures(metrics: ModelMetrics, tenant: str) -> dict[str, Any]:
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
        "cost": _cost(metrics, tenant),
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
    return _percentiles(metrics.histograms[name])


def _percentiles(histogram: Latency) -> dict[str, Any]:
    p50, p90, p99 = histogram.percentiles(50, 90, 99)
    return {"p50": p50, "p90": p90, "p99": p99, "count": histogram.count}


def _cost(metrics: ModelMetrics, tenant: str) -> dict[str, Any] | None:
    """None without a price."""
    if metrics.price is None:
        return None
    tenants = [(name, figures) for name, figures in metrics.tenants.figures.items() if tenant in ("", name)]
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
