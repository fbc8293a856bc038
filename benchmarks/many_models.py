"""Ten models in the room of three, and a server that sleeps: many_models.py [--requests 500] [--clients 8]

Ten names of one file, each a worker of its own; requests by random choice. The sum of the workers' resident memory is
read every 20 ms against the budget. Then one server whose model has left: what it holds, and the time to the first
token of the request that wakes it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from common import report, server

from inferd.models.store import resolve

NUM_MODELS, NUM_RESIDENT = 10, 3
KV_BYTES = 64 * 2**20


def resident_bytes(process: psutil.Process) -> int:
    total = 0
    for child in process.children():
        with suppress(psutil.NoSuchProcess):
            total += child.memory_info().rss
    return total


async def load(url: str, process: psutil.Process, args: argparse.Namespace) -> dict[str, Any]:
    rng, most, seconds = random.Random(1), 0, []
    room = asyncio.Semaphore(args.clients)
    statuses: dict[int, int] = {}

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, resident_bytes(process))
            await asyncio.sleep(0.02)

    async def one(client: httpx.AsyncClient) -> None:
        async with room:
            begin = time.perf_counter()
            prompt = f"Count to {rng.randint(3, 99)}:"
            body = {"model": f"m{rng.randrange(NUM_MODELS)}", "prompt": prompt, "max_tokens": rng.randint(1, 32)}
            status = (await client.post(f"{url}/v1/completions", json=body)).status_code
            statuses[status] = statuses.get(status, 0) + 1
            seconds.append(time.perf_counter() - begin)

    watching = asyncio.create_task(watch())
    async with httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=args.clients)) as client:
        await asyncio.gather(*(one(client) for _ in range(args.requests)))
        state = (await client.get(f"{url}/inferd/state")).json()
    watching.cancel()
    return {
        "num_requests": args.requests,
        "num_failed": args.requests - statuses.get(200, 0),
        "statuses": statuses,
        "budget_mib": round(state["memory_budget"] / 2**20),
        "most_resident_mib": round(most / 2**20),
        "num_loads": sum(model["num_loads"] for model in state["models"]),
        "seconds_p50": round(statistics.median(seconds), 3),
        "seconds_max": round(max(seconds), 3),
    }


def ten_models(args: argparse.Namespace) -> dict[str, Any]:
    path = resolve("smollm2")
    bound = int(path.stat().st_size * 1.3) + KV_BYTES + 160 * 2**20  # as the gateway counts
    with tempfile.TemporaryDirectory() as folder:
        names = [Path(folder) / f"m{i}.gguf" for i in range(NUM_MODELS)]
        for name in names:
            name.symlink_to(path)
        options = ["--memory-budget", str(NUM_RESIDENT * bound + 2**20), "--kv-cache-memory", str(KV_BYTES)]
        with server(str(names[0]), *map(str, names[1:]), *options) as (url, process):
            return asyncio.run(load(url, process, args))


def first_token_seconds(url: str) -> float:
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "stream": True}
    begin = time.perf_counter()
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                return time.perf_counter() - begin
    raise RuntimeError("no token came")


def sleeper() -> dict[str, Any]:
    """A server whose model leaves after 0.3 s, woken five times."""
    seconds, held = [], 0
    with server("smollm2", "--idle-timeout", "0.3") as (url, process):
        for _ in range(5):
            while process.children():
                time.sleep(0.05)
            held = max(held, process.memory_info().rss)
            seconds.append(first_token_seconds(url))
    return {
        "asleep_resident_mib": round(held / 2**20, 1),
        "first_token_seconds": [round(value, 3) for value in sorted(seconds)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--print-only", action="store_true")
    args = parser.parse_args()
    figures = {"ten_models": ten_models(args), "scale_to_zero": sleeper()}
    report("many_models", figures, print_only=args.print_only)


if __name__ == "__main__":
    main()
