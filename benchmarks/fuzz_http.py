"""Malformed requests to every route of a server: fuzz_http.py [--url URL] [--requests 4000] [--seed 0]

Without --url it starts its own, with a model that makes text, an encoder, a predictive one and a pipeline. Fails on any
status of 500 or more (but 501, and 503 by design: a full queue says Retry-After, a probe says not ready), on a
connection that ends without an answer to valid HTTP, on an error body that tells of the inside, when a worker had to be
replaced, and when a server of its own grew by more than MAX_GROWTH.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
from common import metric, report, server, tree_rss
from fuzz_cases import Case, Target, cases
from starlette.applications import Starlette
from starlette.routing import Route

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

MAX_BODY = 8 * 2**20  # bytes, the server's default
MAX_GROWTH = 2**30  # bytes; caches of prompts and grammars fill up within it
LEAKS = re.compile(r"0x[0-9a-f]{8,}|Traceback|/site-packages|\.py\b|msgspec|<class|Exception|sqlite|root:x")
PIPELINE = """
name: choose
steps:
  - columns: {names: [a, b, c]}
  - infer: {model: linear, output: y}
  - softmax
"""
RAW_HEADS = (
    b"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n",
    b"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999999999999\r\n\r\n",
    b"POST {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    b"POST {path} HTTP/1.1\r\nhost: localhost\r\nhost: other\r\ncontent-length: 0\r\n\r\n",
    b"GET {path} HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET {path}" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"GET {path}?" + b"%ff" * 1000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"\x16\x03\x01" + bytes(range(200)),
    b"GET {path} HTTP/1.1\nhost: localhost\n\n",
    b"TRACE {path} HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)


@dataclass(slots=True)
class Findings:
    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    faults: list[str] = field(default_factory=list)
    answered: set[tuple[str, str]] = field(default_factory=set)  # (method, path) that had a status below 300
    slowest: tuple[float, str, bytes] = (0.0, "", b"")  # seconds, the request, its body


def targets() -> list[Target]:
    """Every route of the app, by each of its methods."""
    from inferd.gateway.app import Api
    from inferd.gateway.config import ModelConfig, ServerConfig

    api = Api(ServerConfig(models=(ModelConfig(model="smollm2"),)))
    api.build()
    assert isinstance(api.gateway.app, Starlette)
    routes = [route for route in api.gateway.app.routes if isinstance(route, Route)]
    pairs = {(route.path, method) for route in routes for method in route.methods or ()}
    return [Target(path, method) for path, method in sorted(pairs)]


async def send(client: httpx.AsyncClient, case: Case, findings: Findings) -> None:
    begin = time.perf_counter()
    headers = {name: value.encode() for name, value in case.headers.items()}
    try:
        answer = await client.request(case.method, case.path, content=case.body, headers=headers)
    except httpx.HTTPError as error:
        findings.statuses[0] += 1
        if len(case.body) <= MAX_BODY:  # the refusal of a larger one may be lost: the rest of it is not read
            findings.faults.append(f"{type(error).__name__}: {case.method} {case.path[:60]} {case.body[:200]!r}")
        return
    findings.slowest = max(
        findings.slowest, (time.perf_counter() - begin, f"{case.method} {case.path[:60]}", case.body)
    )
    findings.statuses[answer.status_code] += 1
    if answer.status_code < 300:
        findings.answered.add((case.method, case.path))
    is_designed = answer.status_code == 501 or (
        answer.status_code == 503 and ("retry-after" in answer.headers or case.path.endswith("/ready"))
    )
    if answer.status_code >= 500 and not is_designed:
        findings.faults.append(f"{answer.status_code}: {case.method} {case.path[:60]} {case.body[:300]!r}")
    elif answer.status_code >= 400 and LEAKS.search(answer.text.replace(case.path, "")):
        findings.faults.append(f"tells of the inside: {case.path[:60]} {answer.text[:200]}")


async def send_raw(url: str, data: bytes, findings: Findings) -> None:
    """Only the status is looked at: such bytes may also be answered by closing."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    with contextlib.suppress(ConnectionError, TimeoutError):
        writer.write(data)
        line = await asyncio.wait_for(reader.readline(), 2.0)
        status = int(line.split()[1]) if line.startswith(b"HTTP/1.1 ") else 0
        findings.statuses[status] += 1
        if status >= 500:
            findings.faults.append(f"{status}: {data[:200]!r}")
    writer.close()


async def fuzz(url: str, num_requests: int, seed: int, routes: Sequence[Target]) -> Findings:
    findings, slots = Findings(), asyncio.Semaphore(16)

    async def one(work: Callable[[], Any]) -> None:
        async with slots:
            await work()

    limits = httpx.Limits(keepalive_expiry=2)  # less than the server's: else both may give up a connection at once
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        await index_documents(client)
        paths = ("/v1/completions", "/v2/models/linear/infer", "/api/chat", "/v1/files")
        raws = [head.replace(b"{path}", path.encode()) for head in RAW_HEADS for path in paths]
        works = [partial(send, client, case, findings) for case in cases(num_requests, seed, routes)]
        works += [partial(send_raw, url, data, findings) for data in raws]
        await asyncio.gather(*map(one, works))
        answer = await client.post("/v1/completions", json={"prompt": "hello", "max_tokens": 4})
        if answer.status_code != 200:
            findings.faults.append(f"the server does not answer any more: {answer.status_code}")
    return findings


async def index_documents(client: httpx.AsyncClient) -> None:
    documents = [{"name": "a", "text": "A cat sleeps."}]
    reply = await client.post("/v1/rag/collections/docs/documents", json={"documents": documents})
    reply.raise_for_status()


def judge(url: str, num_requests: int, seed: int, process: psutil.Process | None) -> None:
    """process: of the server, where it is this script's own."""
    routes = targets()
    before = metric(url, "inferd:worker_restarts_total")
    rss_before = 0 if process is None else tree_rss(process)
    findings = asyncio.run(fuzz(url, num_requests, seed, routes))
    restarts = metric(url, "inferd:worker_restarts_total") - before
    growth = 0 if process is None else tree_rss(process) - rss_before
    if growth > MAX_GROWTH:
        findings.faults.append(f"the server grew by {growth} bytes")
    answered = {(target.template, target.method) for target in routes if _is_answered(target, findings.answered)}
    figures = {
        "requests": sum(findings.statuses.values()),
        "seed": seed,
        "routes": len(routes),
        "routes_that_answered_below_300": len(answered),
        "statuses": {str(status): count for status, count in sorted(findings.statuses.items())},
        "faults": len(findings.faults),
        "worker_restarts": int(restarts),
        "slowest_seconds": round(findings.slowest[0], 2),
        "slowest_request": findings.slowest[1],
        **({} if process is None else {"grown_mib": round(growth / 2**20)}),
    }
    report("fuzz-http", figures)
    print("the slowest:", findings.slowest[2][:300])
    for fault in findings.faults[:20]:
        print(fault)
    if findings.faults or restarts:
        raise SystemExit("failed")


def _is_answered(target: Target, answered: set[tuple[str, str]]) -> bool:
    pattern = re.compile(re.sub(r"{\w+(:path)?}", "[^?]+", target.template) + r"(\?.*)?")
    return any(method == target.method and pattern.fullmatch(path) for method, path in answered)


@contextlib.contextmanager
def own_server() -> Iterator[tuple[str, psutil.Process]]:
    """What it keeps goes to a folder that is gone afterwards; nothing is fetched."""
    from inferd.models.store import store_dir
    from support.onnx_models import linear

    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / "models").symlink_to(store_dir())
        (home / "adapters").mkdir()
        (home / "choose.yaml").write_text(PIPELINE)
        model = linear(home / "linear.onnx")
        os.environ |= {"INFERD_HOME": name, "INFERD_OFFLINE": "1"}
        options = ("--pipeline", str(home / "choose.yaml"), "--lora-dir", str(home / "adapters"))
        with server("smollm2", "minilm", str(model), *options) as (url, process):
            yield url, process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a running server, with the models smollm2 and minilm; default: one is started")
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url, process = (args.url, None) if args.url else stack.enter_context(own_server())
        judge(url, args.requests, args.seed, process)


if __name__ == "__main__":
    main()
