"""Models that come and go: on demand, by a budget, when idle, by request; and what the server says of them."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import httpx
import psutil

from support.server import running

MIB = 2**20
BUDGET = 768 * MIB  # room for three: each counts 160 MiB and its KV cache, an eighth of the budget
NAMES = [f"model-{i}" for i in range(6)]


def states(url: str) -> dict[str, dict[str, Any]]:
    return {model["name"]: model for model in httpx.get(f"{url}/inferd/state").json()["models"]}


def ask(url: str, model: str, timeout: float = 60, **fields: Any) -> httpx.Response:
    body = {"model": model, "prompt": "abc", "max_tokens": 3, **fields}
    return httpx.post(f"{url}/v1/completions", json=body, timeout=timeout)


def wait_for(url: str, name: str, status: str) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while (state := states(url)[name])["status"] != status:
        assert time.monotonic() < deadline, state
        time.sleep(0.05)
    return state


def test_on_demand() -> None:
    with running(models=NAMES[:2], preload=False) as (url, process):
        assert httpx.get(f"{url}/ready").status_code == 200
        assert [s["status"] for s in states(url).values()] == ["asleep", "asleep"]
        assert psutil.Process(process.pid).children() == []
        assert len(httpx.get(f"{url}/v1/models").json()["data"]) == 2
        assert ask(url, "model-1").json()["choices"][0]["text"] == "abc"
        assert [s["status"] for s in states(url).values()] == ["asleep", "ready"]


def test_a_budget_is_kept_while_everybody_asks() -> None:
    rng = random.Random(3)

    async def one(client: httpx.AsyncClient, url: str) -> int:
        body = {"model": rng.choice(NAMES), "prompt": "abc", "max_tokens": rng.randint(1, 20)}
        return (await client.post(f"{url}/v1/completions", json=body)).status_code

    async def all_of(url: str) -> list[int]:
        async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=8)) as client:
            return await asyncio.gather(*(one(client, url) for _ in range(40)))

    with running(models=NAMES, memory_budget=BUDGET) as (url, process):
        first = states(url)
        assert sum(s["status"] == "ready" for s in first.values()) == 3
        assert all(s["memory_bound"] == BUDGET // 3 for s in first.values())
        assert set(asyncio.run(all_of(url))) == {200}
        assert len(psutil.Process(process.pid).children()) <= 3
        last = states(url)
        assert sum(s["num_evictions"] for s in last.values()) >= 3
        assert all(s["resident_bytes"] <= s["memory_bound"] for s in last.values() if s["resident_bytes"])


def test_an_idle_model_leaves_and_the_next_request_brings_it_back() -> None:
    with running(models=["m"], idle_timeout=0.3) as (url, process):
        wait_for(url, "m", "asleep")
        assert psutil.Process(process.pid).children() == []
        assert ask(url, "m").status_code == 200
        assert states(url)["m"]["num_loads"] == 2
        assert "inferd" in httpx.get(f"{url}/metrics").text


def test_a_stream_keeps_its_model() -> None:
    with running(models=["a", "b"], memory_budget=300 * MIB, preload=False) as (url, _):
        body = {"model": "a", "prompt": "<pace>", "max_tokens": 200, "stream": True}
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            assert ask(url, "b", timeout=60).status_code == 200
            rest = list(lines)
        assert rest[-2] == "data: [DONE]"


def test_what_cannot_be_loaded_is_an_error_of_that_model_alone() -> None:
    with running(models=["mock/good", "/nowhere/bad.gguf"], preload=False, worker_factory="") as (url, _):
        reply = ask(url, "bad")
        assert reply.status_code == 500
        assert "bad.gguf" in reply.json()["error"]["message"]
        assert states(url)["bad"]["status"] == "failed"
        assert httpx.get(f"{url}/health").status_code == 200
