"""When an open loop sends."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise

import pytest

from inferd.bench.arrivals import schedule
from inferd.bench.config import Arrival

ARRIVALS: tuple[Arrival, ...] = ("poisson", "gamma", "constant", "burst")


def intervals(offsets: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(offsets)]


@pytest.mark.parametrize("arrival", ARRIVALS)
def test_a_seed_repeats_a_schedule_and_another_does_not(arrival: Arrival) -> None:
    first, again, other = (schedule(50, 4.0, arrival, seed=seed) for seed in ("1", "1", "2"))
    assert first == again
    assert (first != other) == (arrival in ("poisson", "gamma"))
    assert first == sorted(first)
    assert len(first) == 50


@pytest.mark.parametrize("arrival", ["poisson", "gamma"])
def test_the_mean_rate_is_exact(arrival: Arrival) -> None:
    assert schedule(300, 7.0, arrival, burstiness=0.3)[-1] == pytest.approx(300 / 7.0)


def test_poisson_intervals_vary_as_much_as_their_mean() -> None:
    gaps = intervals(schedule(20_000, 10.0, "poisson"))
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("shape", [0.25, 4.0])
def test_burstiness_is_the_shape_of_gamma(shape: float) -> None:
    gaps = intervals(schedule(20_000, 10.0, "gamma", burstiness=shape))
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(1 / math.sqrt(shape), rel=0.08)


def test_constant_and_burst() -> None:
    assert schedule(4, 2.0, "constant") == [0.0, 0.5, 1.0, 1.5]
    assert schedule(5, 4.0, "burst", burst_size=2) == [0.0, 0.0, 0.5, 0.5, 1.0]


def test_an_infinite_rate_sends_all_at_once() -> None:
    assert schedule(3, math.inf, "poisson") == [0.0, 0.0, 0.0]
