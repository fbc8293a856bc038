"""Streaming chat on a real server, closed loop; and decodes beside a long prefill. serving.py [--clients 1,8,32]

Each client asks with 64 random words for 64 tokens, greedy, end-of-sequence ignored, and asks again when it has them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
from common import report, server

WORDS = "river stone light garden number window paper morning system train cloud silver bridge story market".split()


@dataclass
class Times:
    tokens: int = 0
    ttft: list[float] = field(default_factory=list)
    itl: list[float] = field(default_factory=list)


def percentile(values: list[float], share: float) -> float:
    """In milliseconds."""
    ordered = sorted(values)
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else 0.0


def body(rng: random.Random, num_words: int, max_tokens: int) -> dict[str, Any]:
    text = "Continue this list of words with a story: " + " ".join(rng.choice(WORDS) for _ in range(num_words))
    return {
        "model": "smollm2",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def one(client: httpx.AsyncClient, request: dict[str, Any], times: Times) -> None:
    begin, last = time.perf_counter(), 0.0
    async with client.stream("POST", "/v1/chat/completions", json=request) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk, now = json.loads(line[6:]), time.perf_counter()
            if chunk.get("usage"):
                times.tokens += chunk["usage"]["completion_tokens"]
            if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                if last:
                    times.itl.append(now - last)
                else:
                    times.ttft.append(now - begin)
                last = now


async def closed_loop(url: str, num_clients: int, num_requests: int) -> dict[str, Any]:
    times, rng, todo = Times(), random.Random(1), iter(range(num_requests))
    limits = httpx.Limits(max_connections=num_clients + 8)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        await one(client, body(rng, 64, 64), Times())
        begin = time.perf_counter()

        async def loop() -> None:
            for _ in todo:
                await one(client, body(rng, 64, 64), times)

        await asyncio.gather(*(loop() for _ in range(num_clients)))
        seconds = time.perf_counter() - begin
    return {
        "tok_s": round(times.tokens / seconds, 1),
        "ttft_p50_ms": percentile(times.ttft, 0.5),
        "ttft_p99_ms": percentile(times.ttft, 0.99),
        "itl_p50_ms": percentile(times.itl, 0.5),
        "itl_p99_ms": percentile(times.itl, 0.99),
    }


async def beside_a_prefill(url: str) -> dict[str, Any]:
    """Eight decodes of 300 tokens; four prompts of about 2,000 tokens come one after the other."""
    decodes, prefill, rng = Times(), Times(), random.Random(2)
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        running = [asyncio.create_task(one(client, body(rng, 16, 300), decodes)) for _ in range(8)]
        await asyncio.sleep(0.5)
        for _ in range(4):
            await one(client, body(rng, 1950, 2), prefill)
        await asyncio.gather(*running)
    p50, p99 = percentile(decodes.itl, 0.5), percentile(decodes.itl, 0.99)
    ttft = percentile(prefill.ttft, 0.5)
    return {"itl_p50_ms": p50, "itl_p99_ms": p99, "p99_over_p50": round(p99 / p50, 2), "ttft_2000_tokens_ms": ttft}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--itl-target", type=float, default=0.02, help="seconds, for the run beside a prefill")
    args = parser.parse_args()
    figures: dict[str, Any] = {}
    with server("smollm2", "--no-enable-prefix-caching") as (url, _):
        for count in map(int, args.clients.split(",")):
            figures[f"clients_{count}"] = asyncio.run(closed_loop(url, count, 12 * count if count > 1 else 20))
            print(count, figures[f"clients_{count}"])
    with server("smollm2", "--no-enable-prefix-caching") as (url, _):
        figures["beside_2000_token_prefill"] = asyncio.run(beside_a_prefill(url))
    with server("smollm2", "--no-enable-prefix-caching", "--itl-target", str(args.itl_target)) as (url, _):
        figures[f"beside_2000_token_prefill_itl_target_{args.itl_target}"] = asyncio.run(beside_a_prefill(url))
    report("serving", figures)


if __name__ == "__main__":
    main()
