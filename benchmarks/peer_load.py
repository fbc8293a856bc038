"""The load of peers.py on an engine that runs in an environment of its own: needs nothing but the standard library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def measure(seconds: Callable[[list[Any], int], float], prompts: Callable[[int, int], list[Any]], sizes: str) -> None:
    """Prints what peers.py parses. seconds(prompts, tokens out) runs a batch; prompts(count, length) makes one."""
    seconds(prompts(1, 64), 8)
    best = min(seconds(prompts(1, 512), 1) for _ in range(3))
    print(f"pp512 {512 / best:.1f} t/s")
    for size in map(int, sizes.split(",")):
        whole, prefill = [], []
        for _ in range(3):
            batch = prompts(size, 64)
            whole.append(seconds(batch, 33))
            prefill.append(seconds(batch, 1))
        # each at its best: the difference of a pair is wrong by what stalled the shorter run
        print(f"B={size} tg {size * 32 / (min(whole) - min(prefill)):.1f} t/s")
