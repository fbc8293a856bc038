"""Eight tenants on one server, without and with a ninth that floods it. fairness.py [--seconds 25] [--flood 64]

Each tenant is a key with one closed-loop client: 64 random words, 64 tokens, 0 to 0.4 s to read them, and so on. flood is a key with 64 requests at once, always: 400 words, 256 tokens. Greedy, end-of-sequence ignored.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from typing import Any

import httpx
from common import report, server
from serving import Times, body, one, percentile

NUM_TENANTS = 8
READING_SECONDS = 0.4
WARMUP_SECONDS = 3.0


def client_of(url: str, key: str, num_connections: int = 4) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=num_connections)
    return httpx.AsyncClient(base_url=url, timeout=600, headers=headers, limits=limits)


async def tenant(url: str, number: int, begin: float, end: float) -> Times:
    """What one client saw of the requests it sent from `begin` on."""
    rng, times = random.Random(number), Times()
    async with client_of(url, f"tenant-{number}") as client:
        while (now := time.perf_counter()) < end:
            await one(client, body(rng, 64, 64), times if now >= begin else Times())
            await asyncio.sleep(READING_SECONDS * rng.random())
    return times


async def flood(url: str, num_requests: int, begin: float, end: float) -> float:
    """Tokens per second of requests that were answered between begin and end."""
    num_tokens = 0

    async def loop(number: int, client: httpx.AsyncClient) -> None:
        nonlocal num_tokens
        rng = random.Random(1000 + number)
        while time.perf_counter() < end:
            request = body(rng, 400, 256) | {"stream": False}
            del request["stream_options"]
            answer = await client.post("/v1/chat/completions", json=request)
            answer.raise_for_status()
            if begin <= time.perf_counter() < end:
                num_tokens += answer.json()["usage"]["completion_tokens"]

    async with client_of(url, "flood", num_requests) as client:
        loops = [asyncio.create_task(loop(i, client)) for i in range(num_requests)]
        await asyncio.sleep(end - time.perf_counter())
        for running in loops:
            running.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
    return num_tokens / (end - begin)


async def run(url: str, num_flood: int, seconds: float) -> dict[str, Any]:
    begin = time.perf_counter() + WARMUP_SECONDS
    end = begin + seconds
    flooding = asyncio.create_task(flood(url, num_flood, begin, end)) if num_flood else None
    all_times = await asyncio.gather(*(tenant(url, i, begin, end) for i in range(NUM_TENANTS)))
    ttft, itl = [t for times in all_times for t in times.ttft], [t for times in all_times for t in times.itl]
    return {
        "requests": len(ttft),
        "ttft_p50_ms": percentile(ttft, 0.5),
        "ttft_p95_ms": percentile(ttft, 0.95),
        "itl_p50_ms": percentile(itl, 0.5),
        "tok_s": round(sum(times.tokens for times in all_times) / seconds, 1),
        "flood_tok_s": round(await flooding, 1) if flooding is not None else 0.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=25)
    parser.add_argument("--flood", type=int, default=64, help="requests at once")
    args = parser.parse_args()
    keys = [f"--api-key={key}" for key in (*(f"tenant-{i}" for i in range(NUM_TENANTS)), "flood")]
    figures: dict[str, Any] = {}
    for name, count in (("without", 0), ("with_flood", args.flood)):
        with server("smollm2", *keys, key="flood", ready_timeout=20) as (url, _):
            figures[name] = asyncio.run(run(url, count, args.seconds))
            print(name, figures[name], flush=True)
    moved = figures["with_flood"]["ttft_p95_ms"] / figures["without"]["ttft_p95_ms"] - 1
    report("fairness", figures | {"ttft_p95_moved": round(moved, 3)})


if __name__ == "__main__":
    main()
