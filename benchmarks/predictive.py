"""A score for a row of 30 numbers under load, end to end over HTTP: predictive.py [--rates 100,300,600] [--seconds 8]

The model is that of examples/predictive/tabular_train.py. Requests of one row come at random times (Poisson) over
connections that are kept; a latency counts from the moment a request was due, so a server that falls behind pays for
the whole queue. The client runs on the same cores as the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import metric, report, server

TRAIN = Path(__file__).parents[1] / "examples" / "predictive" / "tabular_train.py"
NUM_CONNECTIONS = 32
WIDTH = 30


def request_bytes(host: str) -> bytes:
    """A request of one row with binary tensors both ways, as Triton's client sends it."""
    import numpy as np

    data = np.random.default_rng(0).uniform(0, 100, WIDTH).astype("<f4").tobytes()
    tensor = {"name": "X", "shape": [1, WIDTH], "datatype": "FP32", "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    lines = ["POST /v2/models/screening/infer HTTP/1.1", f"Host: {host}", f"Content-Length: {len(head) + len(data)}"]
    lines += [f"Inference-Header-Content-Length: {len(head)}", "", ""]
    return "\r\n".join(lines).encode() + head + data


class Connections:
    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def open(self) -> None:
        for _ in range(NUM_CONNECTIONS):
            self._free.put_nowait(await asyncio.open_connection(*self._address))

    async def ask(self, request: bytes) -> None:
        reader, writer = connection = await self._free.get()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(head.decode("latin-1"))
        length = int(head.split(b"\r\ncontent-length:", 1)[1].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
        self._free.put_nowait(connection)


async def open_loop(url: str, rate: float, seconds: float) -> dict[str, Any]:
    host, port = url.removeprefix("http://").split(":")
    connections, request = Connections(host, int(port)), request_bytes(host)
    await connections.open()
    for _ in range(200):
        await connections.ask(request)
    rng, latencies, tasks = random.Random(0), [], []
    begin = due = time.perf_counter()

    async def one(due: float) -> None:
        await connections.ask(request)
        latencies.append(time.perf_counter() - due)

    while due - begin < seconds:
        due += rng.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    taken = time.perf_counter() - begin
    return {"rate": rate, "answered_per_s": round(len(latencies) / taken, 1), **percentiles(latencies)}


async def closed_loop(url: str, num_clients: int, seconds: float) -> dict[str, Any]:
    """Each client asks again when it has its answer: what the server can do at most."""
    host, port = url.removeprefix("http://").split(":")
    connections, request = Connections(host, int(port)), request_bytes(host)
    await connections.open()
    begin, latencies = time.perf_counter(), []

    async def client() -> None:
        while (now := time.perf_counter()) - begin < seconds:
            await connections.ask(request)
            latencies.append(time.perf_counter() - now)

    await asyncio.gather(*(client() for _ in range(num_clients)))
    return {"clients": num_clients, "answered_per_s": round(len(latencies) / seconds, 1), **percentiles(latencies)}


def percentiles(latencies: list[float]) -> dict[str, float]:
    """Nearest rank, in milliseconds."""
    ordered = sorted(latencies)
    at = {f"p{share}_ms": ordered[max(0, -int(-len(ordered) * share // 100) - 1)] for share in (50, 95, 99)}
    return {name: round(1000 * value, 2) for name, value in {**at, "max_ms": ordered[-1]}.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", default="100,300,600", help="requests a second")
    parser.add_argument("--seconds", type=float, default=8)
    args = parser.parse_args()
    figures: dict[str, Any] = {"open_loop": [], "closed_loop": []}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "screening"
        subprocess.run([sys.executable, str(TRAIN), str(model)], check=True)
        with server(str(model)) as (url, _):
            for rate in map(float, args.rates.split(",")):
                figures["open_loop"].append(asyncio.run(open_loop(url, rate, args.seconds)))
            for num_clients in (1, 16):
                figures["closed_loop"].append(asyncio.run(closed_loop(url, num_clients, args.seconds / 2)))
            rows, runs = metric(url, "inferd:call_rows_total"), metric(url, "inferd:call_executions_total")
            figures["rows_per_run"] = round(rows / runs, 2)
    report("predictive", figures)


if __name__ == "__main__":
    main()
