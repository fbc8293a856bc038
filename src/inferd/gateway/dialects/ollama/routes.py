"""The routes under /api."""

from __future__ import annotations

import uuid
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inferd.errors import ModelNotFoundError
from inferd.gateway.chat import ChatTurn
from inferd.gateway.context import Gateway
from inferd.gateway.dialects.fields import check_fields
from inferd.gateway.dialects.ollama import cards
from inferd.gateway.dialects.ollama.answer import now
from inferd.gateway.dialects.ollama.bodies import (
    REFUSED,
    Body,
    ChatBody,
    EmbedBody,
    EmbeddingsBody,
    GenerateBody,
    NameBody,
    check_body,
    messages_of,
    seconds_of,
    structured_of,
)
from inferd.gateway.dialects.ollama.call import Call
from inferd.gateway.dialects.ollama.options import sampling_of_options
from inferd.gateway.dialects.ollama.prompts import Prompts
from inferd.gateway.dialects.ollama.pull import Puller
from inferd.gateway.encoding import Rows, embed
from inferd.gateway.errors import HttpError, json_response
from inferd.gateway.infill import can_infill
from inferd.gateway.json_fields import convert, integral
from inferd.gateway.router import Served
from inferd.gateway.tokens import TokenReader
from inferd.gateway.tools import checked_tools
from inferd.worker.protocol import Kind

# what Ollama does with models on disk is the operator's to do here
_OPERATORS = {
    "/api/delete": ("DELETE", "models are removed by the operator: inferd rm NAME"),
    "/api/copy": ("POST", "names of models are given by the operator: inferd serve --served-model-name"),
    "/api/create": ("POST", "models are not made by this server; give `system` and `options` with each request"),
    "/api/push": ("POST", "this server publishes no models"),
    "/api/blobs/{digest}": ("POST", "this server takes no files of models"),
}


def routes(gateway: Gateway) -> list[Route]:
    own = Ollama(gateway)
    return [
        Route("/api/version", own.version, methods=["GET"]),
        Route("/api/tags", own.tags, methods=["GET"]),
        Route("/api/ps", own.running, methods=["GET"]),
        Route("/api/show", own.show, methods=["POST"]),
        Route("/api/chat", own.chat, methods=["POST"]),
        Route("/api/generate", own.generate, methods=["POST"]),
        Route("/api/embed", own.embed, methods=["POST"]),
        Route("/api/embeddings", own.embeddings, methods=["POST"]),
        Route("/api/pull", own.pull, methods=["POST"]),
        *(Route(path, _refusal(why), methods=[method]) for path, (method, why) in _OPERATORS.items()),
        Route("/api/blobs/{digest}", _refusal(_OPERATORS["/api/blobs/{digest}"][1]), methods=["HEAD"]),
    ]


def _refusal(why: str) -> Any:
    async def refuse(request: Request) -> Response:
        raise HttpError(501, why)

    return refuse


class Ollama:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._puller = Puller()

    async def version(self, request: Request) -> Response:
        return json_response({"version": self._gateway.version})

    async def tags(self, request: Request) -> Response:
        models = self._gateway.router.models
        return json_response({"models": [cards.listed(model, name) for model in models for name in model.names]})

    async def running(self, request: Request) -> Response:
        router = self._gateway.router
        loaded = [model for model in router.models if model.worker.is_ready]
        return json_response({"models": [cards.running(model, router.residency.place_of(model)) for model in loaded]})

    async def show(self, request: Request) -> Response:
        body = convert(await self._fields(request), NameBody)
        model = self._find(body.wanted).model
        await self._gateway.router.load(model)  # only then it knows what it is
        ready = model.worker.ready
        assert ready is not None
        capabilities = ["embedding"]
        if ready.kind == "generate":
            fills = await can_infill(TokenReader(self._gateway, request, model))
            speech = ready.details.get("output_format", {})
            tools, reasons = speech.get("knows_tools"), speech.get("reasoning")
            found = (("completion", True), ("tools", tools), ("insert", fills), ("thinking", reasons))
            capabilities = [name for name, has in found if has]
        return json_response(cards.shown(model, ready, capabilities))

    async def chat(self, request: Request) -> Response:
        fields = await self._fields(request)
        body, warnings = _read(fields, ChatBody)
        served = self._find(body.model)
        if not body.messages:
            return await self._load(served, body)
        sampling, more = sampling_of_options(body.options)
        turn = ChatTurn(
            messages=messages_of(body.messages),
            tools=checked_tools(body.tools),
            sampling=sampling,
            structured=structured_of(body.format),
            thinks=None if body.think is None else bool(body.think),
            reasoning_effort=body.think if isinstance(body.think, str) else None,
        )
        return self._complete(request, served, Call(_new_id(), body, turn, warnings + more))

    async def generate(self, request: Request) -> Response:
        fields = await self._fields(request)
        body, warnings = _read(fields, GenerateBody)
        served = self._find(body.model)
        if not (body.prompt or body.suffix):
            return await self._load(served, body)
        sampling, more = sampling_of_options(body.options)
        prompts = Prompts(TokenReader(self._gateway, request, served.model))
        turn, token_ids = await prompts.read(body, sampling)
        return self._complete(request, served, Call(_new_id(), body, turn, warnings + more, token_ids))

    def _complete(self, request: Request, served: Served, call: Call) -> Response:
        idle_timeout = seconds_of(call.body.keep_alive)
        return self._gateway.complete(request, served, call, idle_timeout=idle_timeout)

    async def embed(self, request: Request) -> Response:
        body = convert(integral(await self._fields(request)), EmbedBody)
        inputs = [body.input] if isinstance(body.input, str) else body.input
        if not inputs:
            return json_response({"model": body.model, "embeddings": []})
        rows = await self._embed(request, body, inputs, "input")
        vectors = [row.tolist() for row in rows.rows]
        return json_response({"model": body.model, "embeddings": vectors, "prompt_eval_count": rows.total_tokens})

    async def embeddings(self, request: Request) -> Response:
        body = convert(await self._fields(request), EmbeddingsBody)
        if not body.prompt:
            return json_response({"embedding": []})
        return json_response(
            {"embedding": (await self._embed(request, body, [body.prompt], "prompt")).rows[0].tolist()}
        )

    async def _embed(self, request: Request, body: EmbedBody | EmbeddingsBody, inputs: list[str], param: str) -> Rows:
        seconds_of(body.keep_alive)
        model = self._find(body.model, "encode").model
        if isinstance(body, EmbeddingsBody):
            return await embed(self._gateway, request, model, inputs, param=param)
        dimensions, truncate = body.dimensions, body.truncate
        return await embed(self._gateway, request, model, inputs, param=param, dimensions=dimensions, truncate=truncate)

    async def pull(self, request: Request) -> Response:
        body = convert(await self._fields(request), NameBody)
        return await self._puller.response(request, body.wanted, is_streamed=body.stream)

    async def _fields(self, request: Request) -> dict[str, Any]:
        return await self._gateway.fields(request, any_type=True)

    async def _load(self, served: Served, body: Body) -> Response:
        """A request without a prompt: the model is loaded, or unloaded with keep_alive 0."""
        keep_alive = seconds_of(body.keep_alive)
        if keep_alive == 0:
            await self._gateway.router.unload(served.model)
        else:
            async with served.model.lease("generate", idle_timeout=keep_alive):
                pass
        empty: dict[str, Any] = {"response": ""}
        if isinstance(body, ChatBody):
            empty = {"message": {"role": "assistant", "content": ""}}
        reason = "unload" if keep_alive == 0 else "load"
        answer = {"model": body.model, "created_at": now(), **empty, "done": True, "done_reason": reason}
        return json_response(answer)

    def _find(self, name: str, kind: Kind = "generate") -> Served:
        """Raises ModelNotFoundError. A name without a tag may be asked for with Ollama's usual one."""
        router = self._gateway.router
        try:
            return router.find(name, kind)
        except ModelNotFoundError:
            if not name.endswith(":latest"):
                raise
        return router.find(name.removesuffix(":latest"), kind)


def _read(fields: dict[str, Any], shape: type[Any]) -> tuple[Any, tuple[str, ...]]:
    """The body, and warnings. Raises InvalidRequestError that names the field."""
    warnings = check_fields(fields, honoured=frozenset(shape.__struct_fields__), harmless=frozenset(), refused=REFUSED)
    body = convert({name: value for name, value in fields.items() if name not in REFUSED}, shape)
    check_body(body)
    return body, warnings


def _new_id() -> str:
    return "ollama-" + uuid.uuid4().hex
