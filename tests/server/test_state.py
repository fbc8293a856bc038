"""GET /inferd/state: what the dashboard reads, at every moment of a model's life."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from inferd.engine.kv_map import NUM_CELLS
from inferd.errors import EngineError
from inferd.gateway.openapi import paths
from inferd.gateway.state import state_of, status_of
from inferd.metrics.recorder import NUM_LATEST, Recorder
from inferd.metrics.requests import RequestInfo
from inferd.types import SamplingParams
from support.server import running

SLEEPY = "support.sleepy_engine:build"
MODEL_KEYS = {
    "name", "status", "num_running", "num_waiting", "num_blocks", "block_size", "num_used_blocks", "num_cached_blocks",
    "kv_map", "kv_cached_map", "totals", "latency", "goodput", "busy_seconds", "utilisation", "batch_size",
    "step_seconds", "cost",
}  # fmt: skip
REQUEST_KEYS = {
    "id", "model", "tenant", "arrival", "queue", "prefill", "decode", "ttft", "num_prompt_tokens", "num_cached_tokens",
    "num_output_tokens", "finish_reason", "cost",
}  # fmt: skip


def complete(url: str, **body: Any) -> dict[str, Any]:
    fields = {"prompt": "a" * 40, "max_tokens": 12, "ignore_eos": True, **body}
    answer = httpx.post(url + "/v1/completions", json=fields, timeout=20)
    assert answer.status_code == 200, answer.text
    return answer.json()


def state(url: str) -> dict[str, Any]:
    return httpx.get(url + "/inferd/state").raise_for_status().json()


def test_the_state_of_a_server_without_requests() -> None:
    with running(worker_factory=SLEEPY) as (url, _):
        found = state(url)
    assert (found["currency"], found["requests"]) == (None, [])
    assert abs(found["now"] - time.time()) < 5
    (model,) = found["models"]
    assert set(model) >= MODEL_KEYS
    assert (model["status"], model["num_blocks"], model["block_size"]) == ("ready", 64, 16)
    assert (model["cost"], set(model["totals"].values())) == (None, {0})
    assert model["latency"]["ttft"] == {"p50": None, "p90": None, "p99": None, "count": 0}


def test_the_state_after_requests() -> None:
    with running(worker_factory=SLEEPY, engine={"speculative": "off"}, sla_ttft=5, sla_itl=1) as (url, _):
        answers = [complete(url) for _ in range(3)]
        time.sleep(1.2)  # until the worker's next word on its blocks
        complete(url, prompt="b", n=2)
        found = state(url)
    (model,) = found["models"]
    totals = model["totals"]
    assert (totals["prompt_tokens"], totals["generation_tokens"], totals["requests"]) == (121, 60, 4)
    assert totals["cached_tokens"] == 2 * 32  # the second and third find the full blocks of the first
    assert totals["steps"] == 4 * 12
    assert model["goodput"] == {"num_requests": 4, "num_good": 4, "ttft_target": 5, "itl_target": 1}
    assert model["num_cached_blocks"] == 3  # 40 + 12 tokens, the last of them not computed
    assert len(model["kv_map"]) == len(model["kv_cached_map"]) == min(NUM_CELLS, 64)
    assert (sum(model["kv_map"]), sum(model["kv_cached_map"])) == (0, 3)
    assert [r["id"][:-2] for r in found["requests"][:3]] == [answer["id"] for answer in answers]
    latency = model["latency"]
    assert {name: one["count"] for name, one in latency.items()} == {
        "ttft": 4, "tpot": 4, "queue": 4, "prefill": 4, "decode": 4, "e2e": 4, "itl": latency["itl"]["count"],
    }  # fmt: skip
    assert 0 < latency["itl"]["count"] <= 55
    for one in latency.values():
        assert 0 <= one["p50"] <= one["p90"] <= one["p99"]
    for request in found["requests"]:
        assert set(request) >= REQUEST_KEYS
        assert request["tenant"] == ""
        assert request["decode"] >= 11 * 0.002
        assert request["ttft"] >= request["queue"] + request["prefill"] >= 0.002
        assert (request["finish_reason"], request["is_good"]) == ("length", True)
    assert sum(r["decode"] + r["prefill"] for r in found["requests"]) == pytest.approx(model["busy_seconds"], rel=0.1)


def test_a_running_request_shows() -> None:
    with running(worker_factory=SLEEPY) as (url, _), httpx.Client(timeout=20) as client:
        body = {"prompt": "a" * 60, "max_tokens": 190, "ignore_eos": True, "stream": True, "n": 2}
        with client.stream("POST", url + "/v1/completions", json=body) as answer:
            next(answer.iter_text())
            time.sleep(0.15)
            (model,) = state(url)["models"]
    assert model["num_running"] == 2
    assert model["num_used_blocks"] >= 5
    assert model["busy_seconds"] > 0


def test_the_latest_requests_are_at_most_a_hundred() -> None:
    recorder, info = Recorder(), RequestInfo(id="x", tenant="", sampling=SamplingParams())
    for _ in range(NUM_LATEST + 7):
        recorder.of("m").timer(info, 0.0).on_end("stop", 1)
    found = state_of(recorder, [], "1")
    assert (len(found["requests"]), found["models"]) == (NUM_LATEST, [])


def test_the_state_is_guarded() -> None:
    with running(api_keys=["secret"]) as (url, _):
        assert httpx.get(url + "/inferd/state").status_code == 401
        assert httpx.get(url + "/inferd/state", headers={"x-api-key": "secret"}).status_code == 200


@pytest.mark.parametrize(("worker", "status"), [
    ({"failure": EngineError("x"), "is_ready": False, "is_loading": False}, "failed"),
    ({"failure": None, "is_ready": True, "is_loading": False}, "ready"),
    ({"failure": None, "is_ready": False, "is_loading": True}, "loading"),
    ({"failure": None, "is_ready": False, "is_loading": False}, "restarting"),
])  # fmt: skip
def test_status(worker: dict[str, Any], status: str) -> None:
    for phase, expected in (("resident", status), ("asleep", "failed" if worker["failure"] else "asleep")):
        model = SimpleNamespace(worker=SimpleNamespace(**worker), place=SimpleNamespace(phase=phase))
        assert status_of(model) == expected  # type: ignore[arg-type]


def test_a_stopped_worker_is_not_ready() -> None:
    with running(worker_factory=SLEEPY, stuck_after=1) as (url, process):
        children = f"/proc/{process.pid}/task/{process.pid}/children"
        with open(children, encoding="ascii") as file:
            worker = int(file.read().split()[0])
        os.kill(worker, signal.SIGSTOP)
        deadline = time.monotonic() + 10
        while (status := state(url)["models"][0]["status"]) == "ready" and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(worker, signal.SIGCONT)
    assert status == "restarting"


def test_the_route_is_documented() -> None:
    assert "get" in paths()["/inferd/state"]
