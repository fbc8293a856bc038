"""The routes of TGI, and SageMaker's and Vertex's, which say by the shape of a body what they want."""

from __future__ import annotations

import uuid
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inferd.errors import InvalidRequestError
from inferd.gateway.context import Gateway
from inferd.gateway.dialects.openai.call import parse
from inferd.gateway.dialects.tgi.bodies import MAX_STOPS, read_body
from inferd.gateway.dialects.tgi.call import GenerateCall, PredictCall, Text, read_instances
from inferd.gateway.dialects.tokens import chat_prompt, tgi_tokens
from inferd.gateway.errors import json_response
from inferd.gateway.router import Served
from inferd.gateway.tokens import TokenReader


def routes(gateway: Gateway) -> list[Route]:
    own = Tgi(gateway)
    return [
        Route("/", own.either, methods=["POST"]),
        Route("/generate", own.generate, methods=["POST"]),
        Route("/generate_stream", own.generate_stream, methods=["POST"]),
        Route("/info", own.info, methods=["GET"]),
        Route("/chat_tokenize", own.chat_tokenize, methods=["POST"]),
        Route("/invocations", own.invocations, methods=["POST"]),
        Route("/vertex", own.vertex, methods=["POST"]),
    ]


class Tgi:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def either(self, request: Request) -> Response:
        return self._generate(request, await self._gateway.fields(request), is_listed=True)

    async def generate(self, request: Request) -> Response:
        return self._generate(request, {**await self._gateway.fields(request), "stream": False})

    async def generate_stream(self, request: Request) -> Response:
        return self._generate(request, {**await self._gateway.fields(request), "stream": True})

    async def invocations(self, request: Request) -> Response:
        fields = await self._gateway.fields(request)
        if "inputs" in fields:
            return self._generate(request, fields, is_listed=True)
        if "instances" in fields:
            return self._predict(request, fields)
        if "messages" not in fields and "prompt" not in fields:
            raise InvalidRequestError("give inputs, messages or prompt", param="inputs")
        served = self._gateway.router.find(fields.get("model"))
        return self._gateway.complete(request, served, parse(fields, is_chat="messages" in fields))

    async def vertex(self, request: Request) -> Response:
        return self._predict(request, await self._gateway.fields(request))

    async def info(self, request: Request) -> Response:
        served = self._gateway.router.find(request.query_params.get("model"))
        async with served.model.lease("generate") as (_, ready):
            pass
        limit = self._gateway.config.max_queue_len
        return json_response(
            {
                "model_id": served.name,
                "model_sha": None,
                "model_pipeline_tag": "text-generation",
                "max_concurrent_requests": limit,
                "max_best_of": 1,
                "max_stop_sequences": MAX_STOPS,
                "max_input_tokens": ready.max_model_len - 1,
                "max_total_tokens": ready.max_model_len,
                "validation_workers": 1,
                "max_client_batch_size": limit,
                "router": "inferd",
                "version": self._gateway.version,
                "sha": None,
                "docker_label": None,
            }
        )

    async def chat_tokenize(self, request: Request) -> Response:
        fields = await self._gateway.fields(request)
        model = self._gateway.router.find(fields.get("model")).model
        prompt = await chat_prompt(model, fields)
        read = await TokenReader(self._gateway, request, model).read(prompt, want_pieces=True, want_text=True)
        return json_response({"tokenize_response": tgi_tokens(read, read.text), "templated_text": read.text})

    def _generate(self, request: Request, fields: dict[str, Any], *, is_listed: bool = False) -> Response:
        body, parameters, warnings = read_body(fields)
        call = GenerateCall(
            id=_new_id(),
            text=Text.of(body.inputs, parameters, wants_tokens=body.stream or parameters.has_details),
            is_streamed=body.stream,
            is_listed=is_listed,
            warnings=warnings,
        )
        return self._gateway.complete(request, self._served(body.model, parameters.adapter_id), call)

    def _served(self, model: str | None, adapter_id: str | None) -> Served:
        """Raises InvalidRequestError when adapter_id names no adapter, ModelNotFoundError when it names nothing."""
        if adapter_id is None:
            return self._gateway.router.find(model)
        served = self._gateway.router.find(adapter_id)
        if not served.adapter:
            raise InvalidRequestError(f"adapter_id: {adapter_id[:200]!r} is no adapter", param="adapter_id")
        return served

    def _predict(self, request: Request, fields: dict[str, Any]) -> Response:
        call = PredictCall(id=_new_id(), instances=read_instances(fields))
        return self._gateway.complete(request, self._gateway.router.find(fields.get("model")), call)


def _new_id() -> str:
    return "tgi-" + uuid.uuid4().hex
