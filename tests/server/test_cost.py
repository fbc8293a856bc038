"""The cost meter: what requests and idle time cost is what the host costs, in answers, metrics, ledger and export."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from inferd.cli.usage import usage
from inferd.errors import ConfigError
from inferd.gateway.config import ModelConfig, ServerConfig
from inferd.ledger.database import Ledger, ledger_path, reading
from inferd.ledger.usage import UsageLedger, usage_sums
from inferd.metrics.model import HostPeriod
from inferd.models.store import store_dir
from support.server import running

PRICE = 3.6  # an hour, so 0.001 a second
SLEEPY = {"worker_factory": "support.sleepy_engine:build", "price_per_hour": PRICE, "currency": "EUR"}
BODY = {"prompt": "a" * 40, "max_tokens": 40, "ignore_eos": True}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INFERD_HOME", str(tmp_path))
    return tmp_path


class Lifetime:
    """How long a server lived, between what is sure and what is possible."""

    def __init__(self) -> None:
        self.least = self.most = 0.0


@contextmanager
def served(**options: Any) -> Iterator[tuple[str, Lifetime]]:
    """A server that is ended as an operator ends it; its lifetime is known after the block."""
    with running(**{**SLEEPY, **options}) as (url, process):
        life = Lifetime()
        yield url, life
        asked_at = time.monotonic()
        uptime = httpx.get(url + "/inferd/state", headers={"x-api-key": "a"}).json()["uptime"]
        life.least = uptime + time.monotonic() - asked_at - 0.05
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        life.most = uptime + time.monotonic() - asked_at


async def mixed_load(url: str) -> None:
    """Streams and whole answers of two tenants, side by side; some clients leave, some requests are wrong."""
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:

        async def ask(number: int) -> None:
            body = {**BODY, "stream": number % 2 == 0, "n": 1 + number % 3, "max_tokens": 10 + 3 * number}
            headers = {"x-api-key": "ab"[number % 2]}
            leaves = number % 5 == 4
            if leaves:  # long before the end, and long after the request has come
                body["max_tokens"] = 200
            call = client.post("/v1/completions", json=body, headers=headers)
            if leaves:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(call, 0.1)
            else:
                assert (await call).status_code == 200

        await asyncio.gather(*(ask(number) for number in range(20)))
        wrong = {**BODY, "max_tokens": 10**6}
        assert (await client.post("/v1/completions", json=wrong, headers={"x-api-key": "a"})).status_code == 400


def test_requests_and_idle_time_cost_what_the_host_costs() -> None:
    with served(api_keys=["a", "b"], engine={"speculative": "off"}) as (url, life):
        asyncio.run(mixed_load(url))
        time.sleep(0.5)
        asyncio.run(mixed_load(url))
        time.sleep(0.3)
        states = [httpx.get(url + "/inferd/state", headers={"x-api-key": key}).json() for key in ("a", "b")]
    (model,), (others,) = (state["models"] for state in states)
    rows = list(csv.DictReader(io.StringIO(CliRunner().invoke(usage, ["export"]).output)))
    cost = {kind: sum(float(row["cost"]) for row in rows if row["kind"] == kind) for kind in ("request", "idle")}
    # all together: price x time
    assert 0.99 * life.least < sum(cost.values()) / PRICE * 3600 < 1.01 * life.most
    # requests alone: the engine's busy time, also what clients that left had used
    assert cost["request"] == pytest.approx(model["busy_seconds"] * PRICE / 3600, rel=0.01)
    assert model["busy_seconds"] > 0.2
    assert {row["finish_reason"] for row in rows if row["kind"] == "request"} == {"length", "abort"}
    assert sum(row["kind"] == "request" for row in rows) == 40
    assert {row["currency"] for row in rows} == {"EUR"}
    by_tenant = {**model["cost"]["by_tenant"], **others["cost"]["by_tenant"]}  # each sees its own
    assert len(by_tenant) == 2
    assert sum(by_tenant.values()) == pytest.approx(cost["request"])
    assert model["cost"]["busy"] == pytest.approx(cost["request"], rel=0.01)


def test_an_answer_tells_its_cost_and_its_times() -> None:
    with served() as (url, _):
        whole = httpx.post(url + "/v1/completions", json={**BODY, "return_timings": True}).json()
        asked = {**BODY, "return_timings": True, "stream": True}
        plain = events(httpx.post(url + "/v1/completions", json=asked).text)
        asked["stream_options"] = {"include_usage": True}
        counted = events(httpx.post(url + "/v1/completions", json=asked).text)
        two = {**BODY, "prompt": ["a", "b"], "return_timings": True}
        several = httpx.post(url + "/v1/completions", json=two).json()
        silent = httpx.post(url + "/v1/completions", json=BODY).json()
        state = httpx.get(url + "/inferd/state").json()
    for body in (whole, counted[-1], several):
        timings, used = body["timings"], body["usage"]
        assert used["cost"] == pytest.approx(timings["busy"] * PRICE / 3600)
        assert used["currency"] == "EUR"
        assert timings["busy"] >= 30 * 0.002 / 9  # a step emits at most 9 tokens
        assert timings["e2e"] >= timings["ttft"] > 0
    times = whole["timings"]
    assert times["e2e"] > times["queue"] + times["prefill"] + times["decode"]
    assert ["timings" in event for event in plain] == [False] * (len(plain) - 1) + [True]
    assert ["timings" in event for event in counted] == [False] * (len(counted) - 1) + [True]
    assert "timings" not in silent
    assert silent["usage"]["cost"] > 0
    assert state["currency"] == "EUR"
    assert state["requests"][0]["cost"] == pytest.approx(whole["usage"]["cost"])
    told = sum(one["usage"]["cost"] for one in (whole, counted[-1], several, silent))
    assert told < sum(request["cost"] for request in state["requests"])  # that and the stream without usage


def events(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_without_a_price_nothing_is_priced_or_kept(home: Path) -> None:
    with served(price_per_hour=None) as (url, _):
        answer = httpx.post(url + "/v1/completions", json=BODY).json()
        state = httpx.get(url + "/inferd/state").json()
        metrics = httpx.get(url + "/metrics").text
    assert "cost" not in answer["usage"]
    assert (state["currency"], state["models"][0]["cost"], state["requests"][0]["cost"]) == (None, None, None)
    assert "request_cost_total{" not in metrics
    assert not (home / "ledger.db").exists()
    result = CliRunner().invoke(usage, ["export"])
    assert isinstance(result.exception, ConfigError)
    assert str(home) in str(result.exception)


def test_usage_is_kept_without_a_price_when_asked() -> None:
    with served(price_per_hour=None, usage_ledger=True) as (url, _):
        httpx.post(url + "/v1/completions", json=BODY)
    (request,) = [row for row in json.loads(CliRunner().invoke(usage, ["show", "--json"]).output)
                  if row["kind"] == "request"]  # fmt: skip
    assert (request["num_requests"], request["num_prompt_tokens"], request["num_output_tokens"]) == (1, 40, 40)
    assert (request["cost"], request["tenant"]) == (0, "")


def test_prices_of_a_host_that_was_bought() -> None:
    config = ServerConfig(
        models=(ModelConfig(model="a"),), purchase_price=8766, amortisation_years=2, power_watts=500,
        electricity_price=0.4,
    )  # fmt: skip
    assert config.host_price is not None
    assert config.host_price.per_hour == pytest.approx(0.5 + 0.2)
    assert config.keeps_usage


@pytest.mark.parametrize(("options", "words"), [
    ({"price_per_hour": -1}, "price_per_hour must be from 0"),
    ({"price_per_hour": 1, "purchase_price": 1}, "exclude each other"),
    ({"purchase_price": 1, "amortisation_years": 0}, "amortisation_years must be from 0.1 to 50"),
    ({"power_watts": 5}, "need purchase_price"),
    ({"currency": "euro"}, "currency must be three capital letters"),
    ({"sla_ttft": 0}, "sla_ttft must be from 0.001 to 3600"),
    ({"models": (ModelConfig(model="a", sla_itl=9999),)}, "sla_itl must be from 0.001 to 3600"),
])  # fmt: skip
def test_a_wrong_option_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ServerConfig(**{"models": (ModelConfig(model="a"),), **options})


@pytest.mark.parametrize("value", [0, -1, 3601, "x"])
@pytest.mark.parametrize("name", ["ttft_target", "itl_target"])
def test_a_wrong_target_is_refused(url: str, name: str, value: Any) -> None:
    answer = httpx.post(url + "/v1/completions", json={"prompt": "a", name: value})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


@pytest.mark.parametrize("variable", ["INFERD_HOME", "XDG_DATA_HOME", "HOME"])
def test_the_ledger_is_beside_the_models(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INFERD_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    assert ledger_path() == store_dir().parent / "ledger.db"
    assert ledger_path().is_relative_to(tmp_path)


def test_a_ledger_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ledger.db"
    first = Ledger(path, ["CREATE TABLE IF NOT EXISTS t (x)"])
    with pytest.raises(ConfigError, match="another server writes"):
        Ledger(path, [])
    for x in range(1000):
        first.write("INSERT INTO t VALUES (?)", (x,))
    first.close()
    second = Ledger(path, ["CREATE TABLE IF NOT EXISTS t (x)"])  # the lock is free, and the rows are still there
    with reading(path) as connection:
        assert connection.execute("SELECT count(*), sum(x) FROM t").fetchone() == (1000, 499500)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("INSERT INTO t VALUES (1)")
    second.close()


def test_a_bad_row_harms_no_other(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(path, ["CREATE TABLE t (x NOT NULL)"])
    ledger.write("INSERT INTO t VALUES (?)", (None,))
    time.sleep(0.2)
    ledger.write("INSERT INTO t VALUES (?)", (1,))
    ledger.close()
    with reading(path) as connection:
        assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]


def test_two_servers_share_no_ledger(capfd: pytest.CaptureFixture[str]) -> None:
    with served() as (url, _):
        assert url
        with running(**SLEEPY) as (other, process):
            assert (other, process.wait(20)) == ("", 1)
    assert "set INFERD_HOME to another folder" in capfd.readouterr().err


def test_spans_of_an_export(tmp_path: Path) -> None:
    ledger = UsageLedger(tmp_path / "ledger.db", "USD")
    for day in (0, 1, 2):
        ledger.add_period(HostPeriod(model="m", begin=day * 86400.0, seconds=60, busy=15, per_hour=3600))
    ledger.close()
    assert usage_sums(tmp_path / "ledger.db", 86400, 2 * 86400)["idle", "m", "", "USD"].cost == 45
    for options, num_rows in (([], 3), (["--since", "1970-01-02"], 2), (["--until", "1970-01-01T00:00:01"], 1),
                              (["--since", "1970-01-02", "--until", "1970-01-03T00:00+01:00"], 1)):  # fmt: skip
        result = CliRunner().invoke(usage, ["export", *options])
        assert result.exit_code == 0, result.output
        assert len(result.output.splitlines()) == 1 + num_rows
    assert CliRunner().invoke(usage, ["export", "--since", "soon"]).exit_code == 2
    table = CliRunner().invoke(usage, ["show"]).output.splitlines()
    assert table[1].split() == ["idle", "m", "-", "-", "-", "-", "-", "135.0", "135.000000", "USD"]
