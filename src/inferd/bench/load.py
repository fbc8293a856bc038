"""Sends a load and records every request. An open loop keeps its schedule whatever the server does: latencies count
from the intended time, so a slow answer cannot hide the wait of those behind it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from time import perf_counter

from inferd.bench.arrivals import schedule
from inferd.bench.config import LoadConfig
from inferd.bench.datasets import Dataset, Sample, load_dataset
from inferd.bench.stream import Record
from inferd.bench.target import Target, TargetError

TICK_SECONDS = 1.0  # drawing a progress bar takes about 1 ms, in which nothing is timed
LEAD_SECONDS = 0.05  # between planning a run and its first request


@dataclass(slots=True)
class Run:
    """One point of a sweep. Times are perf_counter() seconds."""

    request_rate: float
    max_concurrency: int | None
    is_closed_loop: bool
    begin: float = 0.0
    end: float = 0.0
    records: list[Record] = field(default_factory=list)
    num_expected: int | None = None  # None: as many as fit into the duration
    num_in_flight: int = 0
    most_in_flight: int = 0
    num_done: int = 0
    num_failed: int = 0  # of those done
    num_tokens: int = 0
    cpu_seconds: float = 0.0  # of this process, over the run


OnTick = Callable[[Run], None]


async def run_sweep(config: LoadConfig, target: Target, on_tick: OnTick) -> list[Run]:
    """Warm-up, then the points one after the other; `target` has been probed. Raises TargetError, ConfigError."""
    warm = load_dataset(config, target.facts.scale, "warm-up")
    await _warm_up(config, target, warm)
    runs = []
    for number, (rate, bound) in enumerate(config.points):
        dataset = load_dataset(config, target.facts.scale, f"run-{number}")
        runs.append(await _Load(config, target, dataset, rate, bound, f"{config.seed}/{number}").run(on_tick))
    return runs


async def _warm_up(config: LoadConfig, target: Target, dataset: Dataset) -> None:
    """All at once, at most 64: threads, caches and connections are then as under load. Raises TargetError."""
    slots = asyncio.Semaphore(min([64, *config.max_concurrency]))

    async def one(index: int) -> Record:
        sample = dataset.sample(index)
        record = Record(index, sample.input_len, sample.output_len)
        async with slots:
            await target.exchange(target.body(sample), record)
        return record

    records = await asyncio.gather(*(one(index) for index in range(config.num_warmups)))
    failed = [record for record in records if not record.is_ok]
    if records and len(failed) == len(records):
        detail = f": {failed[0].detail}" if failed[0].detail else ""
        raise TargetError(f"{config.url}: every warm-up request failed: {failed[0].cause}{detail}")


class _Load:
    """One point of a sweep."""

    def __init__(
        self, config: LoadConfig, target: Target, dataset: Dataset, rate: float, bound: int | None, seed: str
    ) -> None:
        self._config, self._target, self._dataset = config, target, dataset
        self._seed = seed
        self._slots = asyncio.Semaphore(bound) if bound is not None else None
        closed = bound is not None and math.isinf(rate) and not config.is_replay
        self._run = Run(rate, bound, closed)

    async def run(self, on_tick: OnTick) -> Run:
        run = self._run
        async with _ticking(run, on_tick):
            if run.is_closed_loop:
                await self._closed_loop(run.max_concurrency or 1)
            else:
                await self._open_loop()
        run.end = max((record.ended for record in run.records), default=run.begin)
        return run

    async def _open_loop(self) -> None:
        offsets = self._offsets()
        self._run.num_expected = len(offsets)
        # built before the clock starts: making a prompt of 10,000 words takes 2 ms
        requests = [self._prepared(index) for index in range(len(offsets))]
        self._run.records = [record for _, record in requests]
        begin = self._run.begin = perf_counter() + LEAD_SECONDS
        async with asyncio.TaskGroup() as tasks:
            for (body, record), offset in zip(requests, offsets, strict=True):
                record.intended = begin + offset
                # also when late: what was started before must come to run
                await asyncio.sleep(max(0.0, record.intended - perf_counter()))
                tasks.create_task(self._send(body, record))

    def _offsets(self) -> list[float]:
        config, rate = self._config, self._run.request_rate
        if config.is_replay:
            return self._trace_offsets()
        count = config.num_prompts if config.duration is None else max(1, round(rate * config.duration))
        burstiness, size = config.burstiness, config.burst_size
        return schedule(count, rate, config.arrival, burstiness=burstiness, burst_size=size, seed=self._seed)

    def _trace_offsets(self) -> list[float]:
        """Of the first num_prompts rows, or those within the duration."""
        count = len(self._dataset) if self._config.duration is not None else self._config.num_prompts
        offsets = [self._dataset.sample(index).offset for index in range(min(count, len(self._dataset)))]
        limit = self._config.duration
        return offsets if limit is None else [offset for offset in offsets if offset < limit]

    async def _closed_loop(self, num_clients: int) -> None:
        config, run = self._config, self._run
        run.num_expected = config.num_prompts if config.duration is None else None
        begin = run.begin = perf_counter()
        numbers = iter(range(config.num_prompts if config.duration is None else 2**62))

        async def client() -> None:
            for index in numbers:
                body, record = self._prepared(index)
                record.intended = perf_counter()
                if config.duration is not None and record.intended - begin >= config.duration:
                    return
                run.records.append(record)
                await self._send(body, record)

        await asyncio.gather(*(client() for _ in range(num_clients)))

    def _prepared(self, index: int) -> tuple[bytes, Record]:
        sample: Sample = self._dataset.sample(index)
        return self._target.body(sample), Record(index, sample.input_len, sample.output_len)

    async def _send(self, body: bytes, record: Record) -> None:
        run, slots = self._run, None if self._run.is_closed_loop else self._slots
        if slots is not None:
            asked = perf_counter()
            await slots.acquire()
            record.slot_wait = perf_counter() - asked
        run.num_in_flight += 1
        run.most_in_flight = max(run.most_in_flight, run.num_in_flight)
        try:
            await self._target.exchange(body, record)
        finally:
            run.num_in_flight -= 1
            run.num_done += 1
            run.num_failed += not record.is_ok
            run.num_tokens += record.num_tokens
            if slots is not None:
                slots.release()


@contextlib.asynccontextmanager
async def _ticking(run: Run, on_tick: OnTick) -> AsyncIterator[None]:
    async def tick() -> None:
        while True:
            on_tick(run)
            await asyncio.sleep(TICK_SECONDS)

    task, before = asyncio.create_task(tick()), time.process_time()
    try:
        yield
    finally:
        run.cpu_seconds = time.process_time() - before
        task.cancel()
        on_tick(run)
