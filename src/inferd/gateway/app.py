"""The routes, and `serve`: the gateway from its first socket to its last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp

from inferd.errors import InferdError
from inferd.gateway import server
from inferd.gateway.config import ServerConfig
from inferd.gateway.context import Gateway
from inferd.gateway.dashboard import Dashboard
from inferd.gateway.dialects import (
    anthropic,
    batches,
    encoders,
    kserve,
    llamacpp,
    lora,
    ollama,
    openai,
    pipelines,
    rag,
    responses,
    tgi,
)
from inferd.gateway.errors import HttpError, error_response, json_response
from inferd.gateway.guard import Guard
from inferd.gateway.openapi import document
from inferd.gateway.state import state_of
from inferd.ledger.database import ledger_path
from inferd.ledger.usage import UsageLedger
from inferd.metrics.recorder import Recorder

# of two with one path the first answers
_DIALECTS = (anthropic, batches, encoders, kserve, llamacpp, lora, ollama, openai, pipelines, rag, responses, tgi)


class Api:
    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.gateway = Gateway(config, inferd_version())
        parts = [dialect.paths() for dialect in _DIALECTS]
        self.document = document(self.gateway.version, parts, needs_key=bool(config.api_keys))

    def build(self) -> ASGIApp:
        routes = [
            *Dashboard(self.config).routes(),
            Route("/health", self.health), Route("/v1/health", self.health), Route("/ping", self.health),
            Route("/ready", self.ready), Route("/metrics", self.metrics), Route("/version", self.version),
            Route("/inferd/state", self.state), Route("/openapi.json", self.openapi),
            *(route for dialect in _DIALECTS for route in dialect.routes(self.gateway)),
        ]  # fmt: skip
        handlers = {InferdError: self.on_error, HTTPException: self.on_http_error, Exception: self.on_error}
        app = Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]
        app.router.redirect_slashes = False  # a redirect would repeat the Host header it was sent
        self.gateway.app = app
        guarded = Guard(app, self.config)
        if not self.config.cors_origins:
            return guarded
        origins = list(self.config.cors_origins)
        exposed = ["x-request-id", "retry-after"]
        methods = ["GET", "POST", "DELETE", "HEAD"]
        return CORSMiddleware(guarded, origins, allow_methods=methods, allow_headers=["*"], expose_headers=exposed)

    async def on_error(self, request: Request, error: Exception) -> Response:
        return error_response(error, request.url.path)

    async def on_http_error(self, request: Request, error: HTTPException) -> Response:
        """What Starlette itself refuses: no such path, or not by this method."""
        message = {404: "There is nothing at this path.", 405: "This method is not allowed here."}
        text = message.get(error.status_code, "This request cannot be served.")
        headers = error.headers or {}
        if error.status_code == 405:  # Starlette names the methods of the first route alone
            routes = [route for route in request.app.routes if isinstance(route, Route)]
            path = next(route.path for route in routes if route.matches(request.scope)[0] is not Match.NONE)
            methods = {method for route in routes if route.path == path for method in route.methods or ()}
            headers = {"allow": ", ".join(sorted(methods))}
        return error_response(HttpError(error.status_code, text, headers=headers), request.url.path)

    async def health(self, request: Request) -> Response:
        return json_response({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        if self.gateway.router.is_ready:
            return json_response({"status": "ready"})
        return json_response({"status": "not ready"}, 503, {"retry-after": "1"})

    async def metrics(self, request: Request) -> Response:
        return Response(self.gateway.recorder.render(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def state(self, request: Request) -> Response:
        gateway = self.gateway
        budget = gateway.config.memory_budget
        tenant = request.scope.get("tenant", "")
        return json_response(state_of(gateway.recorder, gateway.router.models, gateway.version, budget, tenant))

    async def version(self, request: Request) -> Response:
        return json_response({"version": self.gateway.version})

    async def openapi(self, request: Request) -> Response:
        return json_response(self.document)


def inferd_version() -> str:
    try:
        return version("inferd")
    except PackageNotFoundError:  # run from a source tree
        return "0"


def serve(config: ServerConfig, *, on_ready: Callable[[str], None] | None = None) -> int:
    """Blocks until a signal ended it; on_ready gets the base URL. Raises what kept the first worker from loading."""
    api = Api(config)

    def start(url: str) -> None:
        api.gateway.start()
        if on_ready is not None:
            on_ready(url)

    with listening(api.gateway.recorder, config):
        try:
            server.run_until_ended(api.build(), api.gateway.router, config, start)
        finally:
            api.gateway.close()
    return 0


@contextmanager
def listening(recorder: Recorder, config: ServerConfig) -> Iterator[None]:
    """Within: what ends goes to the ledger and to the collector of traces, where the configuration has them."""
    with ExitStack() as stack:
        if config.keeps_usage:
            ledger = stack.enter_context(closing(UsageLedger(ledger_path(), config.currency)))
            recorder.request_listeners.append(ledger.add_request)
            recorder.period_listeners.append(ledger.add_period)
        if config.otlp_endpoint is not None:
            from inferd.metrics.tracing import Tracer  # the extra otel: imported only when asked for

            tracer = stack.enter_context(closing(Tracer.to_endpoint(config.otlp_endpoint)))
            recorder.request_listeners.append(tracer.add_request)
        stack.callback(recorder.close)
        yield
