"""Tenants share the engine by weight, a flood harms nobody else, and background runs in what the foreground leaves."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from inferd.engine.clock import Room, StepClock
from inferd.engine.engine import Engine
from inferd.executors.base import StepBatch, StepResult
from support.sleepy_engine import Sleeper
from support.tiny_engine import engine_on, request

MAX_LEN = 1024
SECONDS_PER_ROW, SECONDS_PER_PROMPT_ROW = 0.0004, 0.0002


class Timed(Sleeper):
    """Steps take no time at all but are said to take some, so that a test is fast and exact."""

    def step(self, batch: StepBatch) -> StepResult:
        self.step_seconds = 0.0
        return super().step(batch)


class Run:
    """An engine whose clock knows what a step costs, and what each tenant got of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **config: object) -> None:
        monkeypatch.undo()
        executor = Timed(num_blocks=config.pop("num_blocks", 1024), max_num_batched_tokens=256)
        self.engine: Engine = engine_on(executor, MAX_LEN, **{"speculative": "off", **config})
        for num_rows in [*range(1, 30)] * 20:
            self.engine._clock.observe(num_rows, 0, 0.002 + SECONDS_PER_ROW * num_rows)
        self.engine._clock.observe(0, 100, 100 * SECONDS_PER_PROMPT_ROW)
        monkeypatch.setattr(StepClock, "observe", lambda *args: None)
        self.num_tokens: Counter[str] = Counter()  # drawn, by the first letter of the request
        self.first_step: dict[str, int] = {}  # of a request: the step that drew its first token
        self.num_steps = 0
        self.finished: set[str] = set()

    def add(self, name: str, num_prompt: int = 8, max_tokens: int = 100, **options: object) -> None:
        prompt = [random.Random(name).randrange(256) for _ in range(num_prompt)]
        one = request(name, prompt, max_tokens=max_tokens, ignore_eos=True)
        self.engine.add(replace(one, **{"tenant": name[0], **options}))

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.num_steps += 1
            for event in self.engine.step():
                self.num_tokens[event.request_id[0]] += len(event.token_ids)
                self.first_step.setdefault(event.request_id, self.num_steps)
                if event.finish_reason is not None:
                    self.finished.add(event.request_id)
            self.engine.check()

    def flood(self, count: int, **options: object) -> None:
        for i in range(count):
            self.add(f"f{i}", **{"num_prompt": 64, "max_tokens": 800, **options})


def test_tenants_share_by_weight(monkeypatch):
    run = Run(monkeypatch)
    for i in range(20):
        run.add(f"a{i}", max_tokens=900)
        run.add(f"b{i}", max_tokens=900, weight=3.0)
    run.steps(400)
    before = dict(run.num_tokens)
    run.steps(400)
    a, b = (run.num_tokens[name] - before[name] for name in "ab")
    assert b / a == pytest.approx(3.0, rel=0.1)


def test_equal_weights_get_equal_service_whatever_they_ask_for(monkeypatch):
    run = Run(monkeypatch, max_num_seqs=16)
    for i in range(4):
        run.add(f"a{i}", max_tokens=900)
    run.flood(64)
    run.steps(200)
    before = dict(run.num_tokens)
    run.steps(400)
    a, f = (run.num_tokens[name] - before[name] for name in "af")
    assert f / a == pytest.approx(1.0, rel=0.1)


def test_alone_a_tenant_has_everything(monkeypatch):
    run = Run(monkeypatch, max_num_seqs=32)
    run.flood(64)
    run.steps(100)
    before = run.num_tokens["f"]
    run.steps(20)
    assert run.num_tokens["f"] - before == 20 * 32


def test_a_newcomer_finds_a_slot_at_once_though_a_flood_holds_them_all(monkeypatch):
    run = Run(monkeypatch, max_num_seqs=8)
    run.flood(64)
    run.steps(40)
    run.add("a", num_prompt=100)
    run.steps(1)
    assert run.first_step["a"] == 41
    assert run.engine.stats().num_preemptions == 1


def test_a_newcomer_finds_blocks_at_once_though_a_flood_holds_them_all(monkeypatch):
    run = Run(monkeypatch, num_blocks=64)
    run.flood(64, num_prompt=200)
    run.steps(40)
    run.add("a", num_prompt=160)
    run.steps(1)
    assert run.first_step["a"] == 41


def test_beside_a_flood_the_others_run_as_without_it(monkeypatch):
    """The steps get at most 1.15 times as long, but for one row that every tenant has."""
    run = Run(monkeypatch)
    run.flood(64)
    run.steps(20)
    for name in "abcdeghi":
        run.add(name, max_tokens=300)
    run.steps(50)
    before = dict(run.num_tokens)
    run.steps(200)
    assert all(run.num_tokens[name] - before[name] == 200 for name in "abcdeghi")
    num_rows = (run.num_tokens["f"] - before["f"]) / 200
    assert 1 <= num_rows <= 0.15 * (0.002 + 8 * SECONDS_PER_ROW) / SECONDS_PER_ROW


def test_a_tenant_with_one_request_is_never_held_back(monkeypatch):
    run = Run(monkeypatch)
    for name in "abc":
        run.add(name, max_tokens=200)
    run.add("d", num_prompt=900, max_tokens=50)
    run.steps(60)
    assert run.num_tokens["d"] == 50


def test_who_comes_back_has_no_credit_of_before(monkeypatch):
    """b did nothing while a worked; it may be one window ahead, and shares equally from there on."""
    run = Run(monkeypatch)
    for i in range(8):
        run.add(f"a{i}", max_tokens=900)
    run.steps(400)
    for i in range(8):
        run.add(f"b{i}", max_tokens=900)
    run.steps(100)
    before = dict(run.num_tokens)
    run.steps(200)
    a, b = (run.num_tokens[name] - before[name] for name in "ab")
    assert b / a == pytest.approx(1.0, rel=0.15)


def test_within_a_tenant_the_first_comes_first(monkeypatch):
    run = Run(monkeypatch, max_num_seqs=2)
    for i in range(6):
        run.add(f"a{i}", max_tokens=5)
        run.add(f"b{i}", max_tokens=5)
    run.steps(100)
    for tenant in "ab":
        firsts = [run.first_step[f"{tenant}{i}"] for i in range(6)]
        assert firsts == sorted(firsts)


def test_background_alone_runs_at_full_speed(monkeypatch):
    run = Run(monkeypatch, max_num_seqs=32)
    for i in range(32):
        run.add(f"b{i}", max_tokens=100, is_background=True)
    run.steps(10)
    before = run.num_tokens["b"]
    run.steps(10)
    assert run.num_tokens["b"] - before == 10 * 32


def test_background_takes_what_the_foreground_leaves(monkeypatch):
    run = Run(monkeypatch, max_num_seqs=32)
    for i in range(28):
        run.add(f"b{i}", max_tokens=900, is_background=True)
    run.steps(10)
    for i in range(4):
        run.add(f"a{i}", max_tokens=300)
    run.steps(5)
    before = dict(run.num_tokens)
    run.steps(254)
    assert run.num_tokens["a"] - before["a"] == 254 * 4
    share = 0.15 * (0.002 + 4 * SECONDS_PER_ROW) / SECONDS_PER_ROW
    assert run.num_tokens["b"] - before["b"] == pytest.approx(254 * share, abs=2)
    assert run.engine.stats().num_running == 32  # the others keep their blocks
    assert run.engine.stats().num_preemptions == 0


def test_where_a_row_is_too_much_for_each_step_background_gets_one_in_most(monkeypatch):
    run = Run(monkeypatch)
    run.add("b", max_tokens=900, is_background=True)
    run.add("a", max_tokens=900)
    run.steps(200)
    before = run.num_tokens["b"]
    run.steps(200)
    share = 0.15 * (0.002 + SECONDS_PER_ROW) / SECONDS_PER_ROW
    assert run.num_tokens["b"] - before == pytest.approx(200 * share, abs=2)


def test_background_gives_way_when_the_foreground_needs_blocks_or_slots(monkeypatch):
    for config in ({"num_blocks": 80}, {"max_num_seqs": 6}):
        run = Run(monkeypatch, **config)
        run.add("a-early", num_prompt=16, max_tokens=700)
        for i in range(6):
            run.add(f"b{i}", num_prompt=150, max_tokens=100, is_background=True)
        run.steps(300)
        for i in range(4):
            run.add(f"a{i}", num_prompt=50, max_tokens=200)
        run.steps(2)
        assert {f"a{i}" for i in range(4)} <= set(run.first_step)
        run.steps(4000)
        assert len(run.finished) == 11


def test_the_line_of_rows_finds_what_a_row_costs_though_steps_vary():
    clock, rng = StepClock(), random.Random(3)
    for _ in range(400):
        num_rows = rng.choice((4, 5, 5, 6))
        seconds = (0.002 + 0.0004 * num_rows) * rng.uniform(0.9, 1.1)
        clock.observe(num_rows, 0, seconds * 40 if rng.random() < 0.01 else seconds)
    assert clock.row_seconds(0)[0] == pytest.approx(0.0004, rel=0.5)
    assert clock.step_seconds(4, 0) == pytest.approx(0.0036, rel=0.1)
    for _ in range(1000):  # all alike: the slope stays
        clock.observe(5, 0, 0.008)
    assert clock.step_seconds(5, 0) == pytest.approx(0.008, rel=0.02)
    assert 0.0002 < clock.row_seconds(0)[0] < 0.0016


def test_room_of_a_step_nobody_has_measured():
    room = Room(StepClock())
    room.open(4, 0)
    assert room.rows(1, 4, 0) == room.rows(100, 4, 0) == 0
    room.open(0, 0)
    assert room.rows(100, 0, 0) == 100
