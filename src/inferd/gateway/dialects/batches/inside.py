"""A line of a batch is put to the gateway's own routes, as a client would, on behalf of the batch's owner."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Scope

from inferd.errors import InvalidRequestError
from inferd.gateway.errors import to_reply
from inferd.jobs.runner import Answer
from inferd.jobs.store import Batch

_UNFIT = ("stream", "background")  # answers that come later or in pieces have no place in a file


async def ask(app: ASGIApp, batch: Batch, body: dict[str, Any]) -> Answer:
    """Status and body of the answer. Given up when the task is cancelled."""
    for name in _UNFIT:
        if body.get(name):
            error = InvalidRequestError(f"{name} must be false in a batch", param=name)
            reply = to_reply(error, batch.endpoint)
            return reply.status, reply.body
    status, parts, sent = 500, [b""], [msgspec.json.encode(body)]

    async def receive() -> Message:
        if sent:
            return {"type": "http.request", "body": sent.pop()}
        await asyncio.Event().wait()  # this client never leaves
        raise AssertionError

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        parts.append(message.get("body", b""))

    try:
        await app(_scope(batch), receive, send)
        answer: dict[str, Any] = msgspec.json.decode(b"".join(parts))
    except Exception as error:  # the route failed and said so in its log
        reply = to_reply(error, batch.endpoint)
        return reply.status, reply.body
    return status, answer


def _scope(batch: Batch) -> Scope:
    path = batch.endpoint
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "client": None,
        "server": None,
        "tenant": batch.tenant,
        "is_background": True,
    }
