"""The routes of OpenAI's Responses."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inferd.errors import InvalidRequestError
from inferd.gateway.context import Gateway
from inferd.gateway.dialects.responses.call import Call, counted, read, turn_of
from inferd.gateway.dialects.responses.items import Item, items_of
from inferd.gateway.dialects.responses.jobs import PATH, Jobs
from inferd.gateway.dialects.responses.kept import Kept
from inferd.gateway.errors import HttpError, json_response
from inferd.gateway.router import Served
from inferd.ledger.responses import StoredResponse
from inferd.worker.protocol import Tokenize, Tokenized

MAX_PAGE = 100


def routes(gateway: Gateway) -> list[Route]:
    own = Responses(gateway)
    return [
        Route(PATH, own.create, methods=["POST"]),
        Route(f"{PATH}/input_tokens", own.count_tokens, methods=["POST"]),
        Route(f"{PATH}/{{id}}", own.one, methods=["GET", "DELETE"]),
        Route(f"{PATH}/{{id}}/cancel", own.cancel, methods=["POST"]),
        Route(f"{PATH}/{{id}}/input_items", own.input_items),
    ]


class Responses:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._kept = Kept(gateway.config.response_retention)
        self._jobs = Jobs()
        gateway.on_close.append(self._kept.close)

    async def create(self, request: Request) -> Response:
        fields = await self._gateway.fields(request)
        served = self._gateway.router.find(fields.get("model"))
        asked, tenant = read(fields), _tenant(request)
        is_stored = asked.body.store and self._kept.store() is not None
        if asked.body.store and not is_stored:
            asked.warnings.append("store: this server keeps no responses")
        context = await self._kept.context(asked.body.previous_response_id, tenant)
        turn, warnings = turn_of(asked.body, [*context, *asked.items], asked.sampling)
        asked.warnings.extend(warnings)
        keep = partial(self._kept.put, tenant, items=asked.items) if is_stored else _forget
        if asked.body.background:
            if not is_stored:
                raise InvalidRequestError("background: this server keeps no responses", param="background")
            return self._start(request, served, Call(asked=asked, turn=turn, is_stored=True, on_end=_forget), keep)
        return self._gateway.complete(request, served, Call(asked=asked, turn=turn, is_stored=is_stored, on_end=keep))

    def _start(self, request: Request, served: Served, call: Call, keep: Any) -> Response:
        head = call.head(served.name, "queued")
        keep(head)
        self._jobs.start(_tenant(request), head, self._gateway.complete(request, served, call), keep)
        return json_response(head)

    async def one(self, request: Request) -> Response:
        if request.path_params["id"] == "input_tokens":
            raise HttpError(405, "This method is not allowed here.", headers={"allow": "POST"})
        return await (self._delete(request) if request.method == "DELETE" else self._retrieve(request))

    async def _retrieve(self, request: Request) -> Response:
        if request.query_params.get("stream") == "true":
            raise InvalidRequestError("stream: a kept response cannot be streamed", param="stream")
        job = self._jobs.find(request.path_params["id"], _tenant(request))
        return json_response(job.response if job is not None else (await self._stored(request)).body)

    async def _delete(self, request: Request) -> Response:
        """Ends it first where it still runs."""
        response_id, tenant = request.path_params["id"], _tenant(request)
        if (job := self._jobs.find(response_id, tenant)) is not None:
            await self._jobs.cancel(job)
        if not await self._kept.delete(response_id, tenant):
            raise _not_found(response_id)
        return json_response({"id": response_id, "object": "response", "deleted": True})

    async def cancel(self, request: Request) -> Response:
        """One that has ended stays as it is."""
        job = self._jobs.find(request.path_params["id"], _tenant(request))
        if job is not None:
            return json_response(await self._jobs.cancel(job))
        stored = await self._stored(request)
        if not stored.body["background"]:
            raise InvalidRequestError("only a response of the background can be cancelled", param="id")
        return json_response(stored.body)

    async def input_items(self, request: Request) -> Response:
        return json_response(_page([_shown(item) for item in (await self._stored(request)).input], request))

    async def count_tokens(self, request: Request) -> Response:
        fields = await self._gateway.fields(request)
        model = self._gateway.router.find(fields.get("model")).model
        body = counted(fields)
        context = await self._kept.context(body.previous_response_id, _tenant(request))
        turn, _ = turn_of(body, [*context, *items_of(body.input)])
        async with model.lease("generate") as (_, ready):
            prompt = turn.prompt(ready)
        reply = await self._gateway.call(
            request, model, lambda call_id: Tokenize(call_id=call_id, prompt=prompt), Tokenized
        )
        return json_response({"object": "response.input_tokens", "input_tokens": len(reply.token_ids)})

    async def _stored(self, request: Request) -> StoredResponse:
        response_id = request.path_params["id"]
        stored = await self._kept.get(response_id, _tenant(request))
        if stored is None:
            raise _not_found(response_id)
        return stored


def _tenant(request: Request) -> str:
    tenant: str = request.scope.get("tenant", "")
    return tenant


def _forget(response: dict[str, Any]) -> None:
    """For a response that nobody may ask for again."""


def _not_found(response_id: str) -> HttpError:
    return HttpError(404, f"There is no response {response_id[:80]!r}.", code="response_not_found")


def _shown(item: Item) -> Item:
    """An input item as clients expect it back: the content of messages is a list of parts."""
    content = item.get("content")
    if item["type"] != "message" or not isinstance(content, str):
        return item
    kind = "output_text" if item.get("role") == "assistant" else "input_text"
    return {"status": "completed", **item, "content": [{"type": kind, "text": content}]}


def _page(items: list[Item], request: Request) -> dict[str, Any]:
    """At most `limit` items behind the one that `after` names, the last one first unless `order` is asc."""
    query = request.query_params
    limit, order = query.get("limit", "20"), query.get("order", "desc")
    if not limit.isdecimal() or not 1 <= int(limit[:9]) <= MAX_PAGE:
        raise InvalidRequestError(f"limit must be an integer from 1 to {MAX_PAGE}", param="limit")
    if order not in ("asc", "desc"):
        raise InvalidRequestError("order must be asc or desc", param="order")
    ordered = items if order == "asc" else items[::-1]
    ids = [item["id"] for item in ordered]
    if "after" in query and query["after"] not in ids:
        raise InvalidRequestError("after is not the id of an item", param="after")
    rest = ordered[ids.index(query["after"]) + 1 if "after" in query else 0 :]
    page = rest[: int(limit)]
    edges = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return {"object": "list", "data": page, "has_more": len(page) < len(rest), **edges}
