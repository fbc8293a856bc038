"""A load against a server of this test: schedules that are kept, failures that are named, servers of every kind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from inferd.bench.config import LoadConfig
from inferd.bench.load import Run, run_sweep
from inferd.bench.metrics import failures, summarize
from inferd.bench.target import Target, TargetError
from inferd.errors import ConfigError

Answer = Callable[["FakeServer", dict[str, Any], asyncio.StreamWriter], Awaitable[None]]
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(choice: dict[str, Any] | None, **more: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [] if choice is None else [choice]} | more).encode() + b"\n\n"


def token(text: str, **more: Any) -> bytes:
    return chunked(event({"index": 0, "delta": {"content": text}, "finish_reason": None}, **more))


def end(usage: dict[str, int] | None = None) -> bytes:
    data = event({"index": 0, "delta": {}, "finish_reason": "length"})
    if usage is not None:
        data += event(None, usage=usage)
    return chunked(data + b"data: [DONE]\n\n") + b"0\r\n\r\n"


def error(status: int, message: str) -> bytes:
    body = json.dumps({"error": {"message": message}}).encode()
    return b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        status,
        len(body),
        body,
    )


@dataclass
class FakeServer:
    """Counts a token for each word; `delay` seconds before each token."""

    answer: Answer | None = None
    delay: float = 0.0
    key: str | None = None
    counts: bool = True
    running_counts: bool = False
    bodies: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    num_connections: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    url: str = ""

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        with contextlib.suppress(OSError, EOFError):
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
                data = await reader.readexactly(length)
                if self.key is not None and f"authorization: bearer {self.key}\r\n" not in head:
                    writer.write(error(401, "wrong key"))
                elif head.startswith("get"):
                    self.get(head.split()[1], writer)
                else:
                    await self.post(json.loads(data), writer)
        writer.close()

    def get(self, path: str, writer: asyncio.StreamWriter) -> None:
        facts = {"/v1/models": {"data": [{"id": "fake"}]}, "/version": {"version": "9.8"}}.get(path)
        if facts is None:
            writer.write(error(404, "no such path"))
            return
        body = json.dumps(facts).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    async def post(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.times.append(time.perf_counter())
        self.bodies.append(body)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await (self.answer or stream)(self, body, writer)
            await writer.drain()
        finally:
            self.in_flight -= 1


async def stream(server: FakeServer, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    num_prompt = len(body["messages"][0]["content"].split()) + 7
    writer.write(STREAM)
    for number in range(1, body["max_tokens"] + 1):
        await asyncio.sleep(server.delay)
        usage = {"prompt_tokens": num_prompt, "completion_tokens": number}
        asked = server.running_counts and body["stream_options"].get("continuous_usage_stats")
        writer.write(token("a", **({"usage": usage} if asked else {})))
    writer.write(end({"prompt_tokens": num_prompt, "completion_tokens": body["max_tokens"]} if server.counts else None))


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[FakeServer]:
    fake = FakeServer(**options)
    async with await asyncio.start_server(fake.connection, "127.0.0.1", 0) as listening:
        fake.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield fake
        listening.close()


async def load(url: str, **options: Any) -> tuple[list[Run], Target]:
    config = LoadConfig(url=url, **{"num_prompts": 6, "output_len": 3, "input_len": 20, "num_warmups": 1, **options})
    target = Target(config)
    try:
        await target.probe()
        return await run_sweep(config, target, lambda run: None), target
    finally:
        target.close()


async def one_run(url: str, **options: Any) -> Run:
    return (await load(url, **options))[0][0]


async def test_an_open_loop_does_not_wait_for_answers() -> None:
    async with serving(delay=0.1) as fake:
        run = await one_run(fake.url, request_rates=(100.0,), arrival="constant")
    assert [record.num_tokens for record in run.records] == [3] * 6
    assert run.most_in_flight == fake.most_in_flight == 6
    gaps = [record.sent - run.records[0].sent for record in run.records]
    assert gaps == pytest.approx([0.00, 0.01, 0.02, 0.03, 0.04, 0.05], abs=0.02)


async def test_waiting_for_a_slot_is_part_of_the_latency() -> None:
    """Six requests of 60 ms at one instant through one slot: the last waits for the five before it."""
    async with serving(delay=0.02) as fake:
        run = await one_run(fake.url, request_rates=(float("inf"),), max_concurrency=(1,), num_prompts=6)
        closed = run.records
        open_loop = await one_run(fake.url, request_rates=(1000.0,), max_concurrency=(1,), arrival="constant")
    assert fake.most_in_flight == 1
    assert max(record.slot_wait for record in closed) == 0.0
    assert max(record.ended - record.intended for record in closed) < 0.3
    last = max(open_loop.records, key=lambda record: record.intended)
    assert last.slot_wait > 0.25
    assert last.arrivals[0] - last.intended > last.slot_wait
    lags = [record.sent - record.intended - record.slot_wait for record in open_loop.records]
    assert max(lags) < 0.1


async def test_a_closed_loop_has_as_many_requests_in_flight_as_clients() -> None:
    async with serving(delay=0.01) as fake:
        run = await one_run(fake.url, max_concurrency=(3,), num_prompts=12)
    assert (run.is_closed_loop, run.most_in_flight, len(run.records)) == (True, 3, 12)
    assert fake.num_connections <= 4  # kept: the probe's and those of three clients


async def test_a_duration_ends_either_loop() -> None:
    async with serving(delay=0.005) as fake:
        closed = await one_run(fake.url, max_concurrency=(2,), duration=0.3)
        opened = await one_run(fake.url, request_rates=(50.0,), duration=0.4)
    assert 10 < len(closed.records) < 50
    assert max(record.sent for record in closed.records) - closed.begin < 0.35
    assert len(opened.records) == 20


async def test_a_sweep_has_a_run_for_each_rate_with_prompts_of_its_own() -> None:
    async with serving() as fake:
        runs, _ = await load(fake.url, request_rates=(200.0, 400.0))
    assert [run.request_rate for run in runs] == [200.0, 400.0]
    texts = [body["messages"][0]["content"] for body in fake.bodies]
    assert len(set(texts)) == len(texts) == 2 + 1 + 12


async def test_a_seed_repeats_the_bodies() -> None:
    async with serving() as first, serving() as second, serving() as other:
        for fake, seed in ((first, 5), (second, 5), (other, 6)):
            await load(fake.url, max_concurrency=(1,), seed=seed, range_ratio=0.5)
    assert first.bodies == second.bodies != other.bodies


async def test_what_a_request_says() -> None:
    extra = {"top_k": 5, "temperature": None, "max_tokens": 2}
    async with serving() as fake:
        await load(fake.url + "/v1/", extra_body=extra, num_prompts=1)
    body = fake.bodies[-1]
    assert body["model"] == "fake"
    assert (body["top_k"], body["max_tokens"], body["ignore_eos"], body["stream"]) == (5, 2, True, True)
    assert "temperature" not in body


async def test_the_probe_measures_how_the_server_counts() -> None:
    async with serving() as fake:
        _, target = await load(fake.url)
    assert target.facts.scale.per_word == pytest.approx(1.0)
    assert target.facts.scale.overhead == pytest.approx(7.0)
    assert target.facts.version == "9.8"
    assert {len(body["messages"][0]["content"].split()) for body in fake.bodies[3:]} == {13}


@pytest.mark.parametrize("running", [True, False])
async def test_running_counts_are_asked_for_where_they_are_given(running: bool) -> None:
    async with serving(running_counts=running) as fake:
        run = await one_run(fake.url)
    assert all(record.has_running_counts == running for record in run.records)
    assert ("continuous_usage_stats" in fake.bodies[-1]["stream_options"]) == running


async def test_a_server_that_refuses_stream_options_is_asked_without() -> None:
    async def strict(server: FakeServer, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if "stream_options" in body:
            writer.write(error(400, "unknown field stream_options"))
        else:
            await stream(server, body, writer)

    async with serving(answer=strict, counts=False) as fake:
        run = await one_run(fake.url)
    figures = summarize(run, LoadConfig(url=fake.url))
    assert (figures["output_token_source"], figures["total_output_tokens"]) == ("chunks", 18)
    assert figures["total_input_tokens"] == 6 * 20  # as asked: nobody counted


async def test_failures_are_named_and_the_others_go_on() -> None:
    numbers = iter(range(100))

    async def mixed(server: FakeServer, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        number = next(numbers) - 3  # two probes and the warm-up
        if number in (0, 1):
            writer.write(error(503, "full"))
        elif number == 2:
            writer.write(STREAM + token("a"))
            writer.close()
        elif number == 3:
            await asyncio.sleep(5)
        elif number == 4:
            writer.write(b"HTTP/9 nonsense\r\n\r\n")
        else:
            await stream(server, body, writer)

    async with serving(answer=mixed) as fake:
        run = await one_run(fake.url, max_concurrency=(1,), num_prompts=8, timeout=0.5)
    causes = {row["cause"]: row["count"] for row in failures(run.records)}
    assert causes == {"HTTP 503": 2, "connection closed": 1, "timeout": 1, "malformed HTTP": 1}
    assert (run.num_done, run.num_failed) == (8, 5)


async def test_a_server_that_closes_after_each_answer() -> None:
    async def closing(server: FakeServer, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await stream(server, body, writer)
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.close()

    async with serving(answer=closing) as fake:
        run = await one_run(fake.url, max_concurrency=(1,))
    assert failures(run.records) == []


async def test_a_body_without_length_ends_with_the_connection() -> None:
    async def old(server: FakeServer, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        data = event({"index": 0, "delta": {"content": "a"}}) + event({"index": 0, "finish_reason": "stop"})
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + data)
        await writer.drain()
        writer.close()

    async with serving(answer=old) as fake:
        run = await one_run(fake.url)
    assert failures(run.records) == []


@pytest.mark.parametrize(
    ("options", "arguments", "words"),
    [
        ({"key": "right"}, {}, "401.*an API key is needed"),
        ({"key": "right"}, {"api_key": "wrong"}, "401.*was refused"),
        ({"answer": "missing"}, {"model": "nope"}, "no model 'nope'.*served: fake"),
        ({"answer": "down"}, {}, "HTTP 500: broken"),
        ({"answer": "page"}, {}, "no event stream"),
    ],
)
async def test_a_target_that_cannot_be_used_is_one_line(
    options: dict[str, Any], arguments: dict[str, Any], words: str
) -> None:
    answers = {
        "missing": error(404, "no such model"), "down": error(500, "broken"), "page": error(200, "hello"),
    }  # fmt: skip

    async def answer(server: FakeServer, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(answers[options["answer"]])

    async with serving(**{**options, **({"answer": answer} if "answer" in options else {})}) as fake:
        with pytest.raises(TargetError, match=words) as caught:
            await load(fake.url, **arguments)
    assert "\n" not in str(caught.value)


async def test_the_right_key_is_let_in() -> None:
    async with serving(key="right") as fake:
        assert (await one_run(fake.url, api_key="right")).num_failed == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nowhere.invalid:80"])
async def test_an_address_where_nothing_listens(url: str) -> None:
    with pytest.raises(TargetError, match="cannot connect"):
        await load(url)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a", "http://", "http://a:99999999", ""])
def test_a_url_of_another_form(url: str) -> None:
    with pytest.raises(ConfigError, match="url must be"):
        Target(LoadConfig(url=url))


async def test_warm_ups_that_all_fail_end_the_run() -> None:
    numbers = iter(range(100))

    async def later(server: FakeServer, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if next(numbers) < 2:
            await stream(server, body, writer)
        else:
            writer.write(error(400, "prompt too long"))

    async with serving(answer=later) as fake:
        with pytest.raises(TargetError, match="every warm-up request failed: HTTP 400: prompt too long"):
            await load(fake.url)


async def test_a_trace_is_replayed_at_its_times(tmp_path: Any) -> None:
    path = tmp_path / "trace.jsonl"
    rows = [{"timestamp": t, "input_length": 20, "output_length": 2} for t in (0, 1000, 1500, 90_000)]
    path.write_text("\n".join(map(json.dumps, rows)))
    options = {"dataset": "mooncake", "dataset_path": str(path), "trace_speed": 10.0, "output_len": None}
    async with serving() as fake:
        run = await one_run(fake.url, duration=5.0, **options)
        all_rows = await one_run(fake.url, num_prompts=3, **options)
    offsets = [record.intended - run.begin for record in run.records]
    assert offsets == pytest.approx([0.0, 0.1, 0.15])
    assert [record.num_tokens for record in run.records] == [2, 2, 2]
    assert len(all_rows.records) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"request_rates": (0.0,)}, "request_rate"), ({"max_concurrency": (0,)}, "max_concurrency"),
        ({"request_rates": (1.0, 2.0), "max_concurrency": (1, 2)}, "max_concurrency"),
        ({"burstiness": 0}, "burstiness"),
        ({"goodput": {"latency": 1.0}}, "ttft, tpot, e2el"), ({"goodput": {"ttft": 0.0}}, "goodput ttft"),
        ({"duration": 5.0}, "duration"), ({"dataset": "azure"}, "dataset_path"),
        ({"dataset_path": "x"}, "dataset_path"),
        ({"input_len": 0}, "input_len"), ({"range_ratio": 1.0}, "range_ratio"), ({"num_prompts": 0}, "num_prompts"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LoadConfig(url="http://127.0.0.1:1", **options)
