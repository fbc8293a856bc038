"""Closed forms of queueing theory: what the simulator is tested against, and quick looks at c servers."""

from __future__ import annotations

import math


def erlang_c(servers: int, load: float) -> float:
    """Probability that an arrival waits, M/M/c; load = arrival rate x mean service time, below `servers`."""
    blocking = 1.0
    for n in range(1, servers + 1):  # Erlang B by recursion: no factorials
        blocking = load * blocking / (n + load * blocking)
    return blocking / (1 - load / servers * (1 - blocking))


def mean_wait(servers: int, rate: float, service: float, service_cv: float = 1.0, arrival_cv: float = 1.0) -> float:
    """Seconds in the queue, Allen-Cunneen; exact for M/M/c and for M/G/1. Infinite at and beyond saturation."""
    load = rate * service
    if load >= servers:
        return math.inf
    waits = erlang_c(servers, load) * service / (servers - load)
    return waits * (arrival_cv**2 + service_cv**2) / 2


def wait_percentile(servers: int, rate: float, service: float, share: float, service_cv: float = 1.0) -> float:
    """Seconds in the queue that `share` of arrivals stay below; exact for M/M/c. Of the wait alone, never of TTFT."""
    load = rate * service
    if load >= servers:
        return math.inf
    waits = erlang_c(servers, load)
    if waits <= 1 - share:
        return 0.0
    return math.log(waits / (1 - share)) * (1 + service_cv**2) / 2 * service / (servers - load)
