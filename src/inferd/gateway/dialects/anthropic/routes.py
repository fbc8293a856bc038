"""Anthropic's routes. The list of models is at OpenAI's path, and is Anthropic's for those who send its version."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from inferd.errors import InferdError, InvalidRequestError
from inferd.gateway.context import Gateway
from inferd.gateway.dialects.anthropic.answer import PATH
from inferd.gateway.dialects.anthropic.call import counted_turn, parse
from inferd.gateway.errors import error_response, json_response
from inferd.gateway.router import Model
from inferd.worker.protocol import Tokenize, Tokenized

MAX_PAGE = 1000


class _VersionedRoute(Route):
    """Matches only requests with Anthropic's version header; stands before OpenAI's route of the same path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if any(name == b"anthropic-version" for name, _ in scope["headers"]):
            return super().matches(scope)
        return Match.NONE, {}


def routes(gateway: Gateway) -> list[Route]:
    own = Anthropic(gateway)
    return [
        Route("/v1/messages", own.messages, methods=["POST"]),
        Route("/v1/messages/count_tokens", own.count_tokens, methods=["POST"]),
        _VersionedRoute("/v1/models", own.list_models),
        _VersionedRoute("/v1/models/{id:path}", own.one_model),
    ]


class Anthropic:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def messages(self, request: Request) -> Response:
        fields = await self._gateway.fields(request)
        served = self._gateway.router.find(fields.get("model"))
        return self._gateway.complete(request, served, parse(fields))

    async def count_tokens(self, request: Request) -> Response:
        fields = await self._gateway.fields(request)
        model = self._gateway.router.find(fields.get("model")).model
        turn = counted_turn(fields)
        async with model.lease("generate") as (_, ready):
            prompt = turn.prompt(ready)
        counted = await self._gateway.call(
            request, model, lambda call_id: Tokenize(call_id=call_id, prompt=prompt), Tokenized
        )
        return json_response({"input_tokens": len(counted.token_ids)})

    async def list_models(self, request: Request) -> Response:
        cards = [_card(model, name) for model in self._gateway.router.models for name in model.names]
        try:
            return json_response(_page(cards, request))
        except InferdError as error:
            return error_response(error, PATH)

    async def one_model(self, request: Request) -> Response:
        name = request.path_params["id"]
        try:
            return json_response(_card(self._gateway.router.find(name).model, name))
        except InferdError as error:
            return error_response(error, PATH)


def _card(model: Model, name: str) -> dict[str, Any]:
    ready = model.worker.ready
    length = ready.max_model_len if ready else None
    created = datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    card = {"type": "model", "id": name, "display_name": name, "created_at": created, "lifecycle": "active"}
    return card | {"max_input_tokens": length, "max_tokens": length}


def _page(cards: list[dict[str, Any]], request: Request) -> dict[str, Any]:
    """The cards between the ids that before_id and after_id name, at most `limit` of them."""
    query, ids = request.query_params, [card["id"] for card in cards]
    limit = query.get("limit", str(MAX_PAGE))
    if not limit.isdecimal() or not 1 <= int(limit[:9]) <= MAX_PAGE:
        raise InvalidRequestError(f"limit must be an integer from 1 to {MAX_PAGE}", param="limit")
    for name in ("after_id", "before_id"):
        if name in query and query[name] not in ids:
            raise InvalidRequestError(f"{name} is not the id of a model", param=name)
    begin = ids.index(query["after_id"]) + 1 if "after_id" in query else 0
    end = ids.index(query["before_id"]) if "before_id" in query else len(ids)
    fitting = cards[begin:end]
    page = fitting[-int(limit) :] if "before_id" in query else fitting[: int(limit)]
    edges = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
    return {"data": page, "has_more": len(page) < len(fitting), **edges}
