"""A request to the gateway's own application, without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.types import ASGIApp, Message


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """host: a value of the Host header that the gateway lets in. address: (IP, port) of the peer, where it has one."""

    headers: Mapping[str, str]
    host: str
    address: tuple[str, int] | None


class Inner:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def ask(self, caller: Caller, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """The whole answer. Who cancels this cancels the request, as a client does that leaves."""
        inbox: asyncio.Queue[Message] = asyncio.Queue()
        inbox.put_nowait({"type": "http.request", "body": body, "more_body": False})
        outbox: list[Message] = []

        async def send(message: Message) -> None:
            outbox.append(message)

        own = {**headers, "content-length": str(len(body))}
        await self._app(_scope(caller, method, path, own), inbox.get, send)
        start, *parts = outbox
        told = {name.decode().lower(): value.decode("latin-1") for name, value in start["headers"]}
        return Answer(start["status"], told, b"".join(part.get("body", b"") for part in parts))


def _scope(caller: Caller, method: str, path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    every = {"host": caller.host, **caller.headers, **headers}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1", "replace")) for name, value in every.items()],
        "client": caller.address,
        "server": None,
    }
