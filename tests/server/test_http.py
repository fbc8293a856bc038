"""The wire: statuses, headers, keys, hosts, limits, and bytes that no client library sends."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import pytest

from support.server import running

JSON = {"content-type": "application/json"}
POST = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n"
GET = b"GET /health HTTP/1.1\r\nhost: localhost\r\n"


def post(url, content, path="/v1/completions", **headers):
    return httpx.post(url + path, content=content, headers={**JSON, **headers}, timeout=20)


def raw(url, data, timeout=15.0):
    """Everything the server answers to these bytes until it closes or falls silent for a second."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=timeout) as peer:
        peer.sendall(data)
        peer.settimeout(1.0)
        answer = b""
        try:
            while part := peer.recv(65536):
                answer += part
        except TimeoutError:
            return answer, False
        except ConnectionError:
            pass
        return answer, True


MALFORMED = [
    b"", b" ", b"{", b"}", b"[1]", b"null", b"1", b'"a"', b"[" * 100_000, b'{"a":' * 100_000, b'{"prompt":"\\ud800"}',
    b"\xff", b"\xef\xbb\xbf{}", b"NaN", b'{"prompt":"a","temperature":NaN}', b'{"prompt":"a","temperature":1e999}',
    b"{'prompt':'a'}", b'{"prompt":"a",}', b'{"prompt":"\x00"}', b'{"prompt":"a"}{}', b'{"prompt":"\xc3"}',
    b'{"prompt":' + b"9" * 100_000 + b"}", b'{"x":' + b"[" * 500 + b"]" * 500 + b',"prompt":"a"}',
    b'{"prompt":"a","max_tokens":1.5e1000}', b'{"metadata":' + b'{"a":' * 70 + b"1" + b"}" * 70 + b',"prompt":"a"}',
]  # fmt: skip


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"])
def test_malformed_bodies(url, path, body):
    answer = post(url, body, path)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    for secret in ("Traceback", "0x", "/work", ".py", "msgspec"):
        assert secret not in answer.text


@pytest.mark.parametrize(("path", "status"), [
    ("/health", 200), ("/v1/health", 200), ("/ping", 200), ("/ready", 200), ("/version", 200), ("/metrics", 200),
    ("/openapi.json", 200), ("/v1/models", 200), ("/v1/models/mock/model", 200), ("/v1/models/model", 200),
    ("/v1/models/no", 404), ("/v1//models", 200), ("//v1///models", 200), ("/openai/v1/models", 200), ("/", 200),
    ("/health/", 404), ("/v1", 404), ("/docs", 404), ("/v1/completions", 405), ("/v1/chat/completions", 405),
])  # fmt: skip
def test_statuses(url, path, status):
    answer = httpx.get(url + path)
    assert answer.status_code == status
    assert answer.headers["x-request-id"]
    if status >= 400:
        assert answer.json()["error"]["message"]
        assert answer.headers["x-should-retry"] == "false"
    if status == 405:
        assert answer.headers["allow"] == "POST"


def test_content_types(url):
    good = b'{"prompt":"a","max_tokens":1}'
    assert post(url, good, **{"content-type": "application/json; charset=utf-8"}).status_code == 200
    assert httpx.post(url + "/v1/completions", content=good).status_code == 200
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert post(url, good, **{"content-type": kind}).status_code == 415
    assert post(url, good, **{"content-encoding": "gzip"}).status_code == 415


def test_model_names(url):
    for model in ("other", "", 1, ["mock/model"]):
        answer = post(url, json.dumps({"model": model, "prompt": "a"}))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    answer = post(url, b'{"prompt":"a","max_tokens":1}').json()
    assert answer["model"] == "mock/model"


def test_context_length(url):
    for num_prompt, max_tokens, status in ((4095, 1, 200), (4096, 1, 400), (1, 4096, 400), (10**6, 1, 400)):
        prompt = "a" * num_prompt
        answer = post(url, json.dumps({"prompt": prompt, "max_tokens": max_tokens}))
        assert answer.status_code == status
        if status == 400:
            error = answer.json()["error"]
            assert error["code"] == "context_length_exceeded"
            assert "4096" in error["message"]
    answer = post(url, json.dumps({"prompt": [1] * 5000}))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_request_ids(url):
    assert httpx.get(url + "/health", headers={"x-request-id": "abc-1.2_3:4"}).headers["x-request-id"] == "abc-1.2_3:4"
    for strange in ("a b", "ä".encode(), "x" * 129, ""):
        answer = httpx.get(url + "/health", headers={"x-request-id": strange})
        assert len(answer.headers["x-request-id"]) == 32


def test_stream_headers(url):
    body = b'{"prompt":"a","stream":true}'
    with httpx.stream("POST", url + "/v1/completions", content=body, headers=JSON) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache"
        assert "content-encoding" not in answer.headers
        assert answer.headers["x-request-id"]
        lines = answer.read().decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    assert all(line.startswith("data: ") for line in lines[:-1])


def test_silent_streams_get_comments():
    with running(keep_alive=0.2) as (url, _):
        body = json.dumps({"prompt": "<hang>", "stream": True})
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port), timeout=5) as peer:
            head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
            peer.sendall(head.encode() + body.encode())
            seen = b""
            while seen.count(b": keep-alive\n\n") < 3:
                seen += peer.recv(1000)
        assert b"data:" not in seen


def test_hosts():
    with running() as (url, _):
        for host in ("evil.example", "127.0.0.1.evil.example", "localhost.", "[::2]", "", "localhost:80:80"):
            assert httpx.get(url + "/health", headers={"host": host}).status_code in (400, 421), host
        for host in ("localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:80"):
            assert httpx.get(url + "/health", headers={"host": host}).status_code == 200
        twice, _ = raw(url, GET + b"host: evil.example\r\n\r\n")
        assert twice.startswith(b"HTTP/1.1 400")


def test_keys():
    """Every route by every way to write it, with every kind of key: only the plain path of health is open."""
    paths = ["/v1/models", "/v1/models/model", "/metrics", "/ready", "/v1/health", "/ping", "/version", "/openapi.json",
             "/tokenize", "/v1/completions", "/v1/chat/completions", "/nothing", "//health", "/health/", "/health/..",
             "/%68ealth", "/Health", "/health;x", "/./health", "/v1/../health", "/openai/v1/models",
             "/health%2f"]  # fmt: skip
    headers = [{}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}, {"authorization": "Basic secret"},
               {"x-api-key": ""}, {"x-api-key": "Bearer secret"}, {"authorization": "Bearer secret2"},
               {"authorization": "Bearer"}, {"x-forwarded-for": "127.0.0.1", "x-original-url": "/health"},
               {"x-api-key": "' OR 1=1 --"}, {"x-api-key": "%s%n" * 50}]  # fmt: skip
    num_seen = 0
    with running(api_keys=["secret", "other"]) as (url, _), httpx.Client() as client:
        plain = http.client.HTTPConnection(urlsplit(url).netloc)
        for path, header, method in itertools.product(paths, headers, ("GET", "POST", "OPTIONS", "HEAD")):
            plain.request(method, path, headers=header)
            answer = plain.getresponse()
            answer.read()
            assert answer.status == 401, (path, header, method)
            num_seen += 1
        plain.close()
        assert client.get(url + "/health").status_code == 200
        assert client.get(url + "/health?x=1").status_code == 200
        for header in ({"authorization": "Bearer secret"}, {"authorization": "bearer other"}, {"x-api-key": "other"}):
            assert client.get(url + "/v1/models", headers=header).status_code == 200
        absolute, _ = raw(url, b"GET http://x/v1/models?/health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert absolute.startswith(b"HTTP/1.1 401")
    assert num_seen == len(paths) * len(headers) * 4


def test_any_key_is_fine_where_none_is_set(url):
    for key in ("", "x", "Bearer", "Bearer any"):
        assert httpx.get(url + "/v1/models", headers={"authorization": key}).status_code == 200


def test_cors_only_when_asked_for(url):
    origin = {"origin": "https://page.example", "access-control-request-method": "POST"}
    names = httpx.get(url + "/health", headers=origin).headers
    assert not [name for name in names if name.startswith("access-control")]
    with running(cors_origins=["https://page.example"], api_keys=["k"]) as (other, _):
        preflight = httpx.options(other + "/v1/completions", headers=origin)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://page.example"
        assert httpx.options(other + "/v1/models", headers={**origin, "origin": "https://e.example"}).status_code == 400
        refused = httpx.get(other + "/v1/models", headers=origin)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://page.example"


def test_body_limits():
    with running(max_body_size=1000, body_timeout=0.5) as (url, _):
        assert post(url, b" " * 1001).status_code == 413
        assert post(url, (b" " * 100 for _ in range(11))).status_code == 413
        answer, closed = raw(url, POST + b"content-length: 99999999999\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413")
        assert closed
        begin = time.monotonic()
        answer, closed = raw(url, POST + b"content-length: 50\r\n\r\n{")
        assert answer.startswith(b"HTTP/1.1 408")
        assert closed
        assert time.monotonic() - begin < 3


@pytest.mark.parametrize("data", [
    b"GET / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + b"content-length: -1\r\n\r\n",
    POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: localhost\r\nbad header\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01",
    b"GET /\xff HTTP/1.1\r\nhost: localhost\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"NONSENSE / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nhost: a\x00b\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost : localhost\r\n\r\n", b"GET / HTTP/1.1\r\n host: localhost\r\n\r\n",
])  # fmt: skip
def test_bytes_that_are_no_http(url, data):
    answer, _ = raw(url, data)
    status = int(answer.split()[1])
    assert 400 <= status < 500
    assert httpx.get(url + "/health").status_code == 200


def test_header_limits(url):
    big = GET + b"x: "
    answer, closed = raw(url, big + b"a" * 200_000)
    assert answer.startswith(b"HTTP/1.1 431") or (closed and not answer)
    many = b"".join(b"x-%d: 1\r\n" % i for i in range(20_000))
    answer, closed = raw(url, GET + many)
    assert answer.startswith(b"HTTP/1.1 431") or (closed and not answer)
    answer, _ = raw(url, big + b"a" * 20_000 + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


def test_trailers_cannot_bring_a_key():
    with running(api_keys=["secret"]) as (url, _):
        body = b"2\r\n{}\r\n0\r\nx-api-key: secret\r\n\r\n"
        head = b"POST /tokenize HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        answer, _ = raw(url, head + body)
        assert answer.startswith(b"HTTP/1.1 401")


def test_pipelined_and_upgraded_requests(url):
    answer, _ = raw(url, (GET + b"\r\n") * 3)
    assert answer.count(b"HTTP/1.1 200") == 3
    body = b'{"prompt":"ab","max_tokens":2}'
    head = (POST + b"connection: Upgrade\r\nUpgrade: h2c\r\n"
            b"content-length: %d\r\n")  # fmt: skip
    answer, _ = raw(url, head % len(body) + b"\r\n" + body)
    assert answer.startswith(b"HTTP/1.1 200")


def test_a_connection_that_sends_nothing_is_closed(url):
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=15) as peer:
        peer.sendall(b"GET /health HTTP/1.1\r\n")
        assert peer.recv(100) == b""


SLOW = json.dumps({"prompt": "<slow>", "max_tokens": 200, "stream": True})


def test_a_full_gateway_refuses_at_once():
    with running(max_queue_len=2) as (url, _), httpx.Client(timeout=20) as client, ExitStack() as streams:
        for _ in range(2):
            streams.enter_context(client.stream("POST", url + "/v1/completions", content=SLOW, headers=JSON))
        answer = post(url, SLOW)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["x-should-retry"] == "true"
        assert httpx.get(url + "/health").status_code == 200
        assert post(url, json.dumps({"prompt": ["a"] * 3})).status_code == 400


def test_a_full_engine_refuses_at_once():
    with (running(engine={"max_queue_len": 1}) as (url, _),
          httpx.stream("POST", url + "/v1/completions", content=SLOW, headers=JSON)):  # fmt: skip
        answer = post(url, SLOW)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
