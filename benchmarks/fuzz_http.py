"""Malformed requests against a server: fuzz_http.py [--url http://127.0.0.1:8000] [--requests 5000] [--seed 0]

Without --url it starts its own. Fails on any status of 500 or more (but 503 with Retry-After: a full queue), on a
connection that ends without an answer to valid HTTP, on an error body that tells of the inside, and when a worker
had to be replaced.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx
from common import metric, report, server

HEADERS = {"content-type": "application/json"}
ROUTES = (
    "/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize", "/v1/tokenize", "/openai/v1/completions",
)  # fmt: skip
NUMBERS = (
    -1, 0, 1, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63), -(2**70), 1e308, -1e308, 1e-308, -0.0, 0.5,
)  # fmt: skip
OTHERS = (
    None, "", "a", [], {}, True, False, [[]], [{}], {"a": None}, "\x00", "\u202e\ufffe", "💥" * 100, [None], ["", 1],
)  # fmt: skip
FIELDS = """n temperature top_p top_k min_p typical_p seed stop stop_token_ids ignore_eos max_tokens min_tokens logprobs
    top_logprobs prompt_logprobs presence_penalty frequency_penalty repetition_penalty logit_bias allowed_token_ids
    bad_words skip_special_tokens include_stop_str_in_output stream stream_options priority cache_salt
    truncate_prompt_tokens return_token_ids return_tokens_as_token_ids add_special_tokens add_generation_prompt
    continue_final_message chat_template_kwargs echo best_of suffix tools tool_choice response_format model messages
    prompt tokens user metadata max_completion_tokens return_token_strs modalities unknown_field""".split()
LISTS = {
    "stop": "a", "stop_token_ids": 1, "bad_words": "b", "allowed_token_ids": 1, "prompt": "p", "tokens": 1,
    "messages": {"role": "user", "content": ""}, "tools": {}, "metadata": 1,
}  # fmt: skip
TEXTS = (
    "<|im_end|>" * 50, "{{ ''.__class__ }}", "{% for i in range(10**9) %}x{% endfor %}", "\ud83d", "\x00" * 99,
    "\u0301" * 999, "</s><s>[INST]", "%s%n%x" * 50, "../../etc/passwd", "A" * 100_000, " " * 50_000, "😀" * 5_000,
    "\r\nx-evil: 1\r\n\r\n",
)  # fmt: skip
LEAKS = re.compile(r"0x[0-9a-f]{8,}|Traceback|/site-packages|\.py\b|msgspec|<class|Exception")
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


@dataclass(frozen=True, slots=True)
class Case:
    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: dict(HEADERS))
    method: str = "POST"


@dataclass(slots=True)
class Findings:
    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0


def base(path: str) -> dict[str, Any]:
    if path.endswith("/chat/completions"):
        return {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    if path.endswith("/completions"):
        return {"prompt": "hi", "max_tokens": 1}
    return {"tokens": [1]} if path.endswith("detokenize") else {"prompt": "hi"}


def with_fields(rng: random.Random) -> Case:
    """One to three fields with a value from the edges of every type."""
    path = rng.choice(ROUTES)
    body = base(path)
    for name in rng.sample(FIELDS, rng.choice((1, 1, 2, 2, 3))):
        body[name] = rng.choice((*NUMBERS, *OTHERS))
    return Case(path, json.dumps(body).encode())


def with_long_lists(rng: random.Random) -> Case:
    path, size = rng.choice(ROUTES), rng.choice((1, 17, 129, 1025, 10_000, 200_000))
    name = rng.choice((*LISTS, "logit_bias"))
    value: Any = {str(i): 1 for i in range(size)} if name == "logit_bias" else [LISTS[name]] * size
    return Case(path, json.dumps({**base(path), name: value}).encode())


def with_texts(rng: random.Random) -> Case:
    path, text = rng.choice(ROUTES), rng.choice(TEXTS)
    body = base(path)
    if "messages" in body:
        role = rng.choice(("user", "system", "assistant", "tool", text[:50]))
        body["messages"] = [{"role": role, "content": text, "name": text[:200], "tool_calls": rng.choice(OTHERS)}]
    else:
        body[rng.choice(("prompt", "stop", "model", "cache_salt", "user", "bad_words"))] = text
    if rng.random() < 0.2:
        body["chat_template_kwargs"] = {text[:100]: [text[:100]], "messages": 1, "tools": text[:100]}
    return Case(path, json.dumps(body).encode())


def with_broken_json(rng: random.Random) -> Case:
    """Bytes of a good body cut, doubled, swapped or replaced."""
    path = rng.choice(ROUTES)
    fields = {**base(path), "stop": ["x", "é"], "logit_bias": {"1": 0.5}}
    body = bytearray(json.dumps(fields, ensure_ascii=False).encode())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(body))
        change = rng.randrange(4)
        if change == 0:
            del body[at : at + rng.randint(1, 8)]
        elif change == 1:
            body[at:at] = body[at : at + 8] or b"{"
        elif change == 2:
            body[at : at + 1] = bytes([rng.randrange(256)])
        else:
            body[at:at] = rng.choice((b"[" * 5000, b'{"a":' * 2000, b"9" * 5000, b"\\ud800", b"\x00", b"1e999", b"NaN"))
        if not body:
            break
    return Case(path, bytes(body))


def with_odd_http(rng: random.Random) -> Case:
    others = ("/v1/models/%00", "/v1/models/" + "a" * 5000, "//", "/v1/models/../..", "/%ff", "/ready")
    path = rng.choice((*ROUTES, *others))
    method = rng.choice(("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "POST", "TRACE", "PROPFIND"))
    headers = {
        "content-type": rng.choice(("application/json", "text/plain", "", "application/json;charset=utf-16", "a/b;")),
        "content-encoding": rng.choice(("identity", "gzip", "br")),
    }
    name = rng.choice(("x-request-id", "authorization", "x-api-key", "accept", "x-a"))
    headers[name] = rng.choice(("a" * 5000, "Bearer", "é"))
    return Case(path, rng.choice((b"", b"{}", json.dumps(base(path)).encode())), headers, method)


KINDS: tuple[tuple[Callable[[random.Random], Case], int], ...] = (
    (with_fields, 50), (with_broken_json, 20), (with_texts, 15), (with_odd_http, 10), (with_long_lists, 5),
)  # fmt: skip


def cases(num_requests: int, seed: int) -> Iterator[Case]:
    rng = random.Random(seed)
    makers, weights = zip(*KINDS, strict=True)
    for _ in range(num_requests):
        yield rng.choices(makers, weights)[0](rng)


async def send(client: httpx.AsyncClient, case: Case, findings: Findings) -> None:
    begin = time.perf_counter()
    headers = {name: value.encode() for name, value in case.headers.items()}
    try:
        answer = await client.request(case.method, case.path, content=case.body, headers=headers)
    except httpx.HTTPError as error:
        findings.faults.append(f"{type(error).__name__}: {case.method} {case.path[:60]} {case.body[:200]!r}")
        return
    findings.slowest = max(findings.slowest, time.perf_counter() - begin)
    findings.statuses[answer.status_code] += 1
    is_full = answer.status_code == 503 and "retry-after" in answer.headers
    if answer.status_code >= 500 and not is_full:
        findings.faults.append(f"{answer.status_code}: {case.method} {case.path[:60]} {case.body[:300]!r}")
    elif answer.status_code >= 400 and LEAKS.search(answer.text):
        findings.faults.append(f"tells of the inside: {answer.text[:200]}")


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


async def fuzz(url: str, num_requests: int, seed: int) -> Findings:
    findings, slots = Findings(), asyncio.Semaphore(16)

    async def one(work: Callable[[], Any]) -> None:
        async with slots:
            await work()

    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        raws = [head.replace(b"{path}", path.encode()) for head in RAW_HEADS for path in ROUTES]
        works = [partial(send, client, case, findings) for case in cases(num_requests, seed)]
        works += [partial(send_raw, url, data, findings) for data in raws]
        await asyncio.gather(*map(one, works))
        answer = await client.post("/v1/completions", json={"prompt": "hello", "max_tokens": 4})
        if answer.status_code != 200:
            findings.faults.append(f"the server does not answer any more: {answer.status_code}")
    return findings


def judge(url: str, num_requests: int, seed: int) -> None:
    before = metric(url, "inferd:worker_restarts_total")
    findings = asyncio.run(fuzz(url, num_requests, seed))
    restarts = metric(url, "inferd:worker_restarts_total") - before
    figures = {
        "requests": sum(findings.statuses.values()),
        "seed": seed,
        "statuses": {str(status): count for status, count in sorted(findings.statuses.items())},
        "faults": len(findings.faults),
        "worker_restarts": int(restarts),
        "slowest_seconds": round(findings.slowest, 2),
    }
    report("fuzz-http", figures)
    for fault in findings.faults[:20]:
        print(fault)
    if findings.faults or restarts:
        raise SystemExit("failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a running server; default: one is started with smollm2")
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = args.url or stack.enter_context(server("smollm2"))[0]
        judge(url, args.requests, args.seed)


if __name__ == "__main__":
    main()
