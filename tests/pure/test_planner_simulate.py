"""The simulator against closed forms of queueing theory, and against itself where no closed form is."""

from __future__ import annotations

import math
import random

import pytest

from inferd.planner.capacity import at_rate, goodput, largest, saturated, steady_state
from inferd.planner.queueing import erlang_c, mean_wait, wait_percentile
from inferd.planner.simulate import Limits, Outcome, percentile, simulate
from inferd.planner.workload import Arrival, Workload, trace

TOKENS = 400  # of a mean answer: the grid of steps is then a four-hundredth of a service time
REQUESTS = 250_000


class Steady:
    """Steps of one length, prompts free of charge: with c slots, the queue with c servers."""

    def __init__(self, step: float = 1 / TOKENS, prompt: float = 0.0) -> None:
        self.step, self.prompt = step, prompt

    def decode(self, batch: float, context: float) -> float:
        return self.step

    def prefill(self, tokens: float, cached: float) -> float:
        return tokens * self.prompt

    @property
    def empty_step(self) -> float:
        return 0.0


def waits(servers: int, rate: float, fixed: bool, seed: int) -> list[float]:
    rng, at, arrivals = random.Random(seed), 0.0, []
    for _ in range(REQUESTS):
        at += rng.expovariate(rate)
        # the mean of a rounded-up exponential is half a token longer
        tokens = TOKENS if fixed else math.ceil(rng.expovariate(1 / (TOKENS - 0.5)))
        arrivals.append(Arrival(at, 0, 0, tokens))
    return [outcome.wait for outcome in simulate(arrivals, Steady(), Limits(servers)).outcomes]


@pytest.mark.parametrize(("name", "servers", "load", "fixed"), [
    ("M/M/1", 1, 0.5, False), ("M/D/1", 1, 0.6, True), ("Erlang C", 3, 0.6, False),
])  # fmt: skip
def test_waits_are_those_of_the_textbook(name: str, servers: int, load: float, fixed: bool) -> None:
    rate, seen = load * servers, waits(servers, load * servers, fixed, seed=3)
    expected = mean_wait(servers, rate, 1.0, service_cv=0.0 if fixed else 1.0)
    assert sum(seen) / len(seen) == pytest.approx(expected, rel=0.02), name
    if not fixed:
        assert percentile(seen, 0.99) == pytest.approx(wait_percentile(servers, rate, 1.0, 0.99), rel=0.05)
        share = sum(wait > 1 / TOKENS for wait in seen) / len(seen)
        assert share == pytest.approx(erlang_c(servers, rate), rel=0.02)


def test_closed_forms_know_their_limits() -> None:
    assert erlang_c(1, 0.3) == pytest.approx(0.3)
    assert mean_wait(1, 0.5, 1.0) == pytest.approx(1.0)
    assert mean_wait(1, 0.5, 1.0, service_cv=0) == pytest.approx(0.5)
    assert mean_wait(2, 2.0, 1.0) == math.inf == wait_percentile(2, 2.0, 1.0, 0.99)
    assert wait_percentile(8, 0.5, 1.0, 0.99) == 0.0


def test_every_request_ends_once_and_time_adds_up() -> None:
    workload = Workload(prompt_tokens=300, output_tokens=60, cached_fraction=0.3)
    arrivals = trace(workload, 500, 5.0, random.Random(1))
    run = simulate(arrivals, Steady(0.01, 1e-4), Limits(8, kv_tokens=3000, token_budget=128))
    assert len(run.outcomes) == 450  # a tenth is warm-up
    assert all(0 <= o.wait <= o.ttft <= o.latency + 1e-9 for o in run.outcomes)
    assert all(o.latency == pytest.approx(o.ttft + o.tpot * (o.output - 1)) for o in run.outcomes if o.output > 1)
    assert 0 < run.mean_batch <= 8
    assert sum(n for _, n in run.gaps) == pytest.approx(sum(a.output - 1 for a in arrivals), abs=0)


def test_a_lone_request_takes_its_steps() -> None:
    run = simulate([Arrival(2.0, 1000, 0, 11)], Steady(0.02, 1e-3), Limits(4, token_budget=300))
    (only,) = run.outcomes
    assert only.ttft == pytest.approx(1.0)  # four chunks, 1,000 prompt tokens
    assert only.tpot == pytest.approx(0.02)


def test_a_full_cache_makes_requests_wait() -> None:
    arrivals = [Arrival(0.0, 10, 0, 90)] * 20
    wide, narrow = (simulate(arrivals, Steady(0.01), Limits(20, kv_tokens=kv)) for kv in (math.inf, 500))
    assert max(o.wait for o in wide.outcomes) == 0
    assert max(o.wait for o in narrow.outcomes) == pytest.approx(3 * 0.9, rel=0.05)


def test_more_load_never_helps_and_goodput_is_the_edge() -> None:
    workload, timer = Workload(prompt_tokens=200, output_tokens=50, ttft_s=0.5, tpot_s=0.02), Steady(0.01, 1e-4)
    limits = Limits(16)
    top = saturated(timer, workload, limits).output_rate / workload.output_tokens
    edge = goodput(timer, workload, limits)
    assert 0 < edge < top
    low, high = (
        simulate(trace(workload, 800, rate, random.Random(9)), timer, limits).good_share(0.5, 0.02)
        for rate in (0.5 * edge, 1.2 * top)
    )
    assert low >= 0.99 > high
    assert goodput(timer, Workload(tpot_s=0.001), limits) == 0.0


def test_steady_state_and_rate_agree() -> None:
    workload, timer, limits = Workload(prompt_tokens=200, output_tokens=50), Steady(0.01, 1e-4), Limits(16)
    state = at_rate(timer, workload, limits, 5.0)
    assert state is not None
    assert state.output_rate == pytest.approx(250, rel=1e-6)
    assert steady_state(timer, workload, state.batch) == state
    assert at_rate(timer, workload, limits, 1e6) is None


def test_largest_is_a_bisection() -> None:
    assert largest(lambda x: x <= 0.7, 0.01, 1.0) == pytest.approx(0.7, abs=1e-3)
    assert largest(lambda x: False, 0.01, 1.0) == 0.0


def test_lengths_and_gaps_have_the_mean_and_spread_asked_for() -> None:
    arrivals = trace(Workload(prompt_tokens=1000, length_cv=0.5, arrival_cv=2.0), 40_000, 10.0, random.Random(2))
    prompts = [a.prompt for a in arrivals]
    mean = sum(prompts) / len(prompts)
    spread = math.sqrt(sum((p - mean) ** 2 for p in prompts) / len(prompts))
    assert mean == pytest.approx(1000, rel=0.02)
    assert spread / mean == pytest.approx(0.5, rel=0.05)
    assert arrivals[-1].at / len(arrivals) == pytest.approx(0.1, rel=0.05)


def test_an_outcome_of_one_token_has_no_tpot() -> None:
    run = simulate([Arrival(0.0, 5, 0, 1)], Steady(0.02, 1e-3), Limits(1))
    assert run.outcomes == [Outcome(0.0, 0.005, 0.0, 0.005, 0.0, 1)]
