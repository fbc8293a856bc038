"""The figures of a model that answers calls, an encoder or a predictive one: counts, durations, sizes of batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from inferd.errors import InvalidRequestError, OverloadedError
from inferd.metrics.histogram import BATCH_BUCKETS, Histogram, Latency
from inferd.metrics.requests import Clock

CALL_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
PARTS = ("request", "queue", "compute_infer", "compute_output")
FAILURES = ("refused", "overloaded", "cancelled", "failed")


class CallMetrics:
    """seconds: sums over calls that succeeded, by part; request is the whole, as the gateway sees it."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.num_success = 0
        self.failures = dict.fromkeys(FAILURES, 0)
        self.failed_seconds = 0.0
        self.num_inferences = 0  # rows
        self.num_executions = 0.0  # of the model: one for all calls of a batch
        self.num_pending = 0
        self.last_at = 0.0  # seconds since 1970
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.latencies = {part: Latency(CALL_BUCKETS) for part in PARTS}
        self.batch_sizes = Histogram(BATCH_BUCKETS)  # as each call met it
        self._clock = clock

    @property
    def num_failed(self) -> int:
        return sum(self.failures.values())

    @property
    def is_used(self) -> bool:
        return bool(self.num_success or self.num_failed or self.num_pending)

    @contextmanager
    def timed(self, num_rows: int) -> Iterator[CallTimer]:
        """One call: it succeeds when the block ends, and fails when the block raises."""
        timer, begin = CallTimer(self, num_rows), self._clock()
        self.num_pending += 1
        try:
            yield timer
        except BaseException as error:
            self.failures[_kind(error)] += 1
            self.failed_seconds += self._clock() - begin
            raise
        else:
            self.num_success += 1
            self.num_inferences += num_rows
            self.last_at = time.time()
            self.add("request", self._clock() - begin)
        finally:
            self.num_pending -= 1

    def add(self, part: str, seconds: float) -> None:
        self.seconds[part] += seconds
        self.latencies[part].observe(seconds)


class CallTimer:
    def __init__(self, metrics: CallMetrics, num_rows: int) -> None:
        self._metrics, self._num_rows = metrics, num_rows

    def measured(self, queue: float, compute: float, output: float, batch_size: int) -> None:
        """What the worker says of the call, in seconds; batch_size: rows that were computed together."""
        metrics = self._metrics
        for part, seconds in (("queue", queue), ("compute_infer", compute), ("compute_output", output)):
            metrics.add(part, seconds)
        metrics.batch_sizes.observe(batch_size)
        metrics.num_executions += self._num_rows / max(1, batch_size)  # its share: the calls of a batch add up to one


def _kind(error: BaseException) -> str:
    if isinstance(error, InvalidRequestError):
        return "refused"
    if isinstance(error, OverloadedError):
        return "overloaded"
    left = getattr(error, "status", None) == 499  # the gateway's word for a client that has gone
    return "cancelled" if left or isinstance(error, asyncio.CancelledError) else "failed"
