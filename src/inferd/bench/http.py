"""HTTP/1.1 for load: one request at a time on a kept connection; arrival times are taken before any parsing."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast
from urllib.parse import urlsplit

import httptools

from inferd.errors import ConfigError

Receive = Callable[[bytes, float], None]  # a piece of the body, and the perf_counter() of its arrival
CONNECT_SECONDS = 10


class RequestFailedError(Exception):
    """A request without an answer. `cause` is the same for all failures of a kind, `detail` may differ."""

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause = cause
        self.detail = detail


@dataclass(slots=True)
class Response:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    body: bytearray = field(default_factory=bytearray)  # of every answer that is no event stream
    is_started: bool = False


class Connection(asyncio.Protocol):
    """One socket; `exchange` may be called again after it returned while `is_reusable`."""

    def __init__(self) -> None:
        self.is_reusable = False
        self._transport: asyncio.Transport | None = None
        self._response = Response()
        self._answered: asyncio.Future[Response] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    async def exchange(self, request: bytes, receive: Receive) -> Response:
        """Raises RequestFailedError. A cancelled exchange closes the socket."""
        assert self._transport is not None
        self._response, self._receive, self._now = Response(), receive, 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._answered = asyncio.get_running_loop().create_future()
        self.is_reusable = False
        try:
            if self._transport.is_closing():
                raise RequestFailedError("connection closed")
            self._transport.write(request)
            return await self._answered
        finally:
            if not self.is_reusable:
                self.close()

    @property
    def is_started(self) -> bool:
        """A byte of the answer has come: asking again might do the work twice."""
        return self._response.is_started

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._now = perf_counter()
        self._response.is_started = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(RequestFailedError("malformed HTTP", str(error)))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_reusable = False
        headers = self._response.headers
        if exc is None and headers and not headers.keys() & {"content-length", "transfer-encoding"}:
            self._succeed()  # such a body ends with the connection
        else:
            self._fail(RequestFailedError("connection closed", "" if exc is None else str(exc)))

    # called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        self._response.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._response.status = self._parser.get_status_code()
        is_stream = self._response.headers.get("content-type", "").startswith("text/event-stream")
        self._is_stream = is_stream and self._response.status == 200

    def on_body(self, body: bytes) -> None:
        if self._is_stream:
            self._receive(body, self._now)
        else:
            self._response.body += body

    def on_message_complete(self) -> None:
        if self._response.status >= 200:
            self.is_reusable = self._parser.should_keep_alive()
            self._succeed()

    def _succeed(self) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(self._response)

    def _fail(self, error: RequestFailedError) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)


class HttpClient:
    """Requests to one origin over as many connections as there are requests at once."""

    def __init__(self, origin: str, headers: Mapping[str, str], timeout: float) -> None:
        """origin: scheme://host[:port]; timeout: seconds for a whole request. Raises ConfigError."""
        self._host, self._port, self._tls, host_header = parse_origin(origin)
        lines = {"host": host_header, "user-agent": "inferd-bench", "content-type": "application/json", **headers}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._timeout = timeout
        self._idle: list[Connection] = []

    async def request(self, method: str, path: str, body: bytes, receive: Receive) -> Response:
        """Raises RequestFailedError. `receive` gets the body of an event stream; other bodies are in the response."""
        head = f"{method} {path} HTTP/1.1\r\n{self._head}content-length: {len(body)}\r\n\r\n"
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(head.encode("latin-1") + body, receive)
        except TimeoutError:
            raise RequestFailedError("timeout", f"no end after {self._timeout:g} s") from None

    async def _exchange(self, request: bytes, receive: Receive) -> Response:
        while self._idle:
            connection = self._idle.pop()
            try:
                return await self._exchange_on(connection, request, receive)
            except RequestFailedError:
                if connection.is_started:
                    raise  # else: the server closed the idle connection, which it may
        return await self._exchange_on(await self._connect(), request, receive)

    async def _exchange_on(self, connection: Connection, request: bytes, receive: Receive) -> Response:
        response = await connection.exchange(request, receive)
        if connection.is_reusable:
            self._idle.append(connection)
        return response

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(Connection, self._host, self._port, ssl=self._tls)
        except TimeoutError:
            raise RequestFailedError("cannot connect", f"no answer within {CONNECT_SECONDS} s") from None
        except OSError as error:
            raise RequestFailedError("cannot connect", _reason(error)) from None
        return connection

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()


def parse_origin(origin: str) -> tuple[str, int, ssl.SSLContext | None, str]:
    """Host, port, TLS and Host header. Raises ConfigError."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"url must be http://HOST[:PORT] or https://HOST[:PORT], got {origin!r}")
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    return parts.hostname, port or (443 if tls else 80), tls, parts.netloc.rpartition("@")[2]


def _reason(error: OSError) -> str:
    """The words of the operating system alone: event loops add addresses, so that one cause would look like many."""
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    text = error.strerror or str(error)
    for word in ("Connection refused", "Name or service not known", "Network is unreachable", "No route to host"):
        if word in text or (word == "Connection refused" and isinstance(error, ConnectionRefusedError)):
            return word
    return text
