"""The routes of OpenAI's models, chats and completions, and vLLM's for tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inferd.errors import InvalidRequestError
from inferd.gateway.chat import ChatTurn
from inferd.gateway.context import Gateway
from inferd.gateway.dialects.openai.bodies import CompletionBody
from inferd.gateway.dialects.openai.call import Call, detokenize_ids, parse, tokenize_input
from inferd.gateway.dialects.tokens import other_tokenize
from inferd.gateway.errors import json_response
from inferd.gateway.infill import infill_prompt
from inferd.gateway.router import Served
from inferd.gateway.tokens import TokenReader
from inferd.worker.protocol import Detokenize, Prompt, Tokenize, Tokenized


def routes(gateway: Gateway) -> list[Route]:
    own = OpenAI(gateway)
    tokens = (("/tokenize", own.tokenize), ("/detokenize", own.detokenize))
    return [
        Route("/v1/models", own.list_models),
        Route("/v1/models/{id:path}", own.one_model),
        Route("/v1/chat/completions", own.chat, methods=["POST"]),
        Route("/v1/completions", own.completions, methods=["POST"]),
        *(Route(prefix + path, handler, methods=["POST"]) for prefix in ("", "/v1") for path, handler in tokens),
    ]


class OpenAI:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def list_models(self, request: Request) -> Response:
        models = self._gateway.router.models
        served = [(Served(model), name) for model in models for name in model.names]
        served += [(Served(model, name), name) for model in models for name in model.worker.adapters]
        return json_response({"object": "list", "data": [card(*pair) for pair in served]})

    async def one_model(self, request: Request) -> Response:
        name = request.path_params["id"]
        return json_response(card(self._gateway.router.find(name), name))

    async def chat(self, request: Request) -> Response:
        return await self._complete(request, is_chat=True)

    async def completions(self, request: Request) -> Response:
        return await self._complete(request, is_chat=False)

    async def _complete(self, request: Request, *, is_chat: bool) -> Response:
        fields = await self._gateway.fields(request)
        served = self._gateway.router.find(fields.get("model"))
        call = parse(fields, is_chat=is_chat)
        if isinstance(call.body, CompletionBody) and call.body.suffix:
            call = await self._infill(request, served, call, call.body)
        return self._gateway.complete(request, served, call, names=call.names)

    async def _infill(self, request: Request, served: Served, call: Call, body: CompletionBody) -> Call:
        """The call with a prompt that asks for what belongs between `prompt` and `suffix`."""
        if not isinstance(body.prompt, str) or body.echo:
            raise InvalidRequestError("suffix: needs a prompt that is one text, and no echo", param="suffix")
        tokens = TokenReader(self._gateway, request, served.model)
        return replace(call, prompts=(await infill_prompt(tokens, body.prompt, body.suffix, param="suffix"),))

    async def tokenize(self, request: Request) -> Response:
        fields = await self._gateway.fields(request)
        model = self._gateway.router.find(fields.get("model")).model
        other = await other_tokenize(fields, TokenReader(self._gateway, request, model))
        if other is not None:
            return json_response(other)
        body, given = tokenize_input(fields)
        if isinstance(given, ChatTurn):
            async with model.lease("generate") as (_, ready):
                prompt: Prompt = given.prompt(ready)
        else:
            prompt = given

        def command(call_id: str) -> Tokenize:
            return Tokenize(call_id=call_id, prompt=prompt, want_pieces=body.return_token_strs)

        answer = await self._gateway.call(request, model, command, Tokenized)
        known, pieces = model.worker.ready, answer.pieces
        reply = {
            "count": len(answer.token_ids),
            "max_model_len": known.max_model_len if known else None,
            "tokens": answer.token_ids,
            "token_strs": None if pieces is None else [piece.decode("utf-8", "replace") for piece in pieces],
        }
        return json_response(reply)

    async def detokenize(self, request: Request) -> Response:
        fields = await self._gateway.fields(request)
        model = self._gateway.router.find(fields.get("model")).model
        token_ids = detokenize_ids(fields)

        def command(call_id: str) -> Detokenize:
            return Detokenize(call_id=call_id, token_ids=token_ids)

        text = (await self._gateway.call(request, model, command, Tokenized)).text
        return json_response({"prompt": text, "content": text})  # vLLM's name, and llama-server's


def card(served: Served, name: str) -> dict[str, Any]:
    """What /v1/models says of one served name. parent: of an adapter, the model it changes."""
    model, parent = served.model, served.model.name if served.adapter else None
    ready = model.worker.ready
    base = {"id": name, "object": "model", "created": model.created, "owned_by": "inferd"}
    return {**base, "root": model.name, "parent": parent, "max_model_len": ready.max_model_len if ready else None}
