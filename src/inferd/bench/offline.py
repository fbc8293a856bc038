"""An engine in this process by batch size: what prefill and decode reach without HTTP, and each request's latency."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from inferd.bench.metrics import statistics
from inferd.errors import ConfigError, EngineError
from inferd.types import GenerateRequest, SamplingParams, TokenEvent


class Engine(Protocol):
    """What is used of an engine."""

    @property
    def has_work(self) -> bool: ...
    def add(self, request: GenerateRequest) -> None: ...
    def step(self) -> list[TokenEvent]: ...
    def abort(self, request_id: str) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineConfig:
    """Raises ConfigError."""

    batch_sizes: tuple[int, ...] = (1, 8, 32)
    input_len: int = 128  # tokens
    output_len: int = 64
    repeat: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, most in (("input_len", 10**7), ("output_len", 10**7), ("repeat", 1000)):
            _require(1 <= getattr(self, name) <= most, name, getattr(self, name), f"from 1 to {most}")
        for size in self.batch_sizes:
            _require(1 <= size <= 4096, "batch_size", size, "from 1 to 4096")
        _require(bool(self.batch_sizes), "batch_size", "nothing", "one number or more")


def _require(ok: bool, option: str, value: object, allowed: str) -> None:
    if not ok:
        raise ConfigError(f"{option} must be {allowed}, got {value!r}")


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch from its first step to its last token. Seconds."""

    elapsed: float
    first_tokens: tuple[float, ...]  # (batch_size,) from the begin to each request's first token
    finished: tuple[float, ...]  # (batch_size,) to each request's last token
    num_tokens: int
    tokens_after: int  # those that came after every request had its first one

    @property
    def decode_rate(self) -> float | None:
        """Tokens per second from then on: no prefill is in it."""
        seconds = self.elapsed - max(self.first_tokens)
        return self.tokens_after / seconds if seconds > 0 and self.tokens_after else None


def measure(
    engine: Engine,
    num_tokens: int,
    config: OfflineConfig,
    on_batch: Callable[[int, int], None] = lambda size, turn: None,
) -> Iterator[dict[str, Any]]:
    """Figures of each batch size, over `repeat` batches of random token ids (num_tokens: size of the vocabulary).

    Run with the prefix cache on or off as wanted: the prompts of no two batches are equal. Raises EngineError.
    """
    rng = random.Random(config.seed)
    _run(engine, _requests(rng, 1, config, num_tokens, max_tokens=min(8, config.output_len)))
    for size in config.batch_sizes:
        batches = []
        for turn in range(config.repeat):
            on_batch(size, turn)
            batches.append(_run(engine, _requests(rng, size, config, num_tokens, max_tokens=config.output_len)))
        yield _figures(size, batches, config)


def _requests(
    rng: random.Random, size: int, config: OfflineConfig, num_tokens: int, *, max_tokens: int
) -> list[GenerateRequest]:
    low, high = (100, num_tokens - 100) if num_tokens > 400 else (0, num_tokens)  # control tokens lie at the ends
    sampling = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)
    return [
        GenerateRequest(
            request_id=f"bench-{number}",
            prompt_token_ids=tuple(rng.randrange(low, high) for _ in range(config.input_len)),
            sampling=sampling,
        )
        for number in range(size)
    ]


def _run(engine: Engine, requests: list[GenerateRequest]) -> Batch:
    firsts: dict[str, float] = {}
    finished: list[float] = []
    num_tokens = tokens_after = 0
    begin = now = perf_counter()
    try:
        for request in requests:
            engine.add(request)
        while engine.has_work:
            all_started = len(firsts) == len(requests)
            events = engine.step()
            now = perf_counter() - begin
            for event in events:
                if event.finish_reason == "error":
                    raise EngineError(event.error or "the engine failed")
                firsts.setdefault(event.request_id, now)
                num_tokens += len(event.token_ids)
                tokens_after += len(event.token_ids) if all_started else 0
                if event.finish_reason is not None:
                    finished.append(now)
    finally:
        for request in requests:
            engine.abort(request.request_id)
    return Batch(now, tuple(firsts.values()), tuple(finished), num_tokens, tokens_after)


def _figures(size: int, batches: list[Batch], config: OfflineConfig) -> dict[str, Any]:
    """Rates of the median batch; the latencies of all requests of all batches."""
    elapsed = float(np.median([batch.elapsed for batch in batches]))
    prefill = float(np.median([max(batch.first_tokens) for batch in batches]))
    rates = [batch.decode_rate for batch in batches if batch.decode_rate is not None]
    num_tokens = batches[0].num_tokens
    firsts = np.array([1000 * second for batch in batches for second in batch.first_tokens])
    ends = np.array([1000 * second for batch in batches for second in batch.finished])
    return {
        "batch_size": size,
        "num_requests": size,
        "elapsed_time": elapsed,
        "requests_per_second": size / elapsed,
        "tokens_per_second": (num_tokens + size * config.input_len) / elapsed,
        "output_throughput": num_tokens / elapsed,
        "prefill_throughput": size * config.input_len / prefill,  # until every request has its first token
        "decode_throughput": float(np.median(rates)) if rates else None,
        **statistics("ttft", firsts),
        **statistics("e2el", ends),
        "latencies": [batch.elapsed for batch in batches],
    }
