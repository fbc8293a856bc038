"""Clients that leave, workers that die or freeze, servers that are told to end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
import time

import httpx
import psutil
import pytest

from support.server import running
from support.waiting import until


def ask(url, prompt="ab", **body):
    return httpx.post(url + "/v1/completions", json={"prompt": prompt, "max_tokens": 2, **body}, timeout=30)


def metric(url, name):
    found = re.search(rf"^vllm:{name}\{{[^}}]*\}} ([0-9.e+]+)$", httpx.get(url + "/metrics").text, re.MULTILINE)
    return float(found.group(1))


def worker_of(process):
    return next(child for child in psutil.Process(process.pid).children() if "inferd.worker.main" in child.cmdline())


def lines_of(answer):
    return [line for line in answer.text.split("\n\n") if line.startswith("data: ")]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("n", [1, 3])
def test_a_client_that_leaves_is_aborted(stream, n):
    with running() as (url, _):
        body = {"prompt": ["<slow>", "b"], "max_tokens": 3000, "n": n, "stream": stream}

        async def leave():
            async with httpx.AsyncClient(timeout=20) as client:
                task = asyncio.create_task(client.post(url + "/v1/completions", json=body))
                await asyncio.sleep(0.5)
                assert metric(url, "num_requests_running") == 2
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        asyncio.run(leave())
        until(lambda: metric(url, "num_requests_running") == 0, 2.0)
        generated = metric(url, "generation_tokens_total")
        time.sleep(0.3)
        assert metric(url, "generation_tokens_total") == generated
        assert 'vllm:request_success_total{finished_reason="abort",model_name="mock/model"} 2.0' in httpx.get(
            url + "/metrics").text  # fmt: skip
        assert ask(url).status_code == 200


def test_many_clients_that_leave_at_any_moment():
    """Also while they are tokenized and queued; afterwards nothing runs and nothing counts as in flight."""
    with running(max_queue_len=64) as (url, process):

        async def storm():
            async with httpx.AsyncClient(base_url=url, timeout=20, limits=httpx.Limits(max_connections=64)) as client:
                for number in range(150):
                    body = {"prompt": "<pace>" + "x" * (number * 20), "max_tokens": 900, "stream": number % 2 == 0}
                    task = asyncio.create_task(client.post("/v1/completions", json=body))
                    await asyncio.sleep(0.001 * (number % 17))
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)

        asyncio.run(storm())
        until(lambda: metric(url, "num_requests_running") == 0)
        for _ in range(3):
            answers = [ask(url, prompt=["ab"] * 60) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [200, 200]
        assert process.poll() is None


@pytest.mark.parametrize("word", ["<crash>", "<raise>"])
def test_a_crash_fails_its_requests_and_the_next_is_served(word):
    with running() as (url, _):
        answer = ask(url, word)
        assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
        assert ask(url).json()["choices"][0]["text"] == "ab"
        streamed = ask(url, word, stream=True)
        assert streamed.status_code == 200
        assert json.loads(lines_of(streamed)[-1][6:])["error"]["code"] == "engine_error"
        assert "[DONE]" not in streamed.text
        assert ask(url).status_code == 200
        assert metric(url, "worker_restarts_total") == 2


def test_a_request_that_crashes_twice_is_refused_and_its_companions_are_not():
    with running() as (url, _):
        answers = []

        def companion():
            return ask(url, "<slow>", max_tokens=20, stream=True)

        for number in range(2):
            thread = threading.Thread(target=lambda: answers.append(companion()))
            thread.start()
            until(lambda: metric(url, "num_requests_running") == 1)
            assert ask(url, "<crash>").status_code == 500
            thread.join(5)
            assert "error" in json.loads(lines_of(answers[-1])[-1][6:])
            if number == 0:
                assert lines_of(companion())[-1] == "data: [DONE]"
        refused = ask(url, "<crash>")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "quarantined")
        assert "stopped 2 times while this request was running" in refused.json()["error"]["message"]
        assert lines_of(companion())[-1] == "data: [DONE]"  # it had cleared itself in between
        assert ask(url, "<crash> in other words").status_code == 500
        until(lambda: metric(url, "worker_restarts_total") == 3)


def test_a_worker_that_no_longer_starts_is_503_until_it_does(tmp_path, monkeypatch):
    stop = tmp_path / "stop"
    monkeypatch.setenv("INFERD_TEST_STOP", str(stop))
    with running(worker_factory="support.mock_engine:build_unless_told") as (url, process):
        stop.touch()
        worker_of(process).kill()
        refused = []
        until(lambda: refused.append(ask(url)) or "does not start" in refused[-1].text, 20.0)
        assert {answer.status_code for answer in refused} <= {503}
        assert refused[-1].headers["retry-after"] == "30"
        assert httpx.get(url + "/ready").status_code == 503
        assert httpx.get(url + "/health").status_code == 200
        stop.unlink()
        until(lambda: ask(url).status_code == 200, 20.0)


def test_kill_9_of_the_worker():
    with running() as (url, process):
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(ask(url, "<slow>", max_tokens=900, stream=True)))
                   for _ in range(5)]  # fmt: skip
        for thread in threads:
            thread.start()
        until(lambda: metric(url, "num_requests_running") == 5)
        old = worker_of(process)
        old.kill()
        begin = time.monotonic()
        assert ask(url).status_code == 200
        assert time.monotonic() - begin < 5
        for thread in threads:
            thread.join(5)
        assert len(answers) == 5
        for answer in answers:
            assert len(lines_of(answer)) > 1
            assert "error" in json.loads(lines_of(answer)[-1][6:])
        assert worker_of(process).pid != old.pid
        assert httpx.get(url + "/ready").status_code == 200
        for _ in range(2):  # a kill from outside is not the request's fault
            until(lambda: worker_of(process).is_running() and httpx.get(url + "/ready").status_code == 200)
            thread = threading.Thread(target=lambda: answers.append(ask(url, "<slow>", max_tokens=900, stream=True)))
            thread.start()
            until(lambda: metric(url, "num_requests_running") == 1)
            worker_of(process).kill()
            thread.join(5)
            assert answers[-1].status_code == 200
            assert ask(url).status_code == 200


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_frozen_worker_is_not_ready_and_is_replaced(is_busy):
    with running(stuck_after=1.0, kill_after=3.0) as (url, process):
        assert ask(url).status_code == 200
        answers = []
        worker = worker_of(process)
        if is_busy:
            body = {"max_tokens": 900, "stream": True}
            thread = threading.Thread(target=lambda: answers.append(ask(url, "<slow>", **body)))
            thread.start()
            until(lambda: metric(url, "num_requests_running") == 1)
        os.kill(worker.pid, signal.SIGSTOP)
        until(lambda: httpx.get(url + "/ready").status_code == 503, 4.0)
        assert httpx.get(url + "/health").status_code == 200
        until(lambda: httpx.get(url + "/ready").status_code == 200, 10.0)
        assert worker_of(process).pid != worker.pid
        if is_busy:
            thread.join(5)
            assert "error" in json.loads(lines_of(answers[0])[-1][6:])
        assert ask(url).status_code == 200


def test_an_engine_that_hangs_is_replaced():
    with running(stuck_after=1.0, kill_after=2.0) as (url, _):
        assert ask(url, "<hang>").status_code == 500
        assert ask(url).status_code == 200


def test_sigterm_lets_streams_finish():
    with running(drain_timeout=20.0) as (url, process):
        answers = []
        thread = threading.Thread(target=lambda: answers.append(ask(url, "<slow>", max_tokens=30, stream=True)))
        thread.start()
        until(lambda: metric(url, "num_requests_running") == 1)
        children = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(url + "/ready").status_code == 503, 1.0)
        refused = ask(url)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert process.wait(10) == 0
        thread.join(5)
        assert lines_of(answers[0])[-1] == "data: [DONE]"
        assert children
        assert not any(child.is_running() for child in children)


def test_streams_get_an_error_when_the_drain_takes_too_long():
    with running(drain_timeout=0.5) as (url, process):
        answers = []
        thread = threading.Thread(target=lambda: answers.append(ask(url, "<slow>", max_tokens=900, stream=True)))
        thread.start()
        until(lambda: metric(url, "num_requests_running") == 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        thread.join(5)
        assert "error" in json.loads(lines_of(answers[0])[-1][6:])


def test_a_second_signal_ends_at_once():
    with running(drain_timeout=60.0) as (url, process):
        answers = []
        body = {"max_tokens": 900, "stream": True}
        thread = threading.Thread(target=lambda: answers.append(ask(url, "<slow>", **body)))
        thread.start()
        until(lambda: metric(url, "num_requests_running") == 1)
        process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(url + "/ready").status_code == 503, 1.0)
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        assert time.monotonic() - begin < 2
        thread.join(5)
        assert "error" in json.loads(lines_of(answers[0])[-1][6:])


def test_no_worker_outlives_its_gateway():
    with running() as (_, process):
        worker = worker_of(process)
        process.kill()
        process.wait(5)
        until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, 2.0)


def test_a_model_that_does_not_load_ends_the_start():
    with running(worker_factory="support.nothing:here") as (url, process):
        assert url == ""
        assert process.wait(10) != 0
