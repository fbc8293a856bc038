"""kill -9 of the worker under load: recovery.py [--kills 5]. Clients must get a clean error, the next be served."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import time

import httpx
import psutil
from common import report, server

BODY = {
    "model": "smollm2",
    "messages": [{"role": "user", "content": "Tell me a long story."}],
    "max_tokens": 400,
    "ignore_eos": True,
    "stream": True,
}


async def stream(client: httpx.AsyncClient) -> str:
    """How a stream ended: "done", "error" (a clean error event or status), or "cut"."""
    try:
        async with client.stream("POST", "/v1/chat/completions", json=BODY) as answer:
            if answer.status_code >= 500:
                return "error" if "error" in json.loads(await answer.aread()) else "cut"
            async for line in answer.aiter_lines():
                if line == "data: [DONE]":
                    return "done"
                if line.startswith("data: ") and json.loads(line[6:]).get("error"):
                    return "error"
    except httpx.HTTPError:
        return "cut"
    return "cut"


async def next_answer(client: httpx.AsyncClient) -> float:
    """Seconds until a request is answered again."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < 60:
        answer = await client.post("/v1/chat/completions", json=BODY | {"stream": False, "max_tokens": 1})
        if answer.status_code == 200:
            return time.perf_counter() - begin
        await asyncio.sleep(0.02)
    raise TimeoutError("no answer within 60 s of the kill")


async def kill_once(url: str, process: psutil.Process) -> tuple[list[str], float]:
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        streams = [asyncio.create_task(stream(client)) for _ in range(16)]
        await asyncio.sleep(1.0)
        worker = next(p for p in process.children(recursive=True) if "inferd.worker" in " ".join(p.cmdline()))
        os.kill(worker.pid, signal.SIGKILL)
        seconds = await next_answer(client)
        return list(await asyncio.gather(*streams)), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=5)
    args = parser.parse_args()
    ends: list[str] = []
    times: list[float] = []
    with server("smollm2") as (url, process):
        for _ in range(args.kills):
            ended, seconds = asyncio.run(kill_once(url, process))
            ends += ended
            times.append(seconds)
    figures = {
        "kills": args.kills,
        "streams_cut_by_a_kill": len(ends),
        "clean_errors": ends.count("error"),
        "finished_before": ends.count("done"),
        "cut_without_error": ends.count("cut"),
        "recovery_seconds_median": round(statistics.median(times), 2),
        "recovery_seconds_max": round(max(times), 2),
    }
    report("recovery", figures)
    if figures["cut_without_error"]:
        raise SystemExit("failed: a client saw a cut connection instead of an error")


if __name__ == "__main__":
    main()
