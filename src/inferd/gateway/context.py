"""What every dialect needs of the gateway: the body, the model, the caller, and the two ways to get an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from inferd.gateway.body import read_body
from inferd.gateway.calls import Call, Caller
from inferd.gateway.completion import Completion, unless_gone
from inferd.gateway.config import ServerConfig
from inferd.gateway.guard import tenant_of
from inferd.gateway.json_fields import decode
from inferd.gateway.router import Model, Router, Served
from inferd.metrics.recorder import Recorder
from inferd.worker import protocol
from inferd.worker.protocol import Kind, Reply

R = TypeVar("R", bound=Reply)


class Gateway:
    """Shared by the routes of all dialects. router owns what is in flight; recorder owns the figures."""

    def __init__(self, config: ServerConfig, version: str) -> None:
        targets = {model.names[0]: config.targets_of(model) for model in config.models}
        self.config = config
        self.version = version
        self.recorder = Recorder(targets, config.host_price, len(config.models))
        self.router = Router(config, self.recorder)
        self.app: ASGIApp | None = None  # the routes, without the guard
        self.on_start: list[Callable[[], None]] = []  # what dialects have to do when the models are loaded
        self.on_close: list[Callable[[], None]] = []  # and when the server has ended
        self._weights = {tenant_of(key.encode()): weight for key, weight in config.key_weights}

    def start(self) -> None:
        for start in self.on_start:
            start()

    def close(self) -> None:
        for close in self.on_close:
            close()

    async def fields(self, request: Request, *, any_type: bool = False) -> dict[str, Any]:
        """Of a JSON body; null counts as absent. any_type: see read_body. Raises HttpError or InvalidRequestError."""
        return decode(await read_body(request, self.config, any_type=any_type))

    def complete(
        self,
        request: Request,
        served: Served,
        call: Call,
        *,
        idle_timeout: float | None = None,
        names: Mapping[str, str] = {},
    ) -> Response:
        """The response to return from a route that makes text. idle_timeout: as Model.lease has it. names: what
        this body, unlike its dialect, calls fields of SamplingParams, for errors."""
        return Completion(call, served, self.router, self._caller(request, served), idle_timeout, names)

    async def call(
        self,
        request: Request,
        model: Model,
        command: Callable[[str], protocol.Call],
        reply: type[R],
        kind: Kind = "generate",
    ) -> R:
        """One question to a model of this kind and its reply; given up when the client leaves.

        command: makes the message, given its call_id. Raises what the worker raised.
        """
        with self.router.admitted(1, model):
            async with model.lease(kind) as (client, _):
                return await unless_gone(request.receive, client.call(command(client.new_call_id()), reply))

    def _caller(self, request: Request, served: Served) -> Caller:
        scope = request.scope
        tenant = scope.get("tenant", "")
        return Caller(
            tenant=tenant,
            weight=self._weights.get(tenant, 1.0),
            adapter=served.adapter,
            is_background=scope.get("is_background", False),
            traceparent=request.headers.get("traceparent", ""),
        )
