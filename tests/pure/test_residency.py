"""Models in memory: never over the budget, never away under a request, everybody served."""

from __future__ import annotations

import asyncio
import random

import pytest

from inferd.errors import ConfigError, ModelLoadError, OverloadedError
from inferd.gateway.residency import FOREVER, Residency

MIB = 2**20


class Fake:
    """A model that takes a moment to load and to stop, and knows whether it is used while it is away."""

    def __init__(self, name: str, size: int, seconds: float = 0.0) -> None:
        self.name, self.num_bytes, self.seconds = name, size, seconds
        self.is_up = self.is_in_memory = False
        self.num_starts = self.num_failures = 0
        self.loading: asyncio.Task[None] | None = None

    def start(self) -> None:
        assert not self.is_in_memory
        self.is_in_memory = True
        self.num_starts += 1
        self.loading = asyncio.create_task(self.load())

    async def load(self) -> None:
        await asyncio.sleep(self.seconds)
        if self.num_failures:
            self.num_failures -= 1
            raise ModelLoadError("no")
        self.is_up = True

    async def wait_loaded(self) -> None:
        assert self.loading is not None
        await asyncio.shield(self.loading)

    async def stop(self) -> None:
        await asyncio.sleep(self.seconds)
        self.is_up = self.is_in_memory = False


def residency_of(models: list[Fake], budget: int | None, timeout: float = 5.0, idle: float = FOREVER) -> Residency:
    residency = Residency(budget, timeout)
    for model in models:
        residency.add(model, idle)
    return residency


async def test_a_model_is_loaded_once_and_stays() -> None:
    model = Fake("a", MIB)
    residency = residency_of([model], None)
    async with residency.use(model), residency.use(model):
        assert model.is_up
    assert model.is_up
    assert model.num_starts == 1


async def test_the_least_lately_used_leaves() -> None:
    a, b, c = models = [Fake(name, MIB) for name in "abc"]
    residency = residency_of(models, 2 * MIB)
    for model in (a, b, a, c):
        async with residency.use(model):
            pass
    assert [m.is_up for m in models] == [True, False, True]


async def test_a_used_model_does_not_leave_and_the_waiter_gets_its_room() -> None:
    a, b = models = [Fake(name, MIB) for name in "ab"]
    residency = residency_of(models, MIB)
    order = []

    async def second() -> None:
        async with residency.use(b):
            order.append("b")

    async with residency.use(a):
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.05)
        assert a.is_up
        assert not b.is_in_memory
        order.append("a")
    await waiting
    assert order == ["a", "b"]
    assert not a.is_in_memory


async def test_a_busy_model_is_given_up_for_one_that_waits() -> None:
    """Its new requests wait behind, else the other would starve."""
    a, b = models = [Fake(name, MIB, 0.01) for name in "ab"]
    residency = residency_of(models, MIB)
    done: list[str] = []

    async def request(model: Fake, seconds: float) -> None:
        async with residency.use(model):
            await asyncio.sleep(seconds)
            done.append(model.name)

    tasks = [asyncio.create_task(request(a, 0.05))]
    await asyncio.sleep(0.02)
    tasks.append(asyncio.create_task(request(b, 0.0)))
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(request(a, 0.05)) for _ in range(5)]
    await asyncio.gather(*tasks)
    assert done.index("b") == 1


async def test_no_room_in_time_is_an_error_and_leaves_nothing_behind() -> None:
    a, b = models = [Fake(name, MIB) for name in "ab"]
    residency = residency_of(models, MIB, timeout=0.05)
    async with residency.use(a):
        with pytest.raises(OverloadedError, match="no room for b"):
            async with residency.use(b):
                pass
    async with residency.use(a):
        assert a.is_up


async def test_a_request_that_gives_up_holds_nothing() -> None:
    a, b = models = [Fake(name, MIB) for name in "ab"]
    residency = residency_of(models, MIB)

    async def use(model: Fake) -> None:
        async with residency.use(model):
            await asyncio.sleep(10)

    first = asyncio.create_task(use(a))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(use(b))
    await asyncio.sleep(0.01)
    for task in (second, first):
        task.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    async with asyncio.timeout(1), residency.use(b):
        assert b.is_up
    assert residency.num_bytes == MIB


async def test_an_idle_model_leaves_and_comes_back() -> None:
    model = Fake("a", MIB)
    residency = residency_of([model], None, idle=0.03)
    async with residency.use(model):
        await asyncio.sleep(0.06)
        assert model.is_up
    await asyncio.sleep(0.08)
    assert not model.is_in_memory
    async with residency.use(model, idle_timeout=FOREVER):
        pass
    await asyncio.sleep(0.08)
    assert model.is_up


async def test_a_failed_load_is_told_and_tried_again() -> None:
    model = Fake("a", MIB)
    model.num_failures = 1
    residency = residency_of([model], None)
    with pytest.raises(ModelLoadError):
        async with residency.use(model):
            pass
    async with residency.use(model):
        assert model.is_up
    assert model.num_starts == 2


async def test_unload_waits_for_the_requests() -> None:
    model = Fake("a", MIB)
    residency = residency_of([model], None)
    async with residency.use(model):
        leaving = asyncio.create_task(residency.unload(model))
        await asyncio.sleep(0.05)
        assert model.is_up
    await leaving
    assert not model.is_in_memory


def test_a_model_over_the_budget_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="memory_budget must hold a, which needs 2 MiB"):
        residency_of([Fake("a", 2 * MIB)], MIB)


async def test_many_models_in_little_room() -> None:
    """500 requests on 10 models with room for 3: none fails, the sum of what is in memory stays in the budget."""
    rng = random.Random(5)
    models = [Fake(str(i), rng.randint(5, 10) * MIB, 0.001) for i in range(10)]
    budget = 30 * MIB
    residency = residency_of(models, budget)
    most = 0

    async def request(model: Fake) -> None:
        nonlocal most
        await asyncio.sleep(rng.random())
        async with residency.use(model):
            most = max(most, sum(m.num_bytes for m in models if m.is_in_memory))
            await asyncio.sleep(rng.random() * 0.01)
            assert model.is_up

    await asyncio.gather(*(request(rng.choice(models)) for _ in range(500)))
    assert 20 * MIB < most <= budget
    assert sum(residency.place_of(m).num_evictions for m in models) > 10
