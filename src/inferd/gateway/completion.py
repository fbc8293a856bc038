"""One admitted call from its acceptance to its last event, answered whole or as server-sent events.

Whoever serves it also watches the client: one that leaves is noticed at once, and its requests are aborted before
the engine's next step, also while they are queued.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from inferd.errors import InferdError
from inferd.gateway.dialects import openai
from inferd.gateway.errors import HttpError, error_response, json_response, to_reply
from inferd.gateway.router import Model, Router
from inferd.metrics.recorder import RequestTimer
from inferd.types import SamplingParams
from inferd.worker.client import Stream, Update

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

    def __init__(self, call: openai.Call, model: Model, router: Router, tenant: str) -> None:
        self._call, self._model, self._router, self._tenant = call, model, router, tenant
        self._keep_alive = router.config.keep_alive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_started = False
        timer = self._model.metrics.timer()

        async def watched_send(message: Any) -> None:
            nonlocal is_started
            is_started = True
            await send(message)

        try:
            with self._router.admitted(len(self._call.prompts)):
                await unless_gone(receive, self._answer(watched_send, timer))
        except InferdError as error:
            if not is_started:  # else the client left in the middle of a stream
                await error_response(error)(scope, receive, send)

    async def _answer(self, send: Send, timer: RequestTimer) -> None:
        client = await self._model.worker.client()
        ready = self._model.worker.ready
        assert ready is not None  # a worker has a client only after it was ready
        commands = self._call.commands(ready, self._tenant)
        run = Run(client.generate(commands), timer, commands[0].sampling)
        try:
            accepted = await run.stream.accepted()
            answer = openai.Answer(self._call, self._model.name, accepted, run.sampling.n)
            run.num_prompt_tokens = answer.usage.num_prompt
            run.end_reason = "error"
            if self._call.body.stream:
                await self._send_stream(run, answer, send)
            else:
                await self._send_whole(run, answer, send)
        except asyncio.CancelledError:
            run.end_reason = "abort"
            raise
        finally:
            run.close()

    async def _send_whole(self, run: Run, answer: openai.Answer, send: Send) -> None:
        whole = openai.WholeAnswer(answer)
        async for updates in run.batches(answer, self._keep_alive):
            for update in updates:
                whole.add(update)
        response = json_response(whole.to_json())
        await send({"type": "http.response.start", "status": 200, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body})

    async def _send_stream(self, run: Run, answer: openai.Answer, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
        chunks = openai.ChunkStream(answer)
        try:
            async for updates in run.batches(answer, self._keep_alive):
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
    """The stream of a call and the figures about it; `close` ends both, however far they are."""

    def __init__(self, stream: Stream, timer: RequestTimer, sampling: SamplingParams) -> None:
        self.stream = stream
        self.sampling = sampling
        self.num_prompt_tokens = 0
        self.end_reason: str | None = None  # until it is accepted
        self._timer = timer

    async def batches(self, answer: openai.Answer, keep_alive: float) -> AsyncIterator[list[Update]]:
        """All events, as many at a time as have come; [] after each keep_alive seconds of silence."""
        stream = self.stream
        while not stream.is_over:
            updates = await stream.take(keep_alive)
            self._time(updates, answer)
            yield updates
        reasons = {choice.finish_reason for choice in answer.choices}
        self.end_reason = "length" if reasons == {"length"} else "stop"

    def close(self) -> None:
        self.stream.close()
        if self.end_reason is not None:
            self._timer.on_end(
                self.end_reason,
                num_prompt_tokens=self.num_prompt_tokens,
                n=self.sampling.n,
                max_tokens=self.sampling.max_tokens,
            )

    def _time(self, updates: list[Update], answer: openai.Answer) -> None:
        num_tokens: dict[int, int] = {}
        for update in updates:
            event = update.event
            choice = answer.choice_of(event)
            num_tokens[choice.index] = num_tokens.get(choice.index, 0) + len(event.token_ids)
            choice.finish_reason = event.finish_reason or choice.finish_reason
        for index, count in num_tokens.items():
            if count:
                self._timer.on_tokens(index, count)


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
