"""One admitted call from its acceptance to its last event, answered whole or as a stream.

Whoever serves it also watches the client: one that leaves is noticed at once, and its requests are aborted before
the engine's next step, also while they are queued.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from inferd.errors import InferdError
from inferd.gateway.calls import AnswerContext, Call, Caller, Headed, StreamWriter, WholeWriter
from inferd.gateway.errors import HttpError, error_response, json_response
from inferd.gateway.router import Router, Served
from inferd.metrics.requests import RequestInfo, RequestTimer
from inferd.types import RequestTimings, TokenEvent
from inferd.worker.client import Update, WorkerClient
from inferd.worker.protocol import Accepted, Generate

log = logging.getLogger("inferd.gateway")
T = TypeVar("T")
STREAM_HEADERS = [
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # proxies that would collect the stream pass it on
]


class Completion(Response):
    """Answers a call on one model; the response to return from a route."""

    def __init__(
        self,
        call: Call,
        served: Served,
        router: Router,
        caller: Caller,
        idle_timeout: float | None = None,
        names: Mapping[str, str] = {},
    ) -> None:
        """names: what this call, unlike its dialect, calls fields of SamplingParams."""
        self._call, self._served, self._router, self._caller = call, served, router, caller
        self._names = names
        self._idle_timeout = idle_timeout
        self._metrics = served.model.metrics
        self._begin = time.monotonic()
        self._keep_alive = router.config.keep_alive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_started = False

        async def watched_send(message: Any) -> None:
            nonlocal is_started
            is_started = True
            await send(message)

        try:
            with self._router.admitted(self._call.num_prompts, self._served.model):
                await unless_gone(receive, self._answer(watched_send))
        except InferdError as error:
            if not is_started:  # else the client left in the middle of a stream
                await error_response(error, scope["path"], self._names)(scope, receive, send)

    async def _answer(self, send: Send) -> None:
        async with self._served.model.lease("generate", idle_timeout=self._idle_timeout) as (client, ready):
            commands = self._call.commands(ready, self._caller)
            run = Run(client, commands, [self._timer(command) for command in commands])
            try:
                context = AnswerContext(
                    model=self._served.name,
                    ready=ready,
                    accepted=await run.accepted(),
                    n=commands[0].sampling.n,
                    begin=self._begin,
                    price=self._metrics.price,
                )
                if self._call.is_streamed:
                    await self._send_stream(run, self._call.stream_writer(context), send)
                else:
                    await self._send_whole(run, self._call.whole_writer(context), send)
            except asyncio.CancelledError:
                run.end_reason = "abort"
                raise
            finally:
                run.close()

    def _timer(self, command: Generate) -> RequestTimer:
        info = RequestInfo(
            id=command.request_id,
            tenant=self._caller.tenant,
            sampling=command.sampling,
            targets=self._call.targets(self._metrics.targets),
            operation=self._call.operation,
            traceparent=self._caller.traceparent,
        )
        return self._metrics.timer(info, self._begin)

    async def _send_whole(self, run: Run, writer: WholeWriter, send: Send) -> None:
        async for updates in run.batches(self._keep_alive):
            for update in updates:
                writer.add(update)
        response = json_response(writer.to_json(), headers=_own_headers(writer))
        await send({"type": "http.response.start", "status": 200, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body})

    async def _send_stream(self, run: Run, writer: StreamWriter, send: Send) -> None:
        own = [(name.encode(), value.encode()) for name, value in _own_headers(writer).items()]
        headers = [(b"content-type", writer.content_type), *STREAM_HEADERS, *own]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            async for updates in run.batches(self._keep_alive):
                data = writer.encode(updates) if updates else writer.keep_alive
                if data:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            end = writer.end()
        except Exception as error:  # too late for a status
            if not isinstance(error, InferdError):
                log.exception("a stream failed")
            end = writer.fail(error)
        await send({"type": "http.response.body", "body": end})


class Run:
    """The requests of a call while they run, and the figures about them; `close` ends both, however far they are.

    timers: one for each command. end_reason is that of requests which have not ended by themselves.
    """

    def __init__(self, client: WorkerClient, commands: Sequence[Generate], timers: Sequence[RequestTimer]) -> None:
        self.end_reason = "error"
        self._timers = {timer.info.id: timer for timer in timers}
        self._unaccepted = set(self._timers)
        self._open: dict[str, _Open] = {}  # the requests in the engine's queue that have not ended
        self._is_closed = False
        self._stream = client.generate(commands, self._on_timings)

    async def accepted(self) -> tuple[Accepted, ...]:
        """Once all requests are in the engine's queue; raises what the worker raised."""
        accepted = await self._stream.accepted()
        for one in accepted:
            n = self._timers[one.request_id].info.sampling.n
            self._open[one.request_id] = _Open(len(one.prompt_token_ids), n)
        self._unaccepted.clear()
        return accepted

    async def batches(self, keep_alive: float) -> AsyncIterator[list[Update]]:
        """All events, as many at a time as have come; [] after each keep_alive seconds of silence."""
        stream = self._stream
        while not stream.is_over:
            updates = await stream.take(keep_alive)
            self._time(updates)
            yield updates

    def close(self) -> None:
        self._stream.close()
        for request_id in list(self._open):
            self._end(request_id, self.end_reason)
        self._is_closed = True
        for request_id in list(self._unaccepted):
            self._settle(request_id)

    def _time(self, updates: list[Update]) -> None:
        num_tokens: dict[tuple[str, int], int] = {}
        for update in updates:
            event = update.event
            key = event.request_id, event.index
            num_tokens[key] = num_tokens.get(key, 0) + len(event.token_ids)
        for (request_id, index), count in num_tokens.items():
            if count:
                self._timers[request_id].on_tokens(index, count)
        for update in updates:
            if update.event.finish_reason is not None:
                self._finish_one(update.event)

    def _finish_one(self, event: TokenEvent) -> None:
        one = self._open[event.request_id]
        one.num_unfinished -= 1
        one.has_stopped |= event.finish_reason != "length"
        if one.num_unfinished == 0:
            self._end(event.request_id, "stop" if one.has_stopped else "length")

    def _end(self, request_id: str, reason: str) -> None:
        self._timers[request_id].on_end(reason, self._open.pop(request_id).num_prompt_tokens)

    def _on_timings(self, request_id: str, timings: RequestTimings | None) -> None:
        self._timers[request_id].on_timings(timings)
        if self._is_closed and request_id in self._unaccepted:
            self._settle(request_id)

    def _settle(self, request_id: str) -> None:
        """A request that ended before it was known to be accepted counts where the engine worked for it."""
        timings = self._timers[request_id].timings
        if timings is not None:
            self._unaccepted.remove(request_id)
            self._timers[request_id].on_end("abort", timings.num_prompt_tokens)


@dataclass(slots=True)
class _Open:
    """A request that runs."""

    num_prompt_tokens: int
    num_unfinished: int  # of its sequences
    has_stopped: bool = False  # one of them, before its length was reached


def _own_headers(writer: StreamWriter | WholeWriter) -> Mapping[str, str]:
    return writer.headers if isinstance(writer, Headed) else {}


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Awaits work; cancels it and raises HttpError 499 when the client closes its connection first."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise HttpError(499, "The client left.")
    finally:
        for task in (working, leaving):
            task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await working


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
