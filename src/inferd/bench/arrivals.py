"""When an open loop sends: offsets in seconds from the begin of a run, repeatable by seed."""

from __future__ import annotations

import math
import random
from itertools import accumulate

from inferd.bench.config import Arrival


def schedule(
    count: int, rate: float, arrival: Arrival, *, burstiness: float = 1.0, burst_size: int = 8, seed: str = "0"
) -> list[float]:
    """(count,) ascending offsets; the mean rate is exact: Poisson is conditioned on `count` arrivals in count / rate.

    gamma: intervals of shape `burstiness`. burst: `burst_size` requests at one instant, evenly spaced instants.
    """
    if math.isinf(rate):
        return [0.0] * count
    if arrival == "constant":
        return [index / rate for index in range(count)]
    if arrival == "burst":
        return [index // burst_size * burst_size / rate for index in range(count)]
    shape = burstiness if arrival == "gamma" else 1.0
    rng = random.Random(f"{seed}/arrivals")
    intervals = [rng.gammavariate(shape, 1.0) for _ in range(count)]
    scale = count / rate / sum(intervals)
    return [offset * scale for offset in accumulate(intervals)]
