"""Workload: lengths, arrivals, and the latencies a request must meet."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from inferd.planner.tables import require


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Requests of `prompt_tokens` in and `output_tokens` out on average, `rate` of them a second over the system.

    length_cv and arrival_cv are coefficients of variation: 0 is fixed lengths, arrival_cv 1 a Poisson stream. A
    request is good when its first token comes within ttft_s and its later ones every tpot_s on average.
    """

    prompt_tokens: int = 1000
    output_tokens: int = 300
    rate: float = 1.0  # requests/s
    length_cv: float = 0.5
    arrival_cv: float = 1.0
    cached_fraction: float = 0.0  # of the prompt, found in the prefix cache
    ttft_s: float = 2.0
    tpot_s: float = 0.1

    def __post_init__(self) -> None:
        require("prompt_tokens", self.prompt_tokens, 1, 10_000_000, "tokens")
        require("output_tokens", self.output_tokens, 1, 1_000_000, "tokens")
        require("rate", self.rate, 1e-6, 1e6, "requests/s")
        require("length_cv", self.length_cv, 0, 4)
        require("arrival_cv", self.arrival_cv, 0, 10)
        require("cached_fraction", self.cached_fraction, 0, 0.99)
        require("ttft_s", self.ttft_s, 1e-3, 3600, "s")
        require("tpot_s", self.tpot_s, 1e-4, 60, "s")

    @property
    def mean_context(self) -> float:
        """Tokens a decoding sequence holds on average."""
        return self.prompt_tokens + self.output_tokens / 2

    @property
    def request_tokens(self) -> int:
        return self.prompt_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a trace: seconds, then tokens to compute, found in the cache, and to generate."""

    at: float
    prompt: int
    cached: int
    output: int


def trace(workload: Workload, count: int, rate: float, rng: random.Random) -> list[Arrival]:
    """`count` requests at `rate`; the same generator state gives the same requests at every rate."""
    arrivals, at = [], 0.0
    for _ in range(count):
        at += _gap(workload.arrival_cv, rng) / rate
        prompt = _length(workload.prompt_tokens, workload.length_cv, rng)
        cached = min(prompt - 1, int(prompt * workload.cached_fraction))
        output = _length(workload.output_tokens, workload.length_cv, rng)
        arrivals.append(Arrival(at, prompt - cached, cached, output))
    return arrivals


def _gap(cv: float, rng: random.Random) -> float:
    """Mean 1; gamma of the wanted variation, which is exponential at 1."""
    return 1.0 if cv == 0 else rng.gammavariate(1 / cv**2, cv**2)


def _length(mean: int, cv: float, rng: random.Random) -> int:
    """Log-normal with this mean and variation, at least 1."""
    if cv == 0:
        return mean
    spread = math.sqrt(math.log1p(cv**2))
    return max(1, round(rng.lognormvariate(math.log(mean) - spread**2 / 2, spread)))
