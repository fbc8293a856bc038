"""uvicorn's HTTP/1.1 protocol with the limits it lacks: on headers, and on peers that send or read nothing."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from inferd.gateway.errors import HttpError, to_reply

MAX_HEADER_SIZE = 64 * 1024  # bytes of request line and headers
HEADER_SECONDS = 10.0  # from the first byte, or from the connection, to the last header
STALL_SECONDS = 30.0  # how long a peer may leave its full window unread
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class Connection(HttpToolsProtocol):
    _in_headers = True
    _header_size = 0
    _header_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.parser is None or self.transport.is_closing():
            return
        if self._in_headers:
            self._header_size += len(data)
            data = _without_upgrade(data)
        super().data_received(data)
        if self._in_headers and self._header_size > MAX_HEADER_SIZE:
            self._refuse(HttpError(431, f"The headers are larger than {MAX_HEADER_SIZE} bytes."))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True
        if self._header_timer is None:
            self._await_headers()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_headers:  # trailers are dropped: nothing may be added to what the guard has seen
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._header_size = 0
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(HttpError(400, "This is not a valid HTTP/1.1 request."))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall_timer = self.loop.call_later(STALL_SECONDS, self._drop)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _await_headers(self) -> None:
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self._drop)

    def _cancel_timers(self) -> None:
        for timer in (self._header_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()

    def _drop(self) -> None:
        self.transport.abort()

    def _refuse(self, error: HttpError) -> None:
        """Answers what never became a request, and closes; a response that is on its way is not touched."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_started:
            cycle.disconnected = True  # its own answer would be the second
            cycle.message_event.set()
        if cycle is None or cycle.response_complete or not cycle.response_started:
            reply = to_reply(error)
            head = {"content-type": "application/json", "content-length": str(len(reply.json)), "connection": "close"}
            lines = "".join(f"{name}: {value}\r\n" for name, value in {**head, **reply.headers}.items())
            self.transport.write(f"HTTP/1.1 {error.status} \r\n{lines}\r\n".encode() + reply.json)
        self.transport.close()


def _without_upgrade(data: bytes) -> bytes:
    """The first head in data with its Upgrade header renamed: the parser would drop the body of such a request, which
    Java's client sends by default (it offers HTTP/2)."""
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nx-offer:", head) + end + rest if _UPGRADE.search(head) else data


def uvicorn_options() -> dict[str, Any]:
    """No WebSockets: an upgrade is answered as if it had not been asked for."""
    return {"http": Connection, "ws": "none", "lifespan": "off", "access_log": False, "server_header": False}
