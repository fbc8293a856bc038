"""The one place where the error tree becomes HTTP."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.responses import Response

from inferd.errors import InferdError, InvalidRequestError, ModelNotFoundError, OverloadedError, TemplateError
from inferd.gateway.error_styles import Failure, style_of


class HttpError(InferdError):
    """A failure that belongs to HTTP alone: 401, 404, 405, 408, 413, 415, 421, 431."""

    def __init__(self, status: int, message: str, *, code: str | None = None, headers: Mapping[str, str] = {}) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers)


@dataclass(frozen=True, slots=True)
class ErrorReply:
    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def json(self) -> bytes:
        return msgspec.json.encode(self.body)


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def error_response(error: BaseException, path: str, names: Mapping[str, str] = {}) -> Response:
    """path: decides in which dialect's words and shape the error is told. names: of this call alone, over those."""
    reply = to_reply(error, path, names)
    return json_response(reply.body, reply.status, reply.headers)


def to_reply(error: BaseException, path: str = "", names: Mapping[str, str] = {}) -> ErrorReply:
    style = style_of(path)
    plain = to_failure(error)
    failure = style.apply(plain, names)
    # a retry cannot help a 4xx; a 5xx here is a restart or a full queue, and passes
    headers = {"x-should-retry": "false" if plain.status < 500 else "true"}
    if isinstance(error, HttpError):
        headers.update(error.headers)
    if isinstance(error, OverloadedError):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    return ErrorReply(failure.status, style.body(failure), headers)


def to_failure(error: BaseException) -> Failure:
    """Never a path, a traceback or a class name: what is not in the tree is "internal error"."""
    if isinstance(error, HttpError):
        kind = "authentication_error" if error.status == 401 else "invalid_request_error"
        return Failure(status=error.status, message=str(error), kind=kind, code=error.code)
    if isinstance(error, InvalidRequestError):
        kind, message = "invalid_request_error", error.message
        return Failure(status=400, message=message, kind=kind, param=error.param, code=error.code)
    if isinstance(error, TemplateError):
        return Failure(status=400, message=str(error), kind="invalid_request_error", param="messages")
    if isinstance(error, ModelNotFoundError):
        kind, code = "invalid_request_error", "model_not_found"
        return Failure(status=404, message=str(error), kind=kind, param="model", code=code)
    if isinstance(error, OverloadedError):
        return Failure(status=503, message=str(error), kind="server_error", code="overloaded")
    if isinstance(error, InferdError):
        return Failure(status=500, message=str(error), kind="server_error", code="engine_error")
    return Failure(status=500, message="Internal error.", kind="server_error")
