"""The OpenAI routes with the real client, on a mock engine."""

import signal
import time

import httpx
import openai
import psutil
import pytest

from support.server import running


@pytest.fixture(scope="module")
def url():
    with running() as (base, _):
        yield base


def client(url):
    return openai.OpenAI(base_url=url + "/v1/", api_key="any", max_retries=0)


def ask(url, **body):
    body = {"model": "mock/model", "prompt": "ab", **body}
    return httpx.post(url + "/v1/completions", json=body, timeout=20)


def test_completion(url):
    answer = client(url).completions.create(model="mock/model", prompt="ab", max_tokens=5, n=2)
    assert [choice.text for choice in answer.choices] == ["ababa"] * 2
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 10)


def test_chat_stream_equals_whole_and_ends_with_usage(url):
    messages = [{"role": "user", "content": "hello"}]
    chunks = list(client(url).chat.completions.create(
        model="mock/model", messages=messages, max_completion_tokens=7, stream=True,
        stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == "hellohe"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 7
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1


@pytest.mark.parametrize(("body", "param"), [
    ({"max_tokens": -1}, "max_tokens"), ({"n": True}, "n"), ({"temperature": "hot"}, "temperature"),
    ({"logprobs": 1}, "logprobs"), ({"tools": [{}]}, "tools"), ({"seed": 2**70}, "seed"),
])
def test_bad_fields_are_named(url, body, param):
    answer = ask(url, **body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("raw", [b"", b"{", b"[1]", b"[" * 100000, b'{"a":"\\ud800"}', b"\xff", b"NaN"])
def test_malformed_json(url, raw):
    answer = httpx.post(url + "/v1/completions", content=raw, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "Traceback" not in answer.text


def test_statuses(url):
    assert ask(url, model="no").json()["error"]["code"] == "model_not_found"
    assert ask(url, prompt="a" * 5000).json()["error"]["code"] == "context_length_exceeded"
    assert httpx.get(url + "/v1/completions").status_code == 405
    assert httpx.get(url + "/nothing").status_code == 404
    assert httpx.get(url + "/v1//models").json()["data"][0]["id"] == "mock/model"
    assert httpx.get(url + "/v1/models/mock/model").status_code == 200
    assert httpx.get(url + "/health", headers={"host": "evil.example"}).status_code == 421
    assert "vllm:num_requests_running" in httpx.get(url + "/metrics").text


def test_only_health_is_open():
    with running(api_keys=["secret"]) as (url, _):
        for path in ("/v1/models", "/metrics", "/ready", "//health", "/health/", "/v1/health", "/nothing"):
            assert httpx.get(url + path).status_code == 401, path
        assert httpx.get(url + "/health").status_code == 200
        assert httpx.get(url + "/v1/models", headers={"authorization": "Bearer secret"}).status_code == 200


def test_a_crash_fails_its_request_and_the_next_one_works():
    with running() as (url, _):
        for word in ("<crash>", "<raise>"):
            assert ask(url, prompt=word).status_code == 500
            assert ask(url, max_tokens=2).json()["choices"][0]["text"] == "ab"


def test_a_disconnect_aborts():
    with running() as (url, _):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url + "/v1/completions", timeout=0.5,
                       json={"model": "mock/model", "prompt": "<slow>", "max_tokens": 2000})
        time.sleep(1.5)
        assert 'vllm:num_requests_running{model_name="mock/model"} 0.0' in httpx.get(url + "/metrics").text


def test_sigterm_ends_with_zero_and_no_worker_left():
    with running() as (_, process):
        workers = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert workers
        assert not any(worker.is_running() for worker in workers)
