"""Load with aborts on a real server: soak.py [--requests 1000] [--streams 64] [--abort 0.2]

Passes when nothing fails but the aborts, KV use returns to its baseline and memory stays flat.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from typing import Any

import httpx
from common import metric, report, server, tree_rss

WORDS = "river stone light garden number window paper morning system train cloud silver bridge story market".split()
KV_USE = "vllm:kv_cache_usage_perc"
KV_MEMORY = "400MiB"  # 17,000 tokens: the streams fill it within the warm-up


async def one(client: httpx.AsyncClient, rng: random.Random, abort: bool, out: dict[str, Any]) -> None:
    prompt = " ".join(rng.choice(WORDS) for _ in range(rng.randint(5, 120)))
    body = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": rng.randint(4, 64),
        "temperature": 0,
        "stream": True,
    }
    stop_after = rng.randint(0, 10) if abort else None
    chunks, finished = 0, False
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        if answer.status_code != 200:
            out["errors"].append(f"{answer.status_code}: {(await answer.aread())[:200]!r}")
            return
        async for line in answer.aiter_lines():
            if not line.startswith("data: "):
                continue
            if stop_after is not None and chunks >= stop_after:
                out["aborted"] += 1
                return
            if line == "data: [DONE]":
                finished = True
                break
            chunk = json.loads(line[6:])
            if chunk.get("error"):
                out["errors"].append(str(chunk["error"]))
                return
            chunks += 1
    out["finished"] += finished
    if not finished:
        out["errors"].append("stream ended without [DONE]")


async def load(url: str, num_requests: int, num_streams: int, share: float, seed: int) -> dict[str, Any]:
    out: dict[str, Any] = {"finished": 0, "aborted": 0, "errors": []}
    rng, todo = random.Random(seed), iter(range(num_requests))
    limits = httpx.Limits(max_connections=num_streams + 8)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:

        async def stream() -> None:
            for _ in todo:
                await one(client, rng, rng.random() < share, out)

        await asyncio.gather(*(stream() for _ in range(num_streams)))
    return out


def settle(url: str) -> float:
    """KV use once nothing runs any more; at most 5 s later."""
    for _ in range(50):
        time.sleep(0.1)
        if metric(url, "vllm:num_requests_running") + metric(url, "vllm:num_requests_waiting") == 0:
            break
    time.sleep(0.3)
    return metric(url, KV_USE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--abort", type=float, default=0.2)
    args = parser.parse_args()
    with server("smollm2", "--max-num-seqs", "64", "--kv-cache-memory", KV_MEMORY) as (url, process):
        # memory reaches its plateau: every KV block was written once (a block is resident from its first write on)
        asyncio.run(load(url, args.streams * 4, args.streams, args.abort, seed=1))
        baseline, rss_before = settle(url), tree_rss(process)
        begin = time.perf_counter()
        out = asyncio.run(load(url, args.requests, args.streams, args.abort, seed=2))
        seconds = time.perf_counter() - begin
        after, rss_after = settle(url), tree_rss(process)
    figures = {
        "requests": args.requests,
        "streams": args.streams,
        "finished": out["finished"],
        "aborted": out["aborted"],
        "errors": len(out["errors"]),
        "first_errors": out["errors"][:3],
        "seconds": round(seconds, 1),
        "kv_use_before": baseline,
        "kv_use_after": after,
        "rss_before_mib": round(rss_before / 2**20, 1),
        "rss_after_mib": round(rss_after / 2**20, 1),
    }
    report("soak", figures)
    if out["errors"] or after != baseline or rss_after > rss_before * 1.05 + 2**23:
        raise SystemExit("failed: errors, KV blocks or memory left over")


if __name__ == "__main__":
    main()
