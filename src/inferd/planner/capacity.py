"""Steady state and service level of one replica: step time at a batch, operating point at a rate, goodput."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from inferd.planner.roofline import StepTimer
from inferd.planner.simulate import Limits, Simulation, percentile, simulate
from inferd.planner.workload import Workload, trace

GOOD_SHARE = 0.99  # of the requests meet every latency, at the goodput
SEED = 20261125
_BISECTIONS = 10


@dataclass(frozen=True, slots=True)
class SteadyState:
    """One replica that holds `batch` decoding sequences all the time."""

    batch: float
    decode_s: float  # a step without prompts: the gap between tokens that most tokens see
    prefill_s: float  # prompt work that falls to each step
    output_rate: float  # tokens/s

    @property
    def step_s(self) -> float:
        return self.decode_s + self.prefill_s


def steady_state(timer: StepTimer, workload: Workload, batch: float) -> SteadyState:
    """Each sequence that ends is followed by another, so a step carries batch / output_tokens prompts."""
    decode = timer.decode(batch, workload.mean_context)
    prompts = batch / workload.output_tokens * prompt_seconds(timer, workload)
    return SteadyState(batch, decode, prompts, batch / (decode + prompts))


def prompt_seconds(timer: StepTimer, workload: Workload) -> float:
    """Device time of one mean prompt, beside decoding."""
    cached = workload.prompt_tokens * workload.cached_fraction
    return timer.prefill(workload.prompt_tokens - cached, cached)


def idle_ttft(timer: StepTimer, workload: Workload) -> float:
    """A prompt that has the replica to itself."""
    return timer.empty_step + prompt_seconds(timer, workload)


def typical_ttft(timer: StepTimer, workload: Workload, limits: Limits, state: SteadyState) -> float:
    """Without a queue: the rest of the running step, then the steps that compute the prompt beside `state`."""
    room = max(1.0, limits.token_budget - state.batch)
    chunks = math.ceil(workload.prompt_tokens * (1 - workload.cached_fraction) / room)
    base = state.decode_s if state.batch else timer.empty_step
    return state.step_s / 2 + chunks * base + prompt_seconds(timer, workload)


def saturated(timer: StepTimer, workload: Workload, limits: Limits) -> SteadyState:
    """The most tokens a second, whatever the latency."""
    return steady_state(timer, workload, max_batch(workload, limits))


def max_batch(workload: Workload, limits: Limits) -> float:
    held = limits.kv_tokens / workload.request_tokens
    return max(1.0, min(limits.max_batch, held))


def at_rate(timer: StepTimer, workload: Workload, limits: Limits, rate: float) -> SteadyState | None:
    """Where `rate` requests/s settle (Little's law); None when the replica cannot keep up."""
    wanted = rate * workload.output_tokens
    top = max_batch(workload, limits)
    if steady_state(timer, workload, top).output_rate < wanted:
        return None
    low, high = 0.0, top
    for _ in range(50):
        middle = (low + high) / 2
        if steady_state(timer, workload, middle).output_rate < wanted:
            low = middle
        else:
            high = middle
    return steady_state(timer, workload, high)


@dataclass(frozen=True, slots=True)
class ServiceLevel:
    """Latencies of a simulated run, in seconds, and the share of requests that met every target."""

    rate: float
    requests: int
    ttft_p50: float
    ttft_p99: float
    tpot_p50: float
    tpot_p99: float
    gap_p99: float
    wait_p99: float
    mean_batch: float
    good_share: float


def run_trace(timer: StepTimer, workload: Workload, limits: Limits, rate: float, requests: int) -> Simulation:
    return simulate(trace(workload, requests, rate, random.Random(SEED)), timer, limits)


def service_level(
    timer: StepTimer, workload: Workload, limits: Limits, rate: float, requests: int = 2000
) -> ServiceLevel:
    """One replica at `rate` requests/s. A p99 stands on `requests` / 100 requests."""
    run = run_trace(timer, workload, limits, rate, requests)
    ttft = [o.ttft for o in run.outcomes]
    tpot = [o.tpot for o in run.outcomes]
    return ServiceLevel(
        rate=rate,
        requests=len(run.outcomes),
        ttft_p50=percentile(ttft, 0.5),
        ttft_p99=percentile(ttft, 0.99),
        tpot_p50=percentile(tpot, 0.5),
        tpot_p99=percentile(tpot, 0.99),
        gap_p99=run.gap_percentile(0.99),
        wait_p99=percentile([o.wait for o in run.outcomes], 0.99),
        mean_batch=run.mean_batch,
        good_share=run.good_share(workload.ttft_s, workload.tpot_s),
    )


def goodput(timer: StepTimer, workload: Workload, limits: Limits, requests: int = 800) -> float:
    """Requests/s of one replica, the most at which GOOD_SHARE meet every latency; 0 when not even a lone one does."""

    def is_good(rate: float) -> bool:
        run = run_trace(timer, workload, limits, rate, requests)
        return run.good_share(workload.ttft_s, workload.tpot_s) >= GOOD_SHARE

    top = saturated(timer, workload, limits).output_rate / workload.output_tokens
    return largest(is_good, top / 1000, top)


def largest(is_good: Callable[[float], bool], low: float, high: float) -> float:
    """By bisection, to (high - low) / 2^10; `is_good` is taken to turn false once."""
    if not is_good(low):
        return 0.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_good(middle) else (low, middle)
    return low
