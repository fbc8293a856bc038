"""What every request passes first: its id, the Host header, the key. Pure ASGI, decided on the path as it came."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
import uuid
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inferd.gateway.config import ServerConfig
from inferd.gateway.errors import HttpError, error_response

OPEN_PATHS = frozenset({b"/health", b"/"})  # the page holds no data
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_SLASHES = re.compile("//+")
# types that a page may send to another origin without that origin's consent (CORS)
_SENT_UNASKED = ("", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded")


class Guard:
    def __init__(self, app: ASGIApp, config: ServerConfig) -> None:
        self._app = app
        self._hosts = config.checked_hosts
        self._origins = frozenset(config.cors_origins)
        self._digests = [hashlib.sha256(key.encode()).digest() for key in config.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _labelled(scope["headers"], send)
        try:
            self._check(scope)
        except HttpError as error:
            await error_response(error, _clean(scope["path"]))(scope, receive, send)
            return
        scope["path"] = _clean(scope["path"])
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        self._check_host(_values(scope, b"host"))
        is_read = scope["method"] in ("GET", "HEAD")
        if not self._digests and not is_read:
            self._check_page(scope)
        if not self._digests or (is_read and scope["raw_path"] in OPEN_PATHS):
            return
        for key in _keys(scope):
            digest = hashlib.sha256(key).digest()
            matches = [hmac.compare_digest(digest, known) for known in self._digests]  # all are compared
            if any(matches):
                scope["tenant"] = tenant_of(key)
                return
        headers = {"www-authenticate": "Bearer"}
        raise HttpError(401, "Missing or wrong API key.", code="invalid_api_key", headers=headers)

    def _check_host(self, hosts: list[bytes]) -> None:
        if len(hosts) > 1:
            raise HttpError(400, "There is more than one Host header.")
        if self._hosts is None:
            return
        host = (hosts[0] if hosts else b"").decode("latin-1").lower()
        name, _, port = host.rpartition(":")
        if (name if port.isdigit() else host) not in self._hosts:
            raise HttpError(421, "This host name is not served here.")

    def _check_page(self, scope: Scope) -> None:
        """A page of another site must not upload files, or load and unload models, where no key keeps it out."""
        origin = next(iter(_values(scope, b"origin")), b"").decode("latin-1")
        host = next(iter(_values(scope, b"host")), b"").decode("latin-1")
        if not origin or origin.partition("://")[2] == host or not self._origins.isdisjoint((origin, "*")):
            return
        kind = next(iter(_values(scope, b"content-type")), b"").decode("latin-1").partition(";")[0].strip().lower()
        if kind in _SENT_UNASKED:
            raise HttpError(415, "Pages of another origin must be allowed with --cors-origin to send this type.")


def tenant_of(key: bytes) -> str:
    """The name under which a key's requests are counted and kept apart."""
    return "key:" + hashlib.sha256(key).hexdigest()[:16]


def _clean(path: str) -> str:
    """The path that is routed: KServe's prefix for OpenAI's routes, and doubled slashes, do not count."""
    path = _SLASHES.sub("/", path)
    return path.removeprefix("/openai") if path.startswith("/openai/v1/") else path


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for header, value in scope["headers"] if header == name]


def _keys(scope: Scope) -> Iterable[bytes]:
    for value in _values(scope, b"authorization"):
        scheme, _, key = value.partition(b" ")
        if scheme.lower() == b"bearer":
            yield key.strip()
    yield from _values(scope, b"x-api-key")


def _labelled(headers: Iterable[tuple[bytes, bytes]], send: Send) -> Send:
    """send, with x-request-id (the client's, where it is a sane one) and the time taken on every response."""
    sent = next((value for name, value in headers if name == b"x-request-id"), b"")
    request_id = sent if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex.encode()
    begin = time.perf_counter()

    async def labelled(message: Message) -> None:
        if message["type"] == "http.response.start":
            taken = b"%d" % round((time.perf_counter() - begin) * 1000)
            own = [
                (b"x-request-id", request_id),
                (b"request-id", request_id),  # where Anthropic's clients look for it
                (b"openai-processing-ms", taken),
            ]
            message = {**message, "headers": [*message.get("headers", ()), *own]}
        await send(message)

    return labelled
