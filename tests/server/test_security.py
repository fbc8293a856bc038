"""Between clients, and between a page of another site and a server without keys."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from inferd.gateway.connection import STALL_SECONDS
from support.models import model_path
from support.server import running

FORM = "multipart/form-data; boundary=B"
UNASKED = [
    ("/v1/files", FORM),
    ("/v2/models/mock%2Fmodel/generate", "text/plain"),
    ("/v2/repository/models/mock%2Fmodel/unload", ""),
    ("/api/generate", "text/plain"),
    ("/v1/chat/completions", "application/x-www-form-urlencoded"),
]
KEYS = ["key-one", "key-two"]
PROMPT = "A long text that the two of them begin in the same way, word for word. " * 8
BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": PROMPT, "max_tokens": 1},
    "/completion": {"prompt": "llama: " + PROMPT, "n_predict": 1},
    "/generate": {"inputs": "TGI: " + PROMPT, "parameters": {"max_new_tokens": 1}},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 1},
    "/api/chat": {"model": "smollm2", "messages": [{"role": "user", "content": "Ollama: " + PROMPT}], "stream": False,
                  "options": {"num_predict": 1}},
    "/v1/messages": {"model": "smollm2", "messages": [{"role": "user", "content": "Claude: " + PROMPT}],
                     "max_tokens": 1},
    "/v1/responses": {"input": "Responses: " + PROMPT, "max_output_tokens": 16},
}  # fmt: skip


@pytest.mark.parametrize(("path", "kind"), UNASKED)
def test_a_page_of_another_site_sends_nothing_unasked(url: str, path: str, kind: str) -> None:
    for origin in ("https://elsewhere.example", "null", url.replace("http", "https", 1) + "0"):
        reply = httpx.post(url + path, content=b"{}", headers={"content-type": kind, "origin": origin})
        assert reply.status_code == 415, reply.text
    own = httpx.post(url + path, content=b"{}", headers={"content-type": kind, "origin": url})
    assert "another origin" not in own.text


def test_a_page_that_is_allowed_may_send_files() -> None:
    body = b'--B\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    body += b'--B\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n{}\r\n--B--\r\n'
    with running(cors_origins=["https://page.example"]) as (url, _):
        for origin, status in (("https://page.example", 200), ("https://elsewhere.example", 415)):
            headers = {"content-type": FORM, "origin": origin}
            assert httpx.post(url + "/v1/files", content=body, headers=headers).status_code == status


def test_a_key_sees_its_own_requests_and_costs() -> None:
    with running(api_keys=KEYS, price_per_hour=1.0) as (url, _):
        seen = []
        for key in KEYS:
            headers = {"x-api-key": key}
            body = {"prompt": "abc", "max_tokens": 2}
            assert httpx.post(url + "/v1/completions", json=body, headers=headers).status_code == 200
            state = httpx.get(url + "/inferd/state", headers=headers).json()
            assert state["models"][0]["totals"]["requests"] == len(seen) + 1  # sums are of all
            [tenant] = {request["tenant"] for request in state["requests"]}
            assert set(state["models"][0]["cost"]["by_tenant"]) == {tenant}
            seen.append(tenant)
    assert len(set(seen)) == 2


@pytest.fixture(scope="module")
def smollm2() -> Iterator[str]:
    with running(models=[str(model_path("smollm2"))], worker_factory="", api_keys=KEYS,
                 model_aliases=[("smollm2", "SmolLM2-135M-Instruct.Q4_1")]) as (url, _):  # fmt: skip
        yield url


@pytest.mark.parametrize("path", BODIES)
def test_no_prompt_of_one_key_is_fast_for_another(smollm2: str, path: str) -> None:
    """Reused tokens are what an attacker would time."""

    def reused(key: str) -> int:
        reply = httpx.post(smollm2 + path, json=BODIES[path], headers={"x-api-key": key}, timeout=60)
        assert reply.status_code == 200, reply.text
        state = httpx.get(smollm2 + "/inferd/state", headers={"x-api-key": key}).json()
        return max(state["requests"], key=lambda request: request["arrival"])["num_cached_tokens"]

    reused(KEYS[0])
    assert reused(KEYS[0]) > 0
    first = reused(KEYS[1])
    assert first < reused(KEYS[1])


def test_a_client_of_kserve_that_leaves_frees_the_engine(url: str) -> None:
    body = {"text_input": "<slow>", "parameters": {"max_tokens": 1000}}
    with httpx.stream("POST", f"{url}/v2/models/mock%2Fmodel/generate_stream", json=body) as answer:
        next(answer.iter_lines())
    deadline = time.monotonic() + 5
    while httpx.get(url + "/inferd/state").json()["models"][0]["num_running"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "body"), [
    ("/v1/completions", {"prompt": "a", "n": 4, "logprobs": 5, "max_tokens": 4000}),
    ("/api/chat", {"model": "mock/model", "messages": [{"role": "user", "content": "a"}], "logprobs": True,
                   "top_logprobs": 20, "options": {"num_predict": 4000}}),
])  # fmt: skip
def test_a_reader_that_stands_still_is_dropped(url: str, path: str, body: dict[str, Any]) -> None:
    address, content = httpx.URL(url), json.dumps({**body, "stream": True}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((address.host, address.port))
        client.sendall(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
        time.sleep(STALL_SECONDS + 5)
        assert httpx.get(url + "/inferd/state").json()["models"][0]["num_running"] == 0
        pieces = list(iter(lambda: client.recv(2**20), b""))
    assert not b"".join(pieces[-2:]).endswith(b"0\r\n\r\n")  # the end of a body that is whole


@pytest.mark.parametrize(("path", "body"), [
    ("/inferd/plan", '{"model": ' + "[" * 5000),
    ("/v1/chat/completions", json.dumps({"messages": [{"role": "user", "content": "a"}], "structured_outputs":
                                         {"structural_tag": "[" * 50_000}})),
    ("/v1/chat/completions", json.dumps({"messages": [{"role": "user", "content": "a"}], "structured_outputs":
                                         {"structural_tag": "[" * 500 + "]" * 500}})),
    ("/v2/models/mock%2Fmodel/generate", '{"text_input": "a", "parameters": {"a": ' + '{"a":' * 5000),
])  # fmt: skip
def test_what_is_nested_too_deep_is_refused(url: str, path: str, body: str) -> None:
    reply = httpx.post(url + path, content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400, reply.text
