"""Calls gathered into batches: one queue by priority, bounded, with deadlines; any number of threads take from it."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from inferd.errors import OverloadedError
from inferd.worker.protocol import Call


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPolicy:
    max_batch: int = 32  # cost of a batch: rows, or tokens; a call that costs more goes alone
    max_delay: float = 0.0  # seconds that the first call of a batch waits for others
    max_queue: int = 1024  # calls that wait

    @property
    def is_patient(self) -> bool:
        return self.max_delay > 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pending:
    """A call that waits. Only calls of one group are computed together. payload: whatever the service prepared."""

    call: Call
    cost: int = 1
    group: Hashable = None
    priority: int = 0  # lower runs first; equal ones by arrival
    deadline: float | None = None  # by time.monotonic: not started by then, it fails
    payload: Any = None
    arrived: float = field(default_factory=time.monotonic)

    @property
    def is_expired(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def patient_until(self, max_delay: float) -> float:
        """When it stops to wait for others: long enough before its deadline to start in time."""
        until = self.arrived + max_delay
        return until if self.deadline is None else min(until, (self.arrived + self.deadline) / 2)


class Batcher:
    def __init__(self, policy: BatchPolicy) -> None:
        self.policy = policy
        self._queue: list[Pending] = []  # in the order of execution
        self._changed = threading.Condition()

    @property
    def num_waiting(self) -> int:
        return len(self._queue)

    def put(self, pending: Pending) -> None:
        """Raises OverloadedError when the queue is full."""
        with self._changed:
            if len(self._queue) >= self.policy.max_queue:
                raise OverloadedError(f"{self.policy.max_queue} calls are waiting already.", retry_after=1.0)
            at = len(self._queue)
            while at and self._queue[at - 1].priority > pending.priority:
                at -= 1
            self._queue.insert(at, pending)
            self._changed.notify()

    def cancel(self, call_id: str) -> None:
        with self._changed:
            self._queue = [pending for pending in self._queue if pending.call.call_id != call_id]

    def take(self) -> tuple[list[Pending], list[Pending]]:
        """Blocks until there is something: (a batch of one group, calls whose deadline passed)."""
        with self._changed:
            while True:
                while not self._queue:
                    self._changed.wait()
                expired = [pending for pending in self._queue if pending.is_expired]
                self._remove(expired)
                batch, wait = self._gather()
                if batch and wait <= 0:
                    self._remove(batch)
                    return batch, expired
                if expired:
                    return [], expired
                self._changed.wait(wait)

    def _remove(self, taken: list[Pending]) -> None:
        if not taken:
            return
        gone = set(taken)
        self._queue = [pending for pending in self._queue if pending not in gone]
        if self._queue:
            self._changed.notify()  # what is left may be for a thread that sleeps

    def _gather(self) -> tuple[list[Pending], float]:
        """The batch that would run now, and how long it may still wait to be fuller."""
        if not self._queue:
            return [], 0.0
        first, cost = self._queue[0], 0
        batch: list[Pending] = []
        for pending in self._queue:
            if pending.group != first.group:
                continue
            if batch and cost + pending.cost > self.policy.max_batch:
                return batch, 0.0
            batch.append(pending)
            cost += pending.cost
        if cost >= self.policy.max_batch or not self.policy.is_patient:
            return batch, 0.0
        return batch, min(pending.patient_until(self.policy.max_delay) for pending in batch) - time.monotonic()
