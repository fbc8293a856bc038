"""One admitted call from its acceptance to its last event, answered whole or as server-sent events.

Whoever serves it also watches the client: one that leaves is noticed at once, and its requests are aborted before
the engine's next step, also while they are queued.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from inferd.errors import InferdError
from inferd.gateway.dialects import openai
from inferd.gateway.errors import HttpError, error_response, json_response, to_reply
from inferd.gateway.router import Model, Router
from inferd.metrics.requests import RequestInfo, RequestTimer
from inferd.types import RequestTimings, TokenEvent
from inferd.worker.client import Update, WorkerClient
from inferd.worker.protocol import Accepted, Generate

log = logging.getLogger("inferd.gateway")
T = TypeVar("T")
SSE_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # proxies that would collect the stream pass it on
]
KEEP_ALIVE = b": keep-alive\n\n"


class Completion(Response):
    """Answers a call on one model; the response to return from a route."""

    def __init__(self, call: openai.Call, model: Model, router: Router, tenant: str, traceparent: str = "") -> None:
        self._call, self._model, self._router, self._tenant = call, model, router, tenant
        self._traceparent = traceparent
        self._begin = time.monotonic()
        self._keep_alive = router.config.keep_alive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_started = False

        async def watched_send(message: Any) -> None:
            nonlocal is_started
            is_started = True
            await send(message)

        try:
            with self._router.admitted(len(self._call.prompts)):
                await unless_gone(receive, self._answer(watched_send))
        except InferdError as error:
            if not is_started:  # else the client left in the middle of a stream
                await error_response(error)(scope, receive, send)

    async def _answer(self, send: Send) -> None:
        client = await self._model.worker.client()
        ready = self._model.worker.ready
        assert ready is not None  # a worker has a client only after it was ready
        commands = self._call.commands(ready, self._tenant)
        run = Run(client, commands, [self._timer(command) for command in commands])
        try:
            accepted = await run.accepted()
            answer = openai.Answer(
                self._call,
                self._model.name,
                accepted,
                commands[0].sampling.n,
                begin=self._begin,
                price=self._model.metrics.price,
            )
            if self._call.body.stream:
                await self._send_stream(run, answer, send)
            else:
                await self._send_whole(run, answer, send)
        except asyncio.CancelledError:
            run.end_reason = "abort"
            raise
        finally:
            run.close()

    def _timer(self, command: Generate) -> RequestTimer:
        metrics, call = self._model.metrics, self._call
        info = RequestInfo(
            id=command.request_id,
            tenant=self._tenant,
            sampling=command.sampling,
            targets=call.targets(metrics.targets),
            operation="chat" if call.is_chat else "text_completion",
            traceparent=self._traceparent,
        )
        return metrics.timer(info, self._begin)

    async def _send_whole(self, run: Run, answer: openai.Answer, send: Send) -> None:
        whole = openai.WholeAnswer(answer)
        async for updates in run.batches(self._keep_alive):
            for update in updates:
                whole.add(update)
        response = json_response(whole.to_json())
        await send({"type": "http.response.start", "status": 200, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body})

    async def _send_stream(self, run: Run, answer: openai.Answer, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
        chunks = openai.ChunkStream(answer)
        try:
            async for updates in run.batches(self._keep_alive):
                data = chunks.encode(updates) if updates else KEEP_ALIVE
                if data:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            end = chunks.end()
        except Exception as error:  # too late for a status
            if not isinstance(error, InferdError):
                log.exception("a stream failed")
            end = openai.to_sse(to_reply(error).body)
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
