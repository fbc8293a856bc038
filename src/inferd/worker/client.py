"""The gateway's end of one worker's socket: sends commands, routes events to the requests that wait for them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from inferd.errors import EngineError, InferdError, OverloadedError
from inferd.types import EngineStats, RequestTimings, TokenEvent
from inferd.worker.protocol import (
    HEADER,
    HEARTBEAT_SECONDS,
    Abort,
    Aborted,
    Accepted,
    Call,
    Cancel,
    Event,
    Failed,
    Generate,
    Heartbeat,
    Message,
    Reply,
    Step,
    event_decoder,
    frame_size,
    from_wire_error,
    to_frame,
)
from inferd.worker.quarantine import Quarantine

OnTimings = Callable[[str, RequestTimings | None], None]
R = TypeVar("R", bound=Reply)
MAX_WAITING_EVENTS = 1024  # per sequence of a call; a client that reads slower than this is cut off


@dataclass(frozen=True, slots=True)
class Update:
    event: TokenEvent
    pieces: dict[int, bytes]  # of the whole step


class Stream:
    """The events of one call: of one request, or of several that are answered together.

    `close` aborts what has not ended; call it always. on_timings is called with the id of each request and what the
    engine measured of it, at its end, also when that comes after the close; with None when there is nothing to say.
    """

    def __init__(self, client: WorkerClient, commands: Sequence[Generate], on_timings: OnTimings) -> None:
        self.request_ids = tuple(command.request_id for command in commands)
        self._client = client
        self._on_timings = on_timings
        self._num_open = {command.request_id: command.sampling.n for command in commands}  # unfinished sequences
        self._max_waiting = MAX_WAITING_EVENTS * sum(self._num_open.values())
        self._accepted: dict[str, Accepted] = {}
        self._updates: list[Update] = []
        self._error: InferdError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_over(self) -> bool:
        """Nothing comes any more, and all that came was taken."""
        return self._error is None and not self._num_open and not self._updates

    def put(self, update: Update) -> None:
        event = update.event
        if self._error is not None or event.request_id not in self._num_open:
            return
        if event.finish_reason in ("error", "abort"):
            self.fail(EngineError("The engine failed on this request."))
            return
        if event.timings is not None:
            self._on_timings(event.request_id, event.timings)
        if event.finish_reason is not None:
            self._finish_one(event.request_id)
        self._updates.append(update)
        if len(self._updates) > self._max_waiting:
            self.close()
            self.fail(EngineError("The client reads too slowly; the request was aborted."))
        self._wake()

    def accept(self, accepted: Accepted) -> None:
        self._accepted[accepted.request_id] = accepted
        self._wake()

    def fail(self, error: InferdError) -> None:
        self._error = self._error or error
        self._wake()

    async def accepted(self) -> tuple[Accepted, ...]:
        """Once all requests are in the engine's queue, in the order of the commands; raises what the worker raised."""
        while len(self._accepted) < len(self.request_ids):
            if self._error is not None:
                raise self._error
            await self._wait()
        return tuple(self._accepted[request_id] for request_id in self.request_ids)

    async def take(self, timeout: float) -> list[Update]:
        """All that waits, at least one; [] after `timeout` seconds of silence. Raises what the worker raised."""
        if not self._updates and self._error is None:
            timer = asyncio.get_running_loop().call_later(timeout, self._wake)
            try:
                await self._wait()
            finally:
                timer.cancel()
        updates, self._updates = self._updates, []
        if not updates and self._error is not None:
            raise self._error
        return updates

    def close(self) -> None:
        for request_id in self.request_ids:
            if request_id in self._num_open:
                self._client.abort(request_id, self._on_timings)
            self._client.forget(request_id)
        self._num_open.clear()

    def _finish_one(self, request_id: str) -> None:
        self._num_open[request_id] -= 1
        if self._num_open[request_id] == 0:
            del self._num_open[request_id]
            self._client.absolve(request_id)
            self._client.forget(request_id)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class WorkerClient:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_stats: Callable[[EngineStats], None],
        quarantine: Quarantine,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._on_stats = on_stats
        self._quarantine = quarantine
        self._running: dict[str, Generate] = {}
        self._streams: dict[str, Stream] = {}
        self._aborted: dict[str, OnTimings] = {}  # who waits for the last word on a request
        self._calls: dict[str, asyncio.Future[Reply]] = {}
        self._ids = itertools.count()
        self._is_dead = False
        self._num_turns = -1
        now = asyncio.get_running_loop().time()
        self._heard_at = now  # when the worker last sent anything
        self._moved_at = now  # when the engine last moved, or had nothing to do

    @property
    def running(self) -> list[Generate]:
        """What the worker works on: the suspects when it dies."""
        return list(self._running.values())

    @property
    def has_requests(self) -> bool:
        return bool(self._streams or self._calls)

    def seconds_stuck(self) -> float:
        """Since the engine last showed progress while it had work, or since the worker last gave a sign of life."""
        now = asyncio.get_running_loop().time()
        silent = max(0.0, now - self._heard_at - HEARTBEAT_SECONDS)
        return max(silent, now - self._moved_at) if self.has_requests else silent

    def generate(self, commands: Sequence[Generate], on_timings: OnTimings) -> Stream:
        """One stream for all the commands. Raises when one of them cannot be sent or is refused; then none is."""
        for command in commands:
            self._quarantine.check(command)
        self._start_clock()
        stream = Stream(self, commands, on_timings)
        frames = [to_frame(command) for command in commands]
        self._send_frames(frames)
        self._streams.update(dict.fromkeys(stream.request_ids, stream))
        self._running |= {command.request_id: command for command in commands}
        return stream

    async def call(self, command: Call, kind: type[R]) -> R:
        """kind: of the reply to this command. Raises what the worker raised; a call that is given up is cancelled."""
        self._start_clock()
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.send(command)
        self._calls[command.call_id] = future
        try:
            reply = await future
        except asyncio.CancelledError:
            if not self._is_dead:
                self.send(Cancel(call_id=command.call_id))
            raise
        finally:
            self._calls.pop(command.call_id, None)
        assert isinstance(reply, kind)
        return reply

    def new_call_id(self) -> str:
        return f"call-{next(self._ids)}"

    def send(self, message: Message) -> None:
        self._send_frames([to_frame(message)])

    def abort(self, request_id: str, on_timings: OnTimings) -> None:
        if self._is_dead:
            on_timings(request_id, None)
            return
        self._aborted[request_id] = on_timings
        self.send(Abort(request_id=request_id))

    def forget(self, request_id: str) -> None:
        self._streams.pop(request_id, None)
        self._running.pop(request_id, None)

    def absolve(self, request_id: str) -> None:
        self._quarantine.absolve(self._running[request_id])

    def _start_clock(self) -> None:
        if not self.has_requests:
            self._moved_at = asyncio.get_running_loop().time()

    def _send_frames(self, frames: list[bytes]) -> None:
        if self._is_dead:
            raise OverloadedError("The model is being restarted.", retry_after=1.0)
        self._writer.writelines(frames)

    async def read(self) -> Event | None:
        """The next event off the socket; None at its end."""
        try:
            header = await self._reader.readexactly(HEADER.size)
            event: Event = event_decoder.decode(await self._reader.readexactly(frame_size(header)))
            return event
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def run(self) -> None:
        """Routes events until the worker's end closes."""
        while (event := await self.read()) is not None:
            self._route(event)

    def fail_all(self, error: InferdError) -> None:
        self._is_dead = True
        for stream in set(self._streams.values()):
            stream.fail(error)
        for future in list(self._calls.values()):
            if not future.done():
                future.set_exception(error)
        for request_id in list(self._aborted):
            self._tell_aborted(request_id, None)
        self._writer.close()

    def _route(self, event: Event) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        if isinstance(event, Step):
            self._moved_at = self._heard_at
            for token_event in event.events:
                if (stream := self._streams.get(token_event.request_id)) is not None:
                    stream.put(Update(token_event, event.pieces))
                elif token_event.timings is not None:  # it ended while its abort was on the way
                    self._tell_aborted(token_event.request_id, token_event.timings)
            if event.stats is not None:
                self._on_stats(event.stats)
        elif isinstance(event, Accepted):
            if (stream := self._streams.get(event.request_id)) is not None:
                stream.accept(event)
        elif isinstance(event, Aborted):
            self._tell_aborted(event.request_id, event.timings)
        elif isinstance(event, Heartbeat):
            self._beat(event)
        elif isinstance(event, Reply):
            if (future := self._calls.get(event.call_id)) is not None and not future.done():
                future.set_result(event)
        elif isinstance(event, Failed):
            self._fail_one(event)

    def _tell_aborted(self, request_id: str, timings: RequestTimings | None) -> None:
        if (on_timings := self._aborted.pop(request_id, None)) is not None:
            on_timings(request_id, timings)

    def _beat(self, event: Heartbeat) -> None:
        if event.num_turns != self._num_turns or not event.has_work:
            self._num_turns = event.num_turns
            self._moved_at = self._heard_at
        if event.stats is not None:
            self._on_stats(event.stats)

    def _fail_one(self, event: Failed) -> None:
        error = from_wire_error(event.error)
        if (stream := self._streams.get(event.request_id)) is not None:
            stream.fail(error)
        elif (future := self._calls.get(event.request_id)) is not None and not future.done():
            future.set_exception(error)
