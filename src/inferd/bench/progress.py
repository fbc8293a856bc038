"""What a person sees while a load runs; on stderr, since stdout may be read by a program."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from inferd.bench.load import Run

LINE_SECONDS = 10.0  # between two lines where there is no terminal


@contextmanager
def progress(num_runs: int) -> Iterator[Callable[[Run], None]]:
    """A bar on a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _line_progress()
        return
    from rich.console import Console
    from rich.progress import Progress

    # drawn by the ticks alone: a thread that draws would disturb the times
    with Progress(console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        tasks: dict[int, Any] = {}

        def show(run: Run) -> None:
            if id(run) not in tasks:
                tasks[id(run)] = bar.add_task(f"run {len(tasks) + 1} of {num_runs}")
            task = tasks[id(run)]
            bar.update(task, total=run.num_expected, completed=run.num_done, description=state(run), refresh=True)

        yield show


def _line_progress() -> Callable[[Run], None]:
    last = time.monotonic()

    def show(run: Run) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            expected = f" of {run.num_expected}" if run.num_expected else ""
            print(f"{run.num_done}{expected} requests done, {state(run)}", file=sys.stderr, flush=True)

    return show


def state(run: Run) -> str:
    load = "all at once" if math.isinf(run.request_rate) else f"{run.request_rate:g} req/s"
    if run.is_closed_loop:
        load = f"{run.max_concurrency} clients"
    failed = f", {run.num_failed} failed" if run.num_failed else ""
    return f"{load}: {run.num_in_flight} running, {run.num_tokens} tokens{failed}"
