"""What the gateway spends on a streamed token: gateway_cost.py [--streams 32] [--tokens 200] [--fast]

The mock engine steps every 50 ms, so that each token is sent by itself, or with --fast every 5 ms, where a busy machine
lets tokens gather. The figure is CPU time of the gateway process alone, system calls included.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.server import running


async def read_stream(client: httpx.AsyncClient, num_tokens: int, word: str) -> int:
    """Bytes received."""
    body = {"messages": [{"role": "user", "content": word}], "max_tokens": num_tokens, "stream": True}
    size = 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        async for data in answer.aiter_raw():
            size += len(data)
    return size


async def load(url: str, num_streams: int, num_tokens: int, word: str) -> int:
    limits = httpx.Limits(max_connections=num_streams)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
        return sum(await asyncio.gather(*(read_stream(client, num_tokens, word) for _ in range(num_streams))))


def measure(num_streams: int, num_tokens: int, word: str) -> float:
    """Microseconds of gateway CPU per token."""
    with running() as (url, process):
        gateway = psutil.Process(process.pid)
        asyncio.run(load(url, num_streams, 20, word))
        before = gateway.cpu_times()
        asyncio.run(load(url, num_streams, num_tokens, word))
        after = gateway.cpu_times()
    seconds = after.user + after.system - before.user - before.system
    return seconds / (num_streams * num_tokens) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--fast", action="store_true")
    args = parser.parse_args()
    microseconds = measure(args.streams, args.tokens, "<pace>" if args.fast else "<slow>")
    print(f"{microseconds:.1f} us per token")


if __name__ == "__main__":
    main()
