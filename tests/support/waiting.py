"""Waiting for a server, with an end."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx


def until(condition: Callable[[], object], seconds: float = 5.0) -> float:
    """Seconds it took; fails when it takes longer."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, "not within the time"
        time.sleep(0.02)
    return time.monotonic() - begin


def until_running(url: str, count: int) -> None:
    """Until so many requests run, over all models."""
    until(lambda: num_running(url) == count)


def num_running(url: str) -> int:
    return sum(model["num_running"] for model in httpx.get(url + "/inferd/state").json()["models"])
