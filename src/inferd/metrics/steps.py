"""The engine's own figures: what each step took, whom it served, and what that makes for every request.

The recorder is called once a step. In a step of one sequence (2.4 ms) it costs 14 us, 3 us with warm caches; in one of
64 sequences (30 ms) 70 us.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from inferd.metrics.histogram import BATCH_BUCKETS, STEP_TOKENS_BUCKETS, TOKEN_BUCKETS, Histogram
from inferd.types import RequestTimings


class RequestMeter:
    """The moments and the share of one request while it lives; times as time.perf_counter gives them."""

    __slots__ = (
        "arrived_at", "busy", "first_token_at", "last_token_at", "num_output_tokens", "num_preemptions", "scheduled_at",
    )  # fmt: skip

    def __init__(self, arrived_at: float) -> None:
        self.arrived_at = arrived_at
        self.scheduled_at: float | None = None
        self.first_token_at: float | None = None
        self.last_token_at = 0.0
        self.busy = 0.0
        self.num_output_tokens = 0
        self.num_preemptions = 0

    def timings(self, num_prompt_tokens: int, num_cached_tokens: int, now: float) -> RequestTimings:
        """now: the end of what has not ended yet, for a request that is aborted."""
        scheduled = now if self.scheduled_at is None else self.scheduled_at
        first = now if self.first_token_at is None else self.first_token_at
        return RequestTimings(
            queue=scheduled - self.arrived_at,
            prefill=first - scheduled,
            decode=0.0 if self.first_token_at is None else self.last_token_at - first,
            busy=self.busy,
            num_prompt_tokens=num_prompt_tokens,
            num_cached_tokens=num_cached_tokens,
            num_output_tokens=self.num_output_tokens,
            num_preemptions=self.num_preemptions,
        )


Share = tuple[RequestMeter, int, bool]  # of a sequence in a step: its request, tokens computed, whether one is drawn


class StepRecorder:
    """Totals of one engine. Its busy time is all time in which it had requests, so that busy and idle make the whole.

    A step is charged with the time since the step before it, or since the first arrival when there was nothing to do:
    planning and the handling of results are in it.
    """

    def __init__(self, num_threads: int) -> None:
        self._num_threads = num_threads
        self._charged_until = 0.0
        self._num_steps = 0
        self._busy_seconds = 0.0
        self._step_seconds = Histogram(TOKEN_BUCKETS)
        self._batch_size = Histogram(BATCH_BUCKETS)
        self._step_tokens = Histogram(STEP_TOKENS_BUCKETS)
        self._num_drafts = self._num_drafted_tokens = self._num_accepted_tokens = 0
        self._accepted_by_position: list[int] = []

    def wake(self, now: float) -> None:
        """A request came to an engine that had none: what was before is idle time."""
        self._charged_until = now

    def record(self, shares: Sequence[Share], begin: float, end: float) -> None:
        """One step. shares: (num_sequences,), at least one; begin, end: of the executor's call."""
        num_tokens = 0
        for _, count, _ in shares:
            num_tokens += count
        busy = end - self._charged_until
        self._charged_until = end
        per_token = busy / num_tokens
        for meter, count, draws in shares:
            meter.busy += per_token * count
            if meter.scheduled_at is None:
                meter.scheduled_at = begin
            if draws:
                if meter.first_token_at is None:
                    meter.first_token_at = end
                meter.last_token_at = end
        self._num_steps += 1
        self._busy_seconds += busy
        self._step_seconds.observe(end - begin)
        self._batch_size.observe(len(shares))
        self._step_tokens.observe(num_tokens)

    def record_drafts(self, num_drafts: int, num_accepted: int) -> None:
        """The guesses of one sequence in a step, and how many of them were right."""
        self._num_drafts += 1
        self._num_drafted_tokens += num_drafts
        self._num_accepted_tokens += num_accepted
        by_position = self._accepted_by_position
        by_position.extend([0] * (num_accepted - len(by_position)))
        for position in range(num_accepted):
            by_position[position] += 1

    def figures(self) -> dict[str, Any]:
        """Fields of EngineStats."""
        return {
            "num_steps": self._num_steps,
            "num_drafts": self._num_drafts,
            "num_drafted_tokens": self._num_drafted_tokens,
            "num_accepted_tokens": self._num_accepted_tokens,
            "accepted_by_position": tuple(self._accepted_by_position),
            "busy_seconds": self._busy_seconds,
            "cpu_seconds": time.process_time(),
            "num_threads": self._num_threads,
            "step_seconds": self._step_seconds.snapshot(),
            "batch_size": self._batch_size.snapshot(),
            "step_tokens": self._step_tokens.snapshot(),
        }
