"""Discrete-event simulation of one replica: continuous batching, chunked prefill, a bounded KV cache.

Steps in which nothing starts or ends are taken together, so the cost is per event and not per token. With one slot, or
with steps of constant time, the simulator is the queue of the textbooks; the tests hold it to M/M/1, M/D/1, Erlang C.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from inferd.planner.roofline import StepTimer
from inferd.planner.workload import Arrival

WARM_UP = 0.1  # of the requests: left out of every figure


@dataclass(frozen=True, slots=True)
class Limits:
    """What one replica holds: sequences, cached tokens, and tokens in one step."""

    max_batch: int
    kv_tokens: float = math.inf
    token_budget: int = 2048


@dataclass(slots=True)
class _Request:
    arrival: Arrival
    left: int  # prompt tokens still to compute
    started: float = 0.0
    first: float = 0.0
    ends_at_step: int = 0

    @property
    def tokens(self) -> int:
        """Reserved from admission, so that no request is ever thrown out half-way."""
        return self.arrival.prompt + self.arrival.cached + self.arrival.output


@dataclass(frozen=True, slots=True)
class Outcome:
    """One finished request, in seconds."""

    wait: float  # from arrival to the first step that works on it
    ttft: float
    tpot: float  # (end - first token) / (output - 1); 0 for one token
    latency: float
    arrival: float
    output: int


@dataclass(slots=True)
class Simulation:
    """What a run gave; requests of the warm-up are gone."""

    outcomes: list[Outcome]
    mean_batch: float
    seconds: float
    gaps: list[tuple[float, float]]  # seconds between tokens, and how many such gaps

    def good_share(self, ttft_s: float, tpot_s: float) -> float:
        good = sum(o.ttft <= ttft_s and o.tpot <= tpot_s for o in self.outcomes)
        return good / len(self.outcomes)

    def gap_percentile(self, share: float) -> float:
        return _weighted_percentile(self.gaps, share)


def percentile(values: Sequence[float], share: float) -> float:
    """Linear between the two neighbours."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def _weighted_percentile(pairs: Sequence[tuple[float, float]], share: float) -> float:
    ordered, total, seen = sorted(pairs), sum(n for _, n in pairs), 0.0
    for seconds, n in ordered:
        seen += n
        if seen >= share * total:
            return seconds
    return ordered[-1][0] if ordered else 0.0


def simulate(arrivals: Sequence[Arrival], timer: StepTimer, limits: Limits) -> Simulation:
    """Every request of the trace to its end, first come first served."""
    replica = _Replica(timer, limits, arrivals)
    while replica.is_busy:
        replica.step()
    return replica.result()


@dataclass(slots=True)
class _Replica:
    timer: StepTimer
    limits: Limits
    arrivals: Sequence[Arrival]
    now: float = 0.0
    steps: int = 0
    next_arrival: int = 0
    waiting: deque[_Request] = field(default_factory=deque)
    prefilling: deque[_Request] = field(default_factory=deque)
    decoding: list[tuple[int, int, _Request]] = field(default_factory=list)  # by the step that ends each
    context: float = 0.0  # tokens that the decoding hold together
    reserved: float = 0.0
    busy_area: float = 0.0  # sequences x seconds
    outcomes: list[Outcome] = field(default_factory=list)
    gaps: list[tuple[float, float]] = field(default_factory=list)
    ticket: count[int] = field(default_factory=count)

    @property
    def is_busy(self) -> bool:
        return bool(self.next_arrival < len(self.arrivals) or self.waiting or self.prefilling or self.decoding)

    @property
    def num_running(self) -> int:
        return len(self.prefilling) + len(self.decoding)

    def step(self) -> None:
        """Admits what fits, then runs one mixed step, or as many plain decode steps as nothing interrupts."""
        self._receive()
        self._admit()
        if self.prefilling:
            self._mixed_step()
        elif self.decoding:
            self._decode_steps()
        else:
            self.now = self.arrivals[self.next_arrival].at

    def _receive(self) -> None:
        while self.next_arrival < len(self.arrivals) and self.arrivals[self.next_arrival].at <= self.now:
            arrival = self.arrivals[self.next_arrival]
            self.waiting.append(_Request(arrival, arrival.prompt))
            self.next_arrival += 1

    def _can_admit(self, request: _Request) -> bool:
        fits = self.reserved + request.tokens <= self.limits.kv_tokens or self.num_running == 0
        return fits and self.num_running < self.limits.max_batch

    def _admit(self) -> None:
        while self.waiting and self._can_admit(self.waiting[0]):
            request = self.waiting.popleft()
            request.started = self.now
            self.reserved += request.tokens
            if request.left:
                self.prefilling.append(request)
            else:
                self._start_decode(request, first=False)

    def _mixed_step(self) -> None:
        """The decoding advance by one token; the rest of the token budget computes prompts, oldest first."""
        batch = len(self.decoding)
        seconds = self.timer.decode(batch, self.context / batch) if batch else self.timer.empty_step
        room, done = max(1, self.limits.token_budget - batch), []
        while self.prefilling and room > 0:
            request = self.prefilling[0]
            chunk = min(room, request.left)
            seconds += self.timer.prefill(chunk, request.arrival.cached + request.arrival.prompt - request.left)
            request.left -= chunk
            room -= chunk
            if request.left == 0:
                done.append(self.prefilling.popleft())
        self._advance(1, seconds)
        for request in done:
            request.first = self.now
            self._start_decode(request, first=True)

    def _decode_steps(self) -> None:
        """Up to the step that ends a sequence, or the first one after an arrival that could be admitted."""
        batch = len(self.decoding)
        steps = self.decoding[0][0] - self.steps
        first = self.timer.decode(batch, self.context / batch)
        if batch < self.limits.max_batch and self.next_arrival < len(self.arrivals):
            until = self.arrivals[self.next_arrival].at - self.now
            steps = min(steps, max(1, math.ceil(until / first)))
        middle = self.timer.decode(batch, self.context / batch + (steps - 1) / 2) if steps > 1 else first
        self._advance(steps, middle)

    def _advance(self, steps: int, seconds: float) -> None:
        batch = len(self.decoding)
        self.now += steps * seconds
        self.busy_area += self.num_running * steps * seconds
        self.steps += steps
        self.context += steps * batch
        if batch:
            self.gaps.append((seconds, steps * batch))
        while self.decoding and self.decoding[0][0] <= self.steps:
            self._finish(heapq.heappop(self.decoding)[2])

    def _start_decode(self, request: _Request, *, first: bool) -> None:
        """first: the step that ended its prompt gave the first token already."""
        request.ends_at_step = self.steps + request.arrival.output - (1 if first else 0)
        self.context += request.arrival.prompt + request.arrival.cached + (1 if first else 0)
        if request.ends_at_step <= self.steps:
            self._finish(request)
        else:
            heapq.heappush(self.decoding, (request.ends_at_step, next(self.ticket), request))

    def _finish(self, request: _Request) -> None:
        arrival = request.arrival
        self.context -= request.tokens
        self.reserved -= request.tokens
        first = request.first or request.started
        tpot = (self.now - first) / (arrival.output - 1) if arrival.output > 1 else 0.0
        wait, latency = request.started - arrival.at, self.now - arrival.at
        self.outcomes.append(Outcome(wait, first - arrival.at, tpot, latency, arrival.at, arrival.output))

    def result(self) -> Simulation:
        ordered = sorted(self.outcomes, key=lambda outcome: outcome.arrival)
        kept = ordered[int(WARM_UP * len(ordered)) :]
        mean_batch = self.busy_area / self.now if self.now else 0.0
        return Simulation(kept, mean_batch, self.now, self.gaps)
