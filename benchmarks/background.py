"""Four online streams, without and with a batch of 64 requests in the background. background.py [--seconds 20]

Online: closed loop, 64 random words, 128 tokens. Batch: 64 lines at /v1/batches, 200 words and 256 tokens each, renewed
when it ends. Greedy, end-of-sequence ignored; no speculation, whose luck with random words differs from run to run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from typing import Any

import httpx
from common import report, server
from serving import Times, body, one, percentile

NUM_STREAMS = 4
NUM_LINES = 64
WARMUP_SECONDS = 4.0


async def stream(client: httpx.AsyncClient, number: int, begin: float, end: float) -> Times:
    rng, times = random.Random(number), Times()
    while (now := time.perf_counter()) < end:
        await one(client, body(rng, 64, 128), times if now >= begin else Times())
    return times


async def batch(client: httpx.AsyncClient, rng: random.Random) -> str:
    lines = []
    for i in range(NUM_LINES):
        request = body(rng, 200, 256) | {"stream": False}
        del request["stream_options"]
        lines.append({"custom_id": f"{i}", "method": "POST", "url": "/v1/chat/completions", "body": request})
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = await client.post("/v1/files", data={"purpose": "batch"}, files={"file": data})
    fields = {"input_file_id": file.json()["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    answer = await client.post("/v1/batches", json=fields)
    return str(answer.raise_for_status().json()["id"])


async def num_completed(client: httpx.AsyncClient) -> int:
    answer = await client.get("/v1/batches?limit=100")
    return sum(entry["request_counts"]["completed"] for entry in answer.json()["data"])


async def keep_busy(client: httpx.AsyncClient, begin: float, end: float) -> float:
    """Lines per second that batches got done between begin and end; there is always more than one to do."""
    rng, at_begin = random.Random(9), 0
    for _ in range(8):
        await batch(client, rng)
    await asyncio.sleep(begin - time.perf_counter())
    at_begin = await num_completed(client)
    await asyncio.sleep(end - time.perf_counter())
    return (await num_completed(client) - at_begin) / (end - begin)


async def run(url: str, seconds: float, *, num_streams: int, has_batch: bool) -> dict[str, Any]:
    begin = time.perf_counter() + WARMUP_SECONDS
    end = begin + seconds
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        working = asyncio.create_task(keep_busy(client, begin, end)) if has_batch else None
        all_times = await asyncio.gather(*(stream(client, i, begin, end) for i in range(num_streams)))
        lines = await working if working is not None else 0.0
    itl, ttft = [t for times in all_times for t in times.itl], [t for times in all_times for t in times.ttft]
    return {
        "online_tok_s": round(sum(times.tokens for times in all_times) / seconds, 1),
        "itl_p50_ms": percentile(itl, 0.5),
        "itl_p99_ms": percentile(itl, 0.99),
        "ttft_p50_ms": percentile(ttft, 0.5),
        "batch_lines_s": round(lines, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    args = parser.parse_args()
    figures: dict[str, Any] = {}
    runs = {
        "online_alone": {"num_streams": NUM_STREAMS, "has_batch": False},
        "online_with_batch": {"num_streams": NUM_STREAMS, "has_batch": True},
        "batch_alone": {"num_streams": 0, "has_batch": True},
    }
    for name, options in runs.items():
        with tempfile.TemporaryDirectory() as folder:
            flags = ("--batch-dir", folder, "--speculative", "off", "--drain-timeout", "2")
            with server("smollm2", *flags) as (url, _):
                figures[name] = asyncio.run(run(url, args.seconds, **options))
        print(name, figures[name], flush=True)
    ratio = figures["online_with_batch"]["itl_p99_ms"] / figures["online_alone"]["itl_p99_ms"]
    report("background", figures | {"itl_p99_ratio": round(ratio, 2)})


if __name__ == "__main__":
    main()
