"""Routes, and `serve`: the gateway from its first socket to its last."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from inferd.errors import InferdError
from inferd.gateway.config import ServerConfig
from inferd.gateway.dialects import openai
from inferd.gateway.errors import HttpError, to_reply
from inferd.gateway.router import Model, Router
from inferd.metrics.recorder import Recorder
from inferd.worker.client import Stream


class Guard:
    """Pure ASGI, outermost: the Host header and the key, decided on the path as it came. Only /health is open."""

    def __init__(self, app: ASGIApp, config: ServerConfig) -> None:
        self._app = app
        self._hosts = config.checked_hosts
        self._digests = [hashlib.sha256(key.encode()).digest() for key in config.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
        except HttpError as error:
            await _error(error)(scope, receive, send)
            return
        while "//" in scope["path"]:
            scope["path"] = scope["path"].replace("//", "/")
        if scope["path"].startswith("/openai/v1/"):
            scope["path"] = scope["path"].removeprefix("/openai")
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self._hosts is not None and name not in self._hosts:
            raise HttpError(421, "This host name is not served here.")
        if not self._digests or scope["path"] == "/health":
            return
        key = headers.get(b"x-api-key") or headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        digest = hashlib.sha256(key).digest()
        if not any([hmac.compare_digest(digest, known) for known in self._digests]):  # noqa: C419 all are compared
            raise HttpError(401, "Missing or wrong API key.", code="invalid_api_key")
        scope["tenant"] = "key:" + digest.hex()[:16]


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _error(error: BaseException) -> Response:
    reply = to_reply(error)
    return Response(reply.json, reply.status, reply.headers, "application/json")


async def _read_body(request: Request, config: ServerConfig) -> bytes:
    if request.headers.get("content-type", "application/json").partition(";")[0].strip() != "application/json":
        raise HttpError(415, "The content type must be application/json.")
    body = bytearray()
    try:
        async with asyncio.timeout(config.body_timeout):
            async for part in request.stream():
                body += part
                if len(body) > config.max_body_size:
                    raise HttpError(413, f"The body is larger than {config.max_body_size} bytes.")
    except TimeoutError:
        raise HttpError(408, "The body did not arrive in time.") from None
    return bytes(body)


class Api:
    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.recorder = Recorder()
        self.router = Router(config, self.recorder)

    def build(self) -> ASGIApp:
        routes = [
            Route("/health", self.health), Route("/v1/health", self.health), Route("/ping", self.health),
            Route("/ready", self.ready), Route("/metrics", self.metrics),
            Route("/v1/models", self.list_models), Route("/v1/models/{id:path}", self.one_model),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.completions, methods=["POST"]),
        ]  # fmt: skip
        handlers = {InferdError: self.on_error, Exception: self.on_error, 404: self.on_404, 405: self.on_405}
        return Guard(Starlette(routes=routes, exception_handlers=handlers), self.config)

    async def on_error(self, request: Request, error: Exception) -> Response:
        return _error(error)

    async def on_404(self, request: Request, error: Exception) -> Response:
        return _error(HttpError(404, "There is nothing at this path."))

    async def on_405(self, request: Request, error: Exception) -> Response:
        return _error(HttpError(405, "This method is not allowed here."))

    async def health(self, request: Request) -> Response:
        return _json({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        is_ready = self.router.is_ready
        return _json({"status": "ready" if is_ready else "not ready"}, 200 if is_ready else 503)

    async def metrics(self, request: Request) -> Response:
        return Response(self.recorder.render(), media_type="text/plain; version=0.0.4")

    async def list_models(self, request: Request) -> Response:
        data = [self._card(model, name) for model in self.router.models for name in model.names]
        return _json({"object": "list", "data": data})

    async def one_model(self, request: Request) -> Response:
        name = request.path_params["id"]
        return _json(self._card(self.router.find(name), name))

    def _card(self, model: Model, name: str) -> dict[str, Any]:
        ready = model.worker.ready
        card = {"id": name, "object": "model", "created": model.created, "owned_by": "inferd"}
        return {**card, "root": model.name, "parent": None, "max_model_len": ready.max_model_len if ready else None}

    async def chat(self, request: Request) -> Response:
        return await self._complete(request, is_chat=True)

    async def completions(self, request: Request) -> Response:
        return await self._complete(request, is_chat=False)

    async def _complete(self, request: Request, *, is_chat: bool) -> Response:
        body, fields = openai.parse(await _read_body(request, self.config), is_chat=is_chat)
        model = self.router.find(fields["model"] if isinstance(fields.get("model"), str) else "")
        self.router.check_admission(1)
        client = await model.worker.client()
        sampling = openai.to_sampling(body, fields, model.worker.ready)
        command = openai.to_command(body, sampling, request.scope.get("tenant", ""))
        answer = openai.Answer(command.request_id, model.name, is_chat=is_chat)
        stream = client.generate(command)
        self.router.num_in_flight += 1
        run = Run(self, model, stream, answer, sampling.n)
        try:
            run.num_prompt = len((await stream.accepted()).prompt_token_ids)
            if not body.stream:
                return _json(await run.whole(request))
        except BaseException:
            run.close()
            raise
        include_usage = body.stream_options is not None and body.stream_options.include_usage
        headers = {"cache-control": "no-cache", "x-request-id": uuid.uuid4().hex}
        return _Sse(run, include_usage, headers)


class Run:
    """One admitted request, from acceptance to its last event; `close` ends it once, whatever happened."""

    def __init__(self, api: Api, model: Model, stream: Stream, answer: openai.Answer, num_choices: int) -> None:
        self._api, self._stream, self._answer, self._num_choices = api, stream, answer, num_choices
        self._timer = model.metrics.timer()
        self._num_output = self._num_cached = self.num_prompt = 0
        self._is_open = True

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._api.router.num_in_flight -= 1
            self._stream.close()

    async def whole(self, request: Request) -> dict[str, Any]:
        """Raises HttpError 499 when the client left, after which the engine is told to stop."""
        collecting = asyncio.ensure_future(self._collect())
        leaving = asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait({collecting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not collecting.done():
                raise HttpError(499, "The client left.")
            return collecting.result()
        finally:
            collecting.cancel()
            leaving.cancel()
            self.close()

    async def _collect(self) -> dict[str, Any]:
        texts = [""] * self._num_choices
        reasons: list[str | None] = [None] * self._num_choices
        async for event in self._events():
            texts[event.index] += event.text
            reasons[event.index] = event.finish_reason or reasons[event.index]
        return self._answer.whole(texts, reasons, self._usage())

    async def _events(self) -> AsyncIterator[Any]:
        while (update := await self._stream.next()) is not None:
            event = update.event
            self._num_output += len(event.token_ids)
            self._num_cached = max(self._num_cached, event.num_cached_tokens)
            self._timer.on_tokens(event.index, len(event.token_ids))
            if event.finish_reason is not None:
                self._timer.on_finish(event.finish_reason)
            yield event

    def _usage(self) -> dict[str, Any]:
        return openai.usage(self.num_prompt, self._num_output, self._num_cached)

    async def sse(self, include_usage: bool) -> AsyncIterator[bytes]:
        def line(chunk: dict[str, Any]) -> bytes:
            if include_usage:
                chunk = {"usage": None, **chunk}
            return b"data: " + msgspec.json.encode(chunk) + b"\n\n"

        try:
            for index in range(self._num_choices):
                yield line(self._answer.chunk(index, "", is_first=True))
            async for event in self._events():
                if event.text:
                    yield line(self._answer.chunk(event.index, event.text))
                if event.finish_reason is not None:
                    yield line(self._answer.chunk(event.index, "", event.finish_reason))
            if include_usage:
                yield line(self._answer.usage_chunk(self._usage()))
            yield b"data: [DONE]\n\n"
        except InferdError as error:
            yield b"data: " + to_reply(error).json + b"\n\n"
        finally:
            self.close()


class _Sse(StreamingResponse):
    """Closes its run also when the client left before the first chunk was asked for."""

    def __init__(self, run: Run, include_usage: bool, headers: dict[str, str]) -> None:
        super().__init__(run.sse(include_usage), headers=headers, media_type="text/event-stream")
        self._run = run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._run.close()


class _Server(uvicorn.Server):
    """The first SIGTERM or SIGINT drains, the second ends at once."""

    def __init__(self, config: uvicorn.Config, router: Router, drain_timeout: float) -> None:
        super().__init__(config)
        self._router, self._drain_timeout = router, drain_timeout
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self._router.is_draining:
            self.should_exit = self.force_exit = True
            return
        self._router.is_draining = True
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(lambda: setattr(self, "_draining", loop.create_task(self._drain())))

    async def _drain(self) -> None:
        deadline = asyncio.get_running_loop().time() + self._drain_timeout
        while self._router.num_in_flight and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
        for model in self._router.models:
            await model.worker.stop()  # what still runs gets its error event
        self.should_exit = True


async def _serve(config: ServerConfig, on_ready: Callable[[str], None] | None) -> int:
    api = Api(config)
    options = uvicorn.Config(
        api.build(), host=config.host, port=config.port, http="h11", h11_max_incomplete_event_size=65536,
        log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2, lifespan="off",
    )  # fmt: skip
    server = _Server(options, api.router, config.drain_timeout)
    for model in api.router.models:
        model.worker.start()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.handle_exit, number, None)
    serving = asyncio.create_task(server._serve())
    try:
        for model in api.router.models:
            await model.worker.wait_started()
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if on_ready is not None and server.started:
            port = server.servers[0].sockets[0].getsockname()[1]
            on_ready(f"http://{config.host}:{port}")
        await serving
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        for model in api.router.models:
            await model.worker.stop()
    return 0


def serve(config: ServerConfig, *, on_ready: Callable[[str], None] | None = None) -> int:
    """Blocks until a signal ended it; on_ready gets the base URL. Raises what kept the first worker from loading."""
    return asyncio.run(_serve(config, on_ready))
