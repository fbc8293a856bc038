"""llama-server's own routes."""

from __future__ import annotations

import uuid
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inferd.errors import OverloadedError
from inferd.gateway.context import Gateway
from inferd.gateway.dialects.llamacpp.bodies import CompletionBody, InfillBody, read_body, sampling_of
from inferd.gateway.dialects.llamacpp.call import Call
from inferd.gateway.dialects.llamacpp.prompts import biases_of, prompts_of
from inferd.gateway.dialects.llamacpp.server import model_json, props_json, slots_json
from inferd.gateway.dialects.tokens import chat_prompt
from inferd.gateway.errors import HttpError, json_response
from inferd.gateway.infill import Snippet, infill_prompt
from inferd.gateway.router import Model
from inferd.gateway.tokens import TokenReader
from inferd.worker.protocol import Ready


def routes(gateway: Gateway) -> list[Route]:
    own = LlamaServer(gateway)
    return [
        Route("/completion", own.completion, methods=["POST"]),
        Route("/completions", own.completion, methods=["POST"]),
        Route("/infill", own.infill, methods=["POST"]),
        Route("/apply-template", own.apply_template, methods=["POST"]),
        Route("/props", own.props, methods=["GET"]),
        Route("/props", own.set_props, methods=["POST"]),
        Route("/slots", own.slots, methods=["GET"]),
        Route("/slots/{id}", own.slot_action, methods=["POST"]),
        Route("/models", own.models, methods=["GET"]),
        Route("/models/load", own.load, methods=["POST"]),
        Route("/models/unload", own.unload, methods=["POST"]),
    ]


class LlamaServer:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def completion(self, request: Request) -> Response:
        body, warnings = read_body(await self._fields(request), CompletionBody)
        tokens = self._tokens(request, body)
        prompts = await prompts_of(body.prompt, tokens)
        return await self._complete(tokens, Call(**self._shared(body, warnings), prompts=prompts))

    async def infill(self, request: Request) -> Response:
        body, warnings = read_body(await self._fields(request), InfillBody)
        assert isinstance(body, InfillBody)
        tokens = self._tokens(request, body)
        extra = [Snippet(one.filename, one.text) for one in body.input_extra]
        begun = body.prompt if isinstance(body.prompt, str) else ""
        prompt = await infill_prompt(
            tokens, body.input_prefix, body.input_suffix, extra=extra, begun=begun, param="input_suffix"
        )
        return await self._complete(tokens, Call(**self._shared(body, warnings), prompts=(prompt,)))

    async def apply_template(self, request: Request) -> Response:
        fields = await self._fields(request)
        model = self._gateway.router.find(fields.get("model")).model
        prompt = await chat_prompt(model, fields)
        read = await TokenReader(self._gateway, request, model).read(prompt, want_text=True)
        return json_response({"prompt": read.text})

    async def props(self, request: Request) -> Response:
        model, ready = await self._ready(request)
        return json_response(props_json(model, ready, self._gateway.version))

    async def set_props(self, request: Request) -> Response:
        raise HttpError(501, "Properties are options of inferd serve; they do not change while it runs.")

    async def slots(self, request: Request) -> Response:
        model, ready = await self._ready(request)
        slots = slots_json(model, ready)
        if request.query_params.get("fail_on_no_slot") and all(slot["is_processing"] for slot in slots):
            raise OverloadedError("No slot is free.", retry_after=1.0)
        return json_response(slots)

    async def slot_action(self, request: Request) -> Response:
        raise HttpError(501, "Slots are not saved, restored or erased: prompts share one cache of their beginnings.")

    async def models(self, request: Request) -> Response:
        data = [model_json(model, name) for model in self._gateway.router.models for name in model.names]
        return json_response({"object": "list", "data": data})

    async def load(self, request: Request) -> Response:
        model = self._gateway.router.find((await self._fields(request)).get("model", "")).model
        await self._gateway.router.load(model)
        return json_response({"success": True})

    async def unload(self, request: Request) -> Response:
        model = self._gateway.router.find((await self._fields(request)).get("model", "")).model
        await self._gateway.router.unload(model)
        return json_response({"success": True})

    async def _complete(self, tokens: TokenReader, call: Call) -> Response:
        call.sampling["logit_bias"] = await biases_of(call.body, tokens)
        served = self._gateway.router.find(call.body.model)
        return self._gateway.complete(tokens.request, served, call)

    def _shared(self, body: CompletionBody, warnings: tuple[str, ...]) -> dict[str, Any]:
        call_id = "cmpl-" + uuid.uuid4().hex
        return {"id": call_id, "body": body, "sampling": sampling_of(body), "warnings": warnings}

    def _tokens(self, request: Request, body: CompletionBody) -> TokenReader:
        return TokenReader(self._gateway, request, self._gateway.router.find(body.model).model)

    async def _ready(self, request: Request) -> tuple[Model, Ready]:
        model = self._gateway.router.find(request.query_params.get("model")).model
        async with model.lease("generate") as (_, ready):
            return model, ready

    async def _fields(self, request: Request) -> dict[str, Any]:
        return await self._gateway.fields(request, any_type=True)
