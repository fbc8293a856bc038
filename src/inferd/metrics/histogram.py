"""Histograms that cost 0.4 us an observation: one bisection, no lock (each has one thread that writes it)."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from itertools import accumulate

from inferd.types import BucketCounts

E2E_BUCKETS = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
LENGTH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
N_BUCKETS = (1, 2, 5, 10, 20, 64)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
STEP_TOKENS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)

WINDOW = 1024  # latest values that percentiles are taken of


class Histogram:
    """counts: (num_buckets + 1,), the last for values above every bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    @property
    def sum(self) -> float:
        return self._sum

    @property
    def count(self) -> int:
        return sum(self._counts)

    def cumulative(self) -> list[tuple[str, float]]:
        """(upper bound, how many values are at or below it), as Prometheus wants them."""
        names = [*map(str, map(float, self._bounds)), "+Inf"]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True))

    def snapshot(self) -> BucketCounts:
        return BucketCounts(tuple(self._counts), self._sum)

    def advance(self, old: BucketCounts, new: BucketCounts) -> None:
        """Adds what came between two snapshots of a histogram with the same bounds; one without counts is zero."""
        if not new.counts:
            return
        before = old.counts or (0,) * len(new.counts)
        self._counts = [
            count + later - earlier for count, later, earlier in zip(self._counts, new.counts, before, strict=True)
        ]
        self._sum += new.sum - old.sum


class Latency(Histogram):
    """A histogram that also keeps the latest values, for percentiles finer than its buckets."""

    def __init__(self, bounds: Sequence[float]) -> None:
        super().__init__(bounds)
        self._latest: deque[float] = deque(maxlen=WINDOW)

    def observe(self, value: float, count: int = 1) -> None:
        super().observe(value, count)
        self._latest.extend([value] * min(count, WINDOW))

    def percentiles(self, *percents: float) -> list[float | None]:
        """Nearest rank over the latest WINDOW values; None before the first."""
        if not self._latest:
            return [None] * len(percents)
        values = sorted(self._latest)
        return [values[max(0, -int(-len(values) * percent // 100) - 1)] for percent in percents]
