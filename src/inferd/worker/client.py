"""The gateway's end of one worker's socket: sends commands, routes events to the requests that wait for them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from inferd.errors import EngineError, InferdError, OverloadedError
from inferd.types import EngineStats, TokenEvent
from inferd.worker.protocol import (
    HEADER,
    Abort,
    Accepted,
    Detokenize,
    Event,
    Failed,
    Generate,
    Heartbeat,
    Message,
    Step,
    Tokenize,
    Tokenized,
    event_decoder,
    frame_size,
    from_wire_error,
    to_frame,
)

MAX_WAITING_EVENTS = 256


@dataclass(frozen=True, slots=True)
class Update:
    event: TokenEvent
    pieces: dict[int, bytes]  # of the whole step


class Stream:
    """The events of one request. `close` aborts it unless it ended; call it always."""

    def __init__(self, client: WorkerClient, command: Generate) -> None:
        self._client = client
        self._num_open = command.sampling.n
        self._queue: asyncio.Queue[Update | Accepted | InferdError] = asyncio.Queue()
        self._is_over = False
        self.request_id = command.request_id

    def put(self, item: Update | Accepted | InferdError) -> None:
        if self._is_over:
            return
        if isinstance(item, InferdError):
            self._is_over = True
        elif isinstance(item, Update) and item.event.finish_reason is not None:
            self._num_open -= 1
        if self._queue.qsize() >= MAX_WAITING_EVENTS and not self._is_over:
            item = EngineError("The client reads too slowly; the request was aborted.")
            self._client.abort(self.request_id)
            self._is_over = True
        self._queue.put_nowait(item)

    async def accepted(self) -> Accepted:
        """The first message; raises what the worker raised."""
        item = await self._queue.get()
        if isinstance(item, InferdError):
            raise item
        if isinstance(item, Update):
            raise EngineError("The engine answered out of order.")
        return item

    async def next(self) -> Update | None:
        """The next event; None after the last one."""
        if self._num_open == 0 and self._queue.empty():
            return None
        item = await self._queue.get()
        if isinstance(item, InferdError):
            raise item
        if isinstance(item, Accepted):
            raise EngineError("The engine answered out of order.")
        if item.event.finish_reason == "error":
            raise EngineError("The engine failed on this request.")
        return item

    def close(self) -> None:
        if self._num_open and not self._is_over:
            self._client.abort(self.request_id)
        self._is_over = True
        self._client.forget(self.request_id)


class WorkerClient:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, on_stats: Callable[[EngineStats], None]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._on_stats = on_stats
        self._streams: dict[str, Stream] = {}
        self._calls: dict[str, asyncio.Future[Tokenized]] = {}
        self._ids = itertools.count()
        self._is_dead = False
        self._num_turns = -1
        loop_time = asyncio.get_running_loop().time()
        self._moved_at = loop_time  # when the engine last moved, or had nothing to do

    @property
    def num_streams(self) -> int:
        return len(self._streams)

    @property
    def has_requests(self) -> bool:
        return bool(self._streams or self._calls)

    def seconds_stuck(self) -> float:
        """Since the engine last showed progress while it had work; 0 when idle."""
        if not self.has_requests:
            return 0.0
        return asyncio.get_running_loop().time() - self._moved_at

    def generate(self, command: Generate) -> Stream:
        if command.request_id in self._streams:
            raise EngineError("A request with this id is already running.")
        if not self.has_requests:
            self._moved_at = asyncio.get_running_loop().time()
        stream = Stream(self, command)
        self.send(command)
        self._streams[command.request_id] = stream
        return stream

    async def call(self, command: Tokenize | Detokenize) -> Tokenized:
        if not self.has_requests:
            self._moved_at = asyncio.get_running_loop().time()
        future: asyncio.Future[Tokenized] = asyncio.get_running_loop().create_future()
        self.send(command)
        self._calls[command.call_id] = future
        try:
            return await future
        finally:
            self._calls.pop(command.call_id, None)

    def new_call_id(self) -> str:
        return f"call-{next(self._ids)}"

    def send(self, message: Message) -> None:
        if self._is_dead:
            raise OverloadedError("The model is being restarted.", retry_after=1.0)
        self._writer.write(to_frame(message))

    def abort(self, request_id: str) -> None:
        if not self._is_dead:
            self.send(Abort(request_id=request_id))

    def forget(self, request_id: str) -> None:
        self._streams.pop(request_id, None)

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
        for stream in list(self._streams.values()):
            stream.put(error)
        for future in list(self._calls.values()):
            if not future.done():
                future.set_exception(error)
        self._writer.close()

    def _route(self, event: Event) -> None:
        if isinstance(event, Step):
            self._moved_at = asyncio.get_running_loop().time()
            for token_event in event.events:
                if (stream := self._streams.get(token_event.request_id)) is not None:
                    stream.put(Update(token_event, event.pieces))
            if event.stats is not None:
                self._on_stats(event.stats)
        elif isinstance(event, Accepted):
            if (stream := self._streams.get(event.request_id)) is not None:
                stream.put(event)
        elif isinstance(event, Heartbeat):
            self._beat(event)
        elif isinstance(event, Tokenized):
            if (future := self._calls.get(event.call_id)) is not None and not future.done():
                future.set_result(event)
        elif isinstance(event, Failed):
            self._fail_one(event)

    def _beat(self, event: Heartbeat) -> None:
        if event.num_turns != self._num_turns or not event.has_work:
            self._num_turns = event.num_turns
            self._moved_at = asyncio.get_running_loop().time()
        if event.stats is not None:
            self._on_stats(event.stats)

    def _fail_one(self, event: Failed) -> None:
        error = from_wire_error(event.error)
        if (stream := self._streams.get(event.request_id)) is not None:
            stream.put(error)
        elif (future := self._calls.get(event.request_id)) is not None and not future.done():
            future.set_exception(error)
