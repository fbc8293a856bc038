"""Runner: carries the batches of a journal through, a bounded number of lines at a time."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from inferd.jobs.lines import Line, body_at, read_lines
from inferd.jobs.store import Batch, JobStore

log = logging.getLogger("inferd.jobs")
TICK_SECONDS = 0.2  # how long an expiry or the end of the server may wait to be seen
PAGE = 256  # lines that are read ahead
MAX_ATTEMPTS = 20  # of a line whose answers are failures of the server, a restart of a worker among them
MAX_PAUSE = 5.0  # seconds between two of them
_ENDS = {"cancelled": "The batch was cancelled before this request was answered.",
         "expired": "The batch expired before this request was answered."}  # fmt: skip

Answer = tuple[int, dict[str, Any]]  # status and body
Ask = Callable[[Batch, dict[str, Any]], Awaitable[Answer]]  # puts the body of a line to the batch's endpoint


@dataclass(slots=True, eq=False)
class _Active:
    """A batch in progress."""

    batch: Batch
    waiting: deque[Line] = field(default_factory=deque)
    read_until: int = 0  # number of the last line that was read ahead
    is_read: bool = False  # to its end
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class Runner:
    """One for each journal. max_lines: that are asked at once, over all batches."""

    def __init__(self, store: JobStore, ask: Ask, max_lines: int, should_stop: Callable[[], bool]) -> None:
        self._store, self._ask, self._max_lines, self._should_stop = store, ask, max_lines, should_stop
        self._active: dict[str, _Active] = {}
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """A batch was added or cancelled."""
        self._changed.set()

    async def close(self) -> None:
        """Lines that run are given up; the next runner asks them again."""
        self._task.cancel()
        tasks = [self._task, *(task for active in self._active.values() for task in active.tasks)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while not self._should_stop():
            try:
                for batch in await self._store.do(self._store.unfinished):
                    await self._move_on(batch)
                await self._start_lines()
            except Exception:
                log.exception("batches do not move on")
                await asyncio.sleep(1.0)
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), TICK_SECONDS)
            except TimeoutError:
                continue
        for active in self._active.values():
            for task in active.tasks:
                task.cancel()

    async def _move_on(self, batch: Batch) -> None:
        """One step from status to status, where one is due."""
        if batch.status == "finalizing":
            await self._finalize(batch)
        elif batch.status == "cancelling":
            await self._end(batch, "cancelled")
        elif time.time() >= batch.expires_at:
            await self._end(batch, "expired")
        elif batch.status == "validating":
            path = self._store.path_of(batch.input_file_id)
            lines, errors = await asyncio.to_thread(read_lines, path, batch.endpoint)
            await self._store.do(self._store.begin, batch.id, lines, errors)
            self._changed.set()
        else:
            await self._read_ahead(self._active.setdefault(batch.id, _Active(batch)))

    async def _read_ahead(self, active: _Active) -> None:
        batch_id = active.batch.id
        if not active.is_read and len(active.waiting) < PAGE:
            lines = await self._store.do(self._store.open_lines, batch_id, active.read_until, PAGE)
            active.waiting += lines
            active.is_read = len(lines) < PAGE
            active.read_until = lines[-1].number if lines else active.read_until
        if active.is_read and not active.waiting and not active.tasks:
            await self._end(active.batch, "completed")

    async def _end(self, batch: Batch, status: str) -> None:
        active = self._active.pop(batch.id, None)
        if active is not None:
            for task in active.tasks:
                task.cancel()
            await asyncio.gather(*active.tasks, return_exceptions=True)

        def to_finalizing() -> Batch | None:
            return self._store.set_status(batch.id, "finalizing", ends_as=status)

        if (final := await self._store.do(to_finalizing)) is not None:
            await self._finalize(final)

    async def _finalize(self, batch: Batch) -> None:
        def unanswered(line: Line) -> bytes:
            error = {"code": f"batch_{batch.ends_as}", "message": _ENDS[batch.ends_as]}
            return _result(line, None, error)

        await self._store.do(self._store.finalize, batch.id, unanswered)

    async def _start_lines(self) -> None:
        """Lines of the batch with the fewest on their way first, so that a long one holds up no other."""
        while sum(len(active.tasks) for active in self._active.values()) < self._max_lines:
            waiting = [active for active in self._active.values() if active.waiting]
            if not waiting:
                return
            active = min(waiting, key=lambda one: len(one.tasks))
            task = asyncio.create_task(self._answer(active, active.waiting.popleft()))
            active.tasks.add(task)
            task.add_done_callback(active.tasks.discard)
            task.add_done_callback(lambda _: self._changed.set())

    async def _answer(self, active: _Active, line: Line) -> None:
        try:
            await self._ask_until_answered(active.batch, line)
        except Exception:
            log.exception("line %d of %s is asked again", line.number, active.batch.id)
            await asyncio.sleep(MAX_PAUSE)
            active.waiting.appendleft(line)

    async def _ask_until_answered(self, batch: Batch, line: Line) -> None:
        """Until there is an answer that another attempt would not better."""
        body = await asyncio.to_thread(body_at, self._store.path_of(batch.input_file_id), line)
        num_failures = 0
        while True:
            status, reply = await self._ask(batch, body)
            num_failures += status >= 500 and status != 503
            if status < 500 or num_failures == MAX_ATTEMPTS:
                break
            await asyncio.sleep(min(MAX_PAUSE, 0.1 * 2**num_failures))
        response = {"status_code": status, "request_id": f"req_{uuid.uuid4().hex}", "body": reply}
        result = _result(line, response, None)
        await self._store.do(self._store.finish_line, batch.id, line.number, status < 300, result)


def _result(line: Line, response: dict[str, Any] | None, error: dict[str, str] | None) -> bytes:
    """A line of an output or error file."""
    own = {"id": f"batch_req_{uuid.uuid4().hex[:24]}", "custom_id": line.custom_id}
    return msgspec.json.encode({**own, "response": response, "error": error})
