"""The routes, and `serve`: the gateway from its first socket to its last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from inferd.errors import InferdError
from inferd.gateway import server
from inferd.gateway.body import read_body
from inferd.gateway.completion import Completion, unless_gone
from inferd.gateway.config import ServerConfig
from inferd.gateway.dashboard import Dashboard
from inferd.gateway.dialects import openai
from inferd.gateway.errors import HttpError, error_response, json_response
from inferd.gateway.guard import Guard
from inferd.gateway.openapi import document
from inferd.gateway.router import Model, Router
from inferd.gateway.state import state_of
from inferd.ledger.database import ledger_path
from inferd.ledger.usage import UsageLedger
from inferd.metrics.recorder import Recorder
from inferd.worker.protocol import Detokenize, Prompt, Tokenize, Tokenized


class Api:
    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        targets = {model.names[0]: config.targets_of(model) for model in config.models}
        self.recorder = Recorder(targets, config.host_price, len(config.models))
        self.router = Router(config, self.recorder)
        self._version = inferd_version()
        self._openapi = document(self._version, needs_key=bool(config.api_keys))

    def build(self) -> ASGIApp:
        routes = [
            *Dashboard(self.config).routes(),
            Route("/health", self.health), Route("/v1/health", self.health), Route("/ping", self.health),
            Route("/ready", self.ready), Route("/metrics", self.metrics), Route("/version", self.version),
            Route("/inferd/state", self.state),
            Route("/openapi.json", self.openapi), Route("/v1/models", self.list_models),
            Route("/v1/models/{id:path}", self.one_model),
            *(Route(prefix + path, handler, methods=["POST"])
              for prefix in ("", "/v1")
              for path, handler in (("/tokenize", self.tokenize), ("/detokenize", self.detokenize))),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.completions, methods=["POST"]),
        ]  # fmt: skip
        handlers = {InferdError: self.on_error, HTTPException: self.on_http_error, Exception: self.on_error}
        app = Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]
        app.router.redirect_slashes = False  # a redirect would repeat the Host header it was sent
        guarded = Guard(app, self.config)
        if not self.config.cors_origins:
            return guarded
        origins = list(self.config.cors_origins)
        exposed = ["x-request-id", "retry-after"]
        return CORSMiddleware(
            guarded, origins, allow_methods=["GET", "POST"], allow_headers=["*"], expose_headers=exposed
        )

    async def on_error(self, request: Request, error: Exception) -> Response:
        return error_response(error)

    async def on_http_error(self, request: Request, error: HTTPException) -> Response:
        """What Starlette itself refuses: no such path, or not by this method."""
        message = {404: "There is nothing at this path.", 405: "This method is not allowed here."}
        text = message.get(error.status_code, "This request cannot be served.")
        return error_response(HttpError(error.status_code, text, headers=error.headers or {}))

    async def health(self, request: Request) -> Response:
        return json_response({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        if self.router.is_ready:
            return json_response({"status": "ready"})
        return json_response({"status": "not ready"}, 503, {"retry-after": "1"})

    async def metrics(self, request: Request) -> Response:
        return Response(self.recorder.render(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def state(self, request: Request) -> Response:
        return json_response(state_of(self.recorder, self.router.models, self._version))

    async def version(self, request: Request) -> Response:
        return json_response({"version": self._version})

    async def openapi(self, request: Request) -> Response:
        return json_response(self._openapi)

    async def list_models(self, request: Request) -> Response:
        data = [card(model, name) for model in self.router.models for name in model.names]
        return json_response({"object": "list", "data": data})

    async def one_model(self, request: Request) -> Response:
        name = request.path_params["id"]
        return json_response(card(self.router.find(name), name))

    async def chat(self, request: Request) -> Response:
        return await self._complete(request, is_chat=True)

    async def completions(self, request: Request) -> Response:
        return await self._complete(request, is_chat=False)

    async def _complete(self, request: Request, *, is_chat: bool) -> Response:
        fields = openai.decode(await read_body(request, self.config))
        model = self.router.find(fields.get("model"))
        call = openai.parse(fields, is_chat=is_chat)
        tenant, traceparent = request.scope.get("tenant", ""), request.headers.get("traceparent", "")
        return Completion(call, model, self.router, tenant, traceparent)

    async def tokenize(self, request: Request) -> Response:
        fields = openai.decode(await read_body(request, self.config))
        model = self.router.find(fields.get("model"))
        body, prompt = openai.tokenize_prompt(fields)
        answer = await self._call_worker(request, model, prompt, want_pieces=body.return_token_strs)
        ready, pieces = model.worker.ready, answer.pieces
        reply = {
            "count": len(answer.token_ids),
            "max_model_len": ready.max_model_len if ready else None,
            "tokens": answer.token_ids,
            "token_strs": None if pieces is None else [piece.decode("utf-8", "replace") for piece in pieces],
        }
        return json_response(reply)

    async def detokenize(self, request: Request) -> Response:
        fields = openai.decode(await read_body(request, self.config))
        model = self.router.find(fields.get("model"))
        answer = await self._call_worker(request, model, openai.detokenize_ids(fields))
        return json_response({"prompt": answer.text})

    async def _call_worker(
        self, request: Request, model: Model, what: Prompt | tuple[int, ...], *, want_pieces: bool = False
    ) -> Tokenized:
        with self.router.admitted(1):
            client = await model.worker.client()
            call_id = client.new_call_id()
            command: Detokenize | Tokenize = (
                Tokenize(call_id=call_id, prompt=what, want_pieces=want_pieces)
                if not isinstance(what, tuple)
                else Detokenize(call_id=call_id, token_ids=what)
            )
            return await unless_gone(request.receive, client.call(command, Tokenized))


def card(model: Model, name: str) -> dict[str, Any]:
    """What /v1/models says of one served name."""
    ready = model.worker.ready
    base = {"id": name, "object": "model", "created": model.created, "owned_by": "inferd"}
    return {**base, "root": model.name, "parent": None, "max_model_len": ready.max_model_len if ready else None}


def inferd_version() -> str:
    try:
        return version("inferd")
    except PackageNotFoundError:  # run from a source tree
        return "0"


def serve(config: ServerConfig, *, on_ready: Callable[[str], None] | None = None) -> int:
    """Blocks until a signal ended it; on_ready gets the base URL. Raises what kept the first worker from loading."""
    api = Api(config)
    with listening(api.recorder, config):
        server.run_until_ended(api.build(), api.router, config, on_ready)
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
