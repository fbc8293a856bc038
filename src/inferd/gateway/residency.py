"""Which models are in memory: they are loaded when they are asked for, and leave for others or when nobody asks.

Memory is counted before a model is loaded, by an upper bound, so that the sum never passes the budget. A model never
leaves while a request uses it; who needs its room waits, in the order of arrival.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from inferd.errors import ConfigError, OverloadedError

log = logging.getLogger("inferd.gateway")
Phase = Literal["asleep", "resident", "leaving"]
FOREVER = -1.0


class Resident(Protocol):
    """A model as this module sees it."""

    @property
    def name(self) -> str: ...
    @property
    def num_bytes(self) -> int:
        """Upper bound of the memory of its process."""
        ...

    def start(self) -> None: ...
    async def wait_loaded(self) -> None:
        """Raises what kept it from loading."""
        ...

    async def stop(self) -> None: ...


@dataclass(eq=False, slots=True)
class Place:
    """One model's state. idle_timeout: seconds without a request after which it leaves; FOREVER: never."""

    model: Resident
    idle_timeout: float
    phase: Phase = "asleep"
    num_users: int = 0
    used_at: float = 0.0
    num_loads: int = 0
    num_evictions: int = 0
    timer: asyncio.TimerHandle | None = None
    stopping: asyncio.Task[None] | None = None


@dataclass(eq=False, slots=True)
class _Waiter:
    place: Place
    granted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Residency:
    def __init__(self, budget: int | None, load_timeout: float) -> None:
        """budget: bytes, None for no limit. load_timeout: seconds that a request waits for its model."""
        self.budget = budget
        self._load_timeout = load_timeout
        self._places: dict[Resident, Place] = {}
        self._waiting: list[_Waiter] = []

    def add(self, model: Resident, idle_timeout: float) -> None:
        """Raises ConfigError when the model alone is over the budget."""
        if self.budget is not None and model.num_bytes > self.budget:
            need, have = model.num_bytes / 2**20, self.budget / 2**20
            raise ConfigError(f"memory_budget must hold {model.name}, which needs {need:.0f} MiB; it is {have:.0f} MiB")
        self._places[model] = Place(model, idle_timeout)

    def place_of(self, model: Resident) -> Place:
        return self._places[model]

    @property
    def num_bytes(self) -> int:
        """Of everything that is in memory, by the upper bounds."""
        return sum(place.model.num_bytes for place in self._places.values() if place.phase != "asleep")

    @asynccontextmanager
    async def use(self, model: Resident, idle_timeout: float | None = None) -> AsyncIterator[None]:
        """Within: the model is loaded and stays. idle_timeout: from now on; None: as it was.

        Raises OverloadedError when there was no room in time, or what kept the model from loading.
        """
        place = self._places[model]
        await self._enter(place)
        try:
            await self._wait_loaded(place)
            yield
        finally:
            place.num_users -= 1
            place.used_at = time.monotonic()
            place.idle_timeout = place.idle_timeout if idle_timeout is None else idle_timeout
            self._rest(place)

    async def unload(self, model: Resident) -> None:
        """Returns when it has left: after the requests that use it."""
        place = self._places[model]
        if place.phase == "asleep":
            return
        place.phase = "leaving"
        self._rest(place)
        while place.phase == "leaving":
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Stops every model, used or not."""
        for waiter in self._waiting:
            waiter.granted.cancel()
        for place in self._places.values():
            if place.timer is not None:
                place.timer.cancel()
        await asyncio.gather(*(place.model.stop() for place in self._places.values()))

    async def _enter(self, place: Place) -> None:
        """Counts the caller as a user of a model that is in memory, or is loading."""
        waiter = _Waiter(place)
        self._waiting.append(waiter)
        self._serve_waiting()
        try:
            async with asyncio.timeout(self._load_timeout):
                await waiter.granted
        except TimeoutError:
            raise OverloadedError(f"There was no room for {place.model.name} in memory.", retry_after=5.0) from None
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled():  # granted, and given up in the same moment
                place.num_users -= 1
                self._rest(place)
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    async def _wait_loaded(self, place: Place) -> None:
        try:
            async with asyncio.timeout(self._load_timeout):
                await place.model.wait_loaded()
        except TimeoutError:
            raise OverloadedError(f"{place.model.name} is loading.", retry_after=5.0) from None
        except Exception:
            if place.phase == "resident":
                place.phase = "leaving"  # the next request tries again
            raise

    def _serve_waiting(self) -> None:
        """Grants in the order of arrival; the first that finds no room holds up those that need room too."""
        is_full = False
        for waiter in list(self._waiting):
            place = waiter.place
            if place.phase == "asleep" and not is_full and self._has_room(place):
                self._load(place)
            if place.phase == "resident":
                self._grant(waiter)
            else:
                is_full = True

    def _grant(self, waiter: _Waiter) -> None:
        self._waiting.remove(waiter)
        if waiter.granted.done():  # it gave up
            return
        place = waiter.place
        place.num_users += 1
        if place.timer is not None:
            place.timer.cancel()
            place.timer = None
        waiter.granted.set_result(None)

    def _load(self, place: Place) -> None:
        place.phase = "resident"
        place.num_loads += 1
        place.used_at = time.monotonic()
        place.model.start()

    def _has_room(self, place: Place) -> bool:
        """Whether it fits now. Else enough of the others are told to leave, the least lately used first, idle before
        busy."""
        if self.budget is None:
            return True
        missing = self.num_bytes + place.model.num_bytes - self.budget
        if missing <= 0:
            return True
        missing -= sum(p.model.num_bytes for p in self._places.values() if p.phase == "leaving")
        residents = [p for p in self._places.values() if p.phase == "resident"]
        for victim in sorted(residents, key=lambda p: (p.num_users > 0, p.used_at)):
            if missing <= 0:
                break
            missing -= victim.model.num_bytes
            victim.phase = "leaving"
            victim.num_evictions += 1
            self._rest(victim)
        return False

    def _rest(self, place: Place) -> None:
        """What becomes of a model that nobody uses."""
        if place.num_users:
            return
        if place.phase == "leaving":
            if place.stopping is None:
                place.stopping = asyncio.create_task(self._stop(place))
        elif place.phase == "resident" and place.idle_timeout != FOREVER:
            self._at_rest(place, place.idle_timeout)

    def _at_rest(self, place: Place, seconds: float) -> None:
        def leave() -> None:
            place.timer = None
            if place.phase == "resident" and not place.num_users:
                log.info("%s leaves memory after %g idle seconds", place.model.name, seconds)
                place.phase = "leaving"
                self._rest(place)

        if place.timer is not None:
            place.timer.cancel()
        place.timer = asyncio.get_running_loop().call_later(seconds, leave)

    async def _stop(self, place: Place) -> None:
        try:
            await place.model.stop()
        finally:
            place.phase, place.stopping = "asleep", None
            self._serve_waiting()
