"""The one place where the error tree becomes HTTP."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.responses import Response

from inferd.errors import InferdError, InvalidRequestError, ModelNotFoundError, OverloadedError, TemplateError


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


def error_response(error: BaseException) -> Response:
    reply = to_reply(error)
    return json_response(reply.body, reply.status, reply.headers)


def _reply(status: int, message: str, kind: str, *, param: str | None = None, code: str | None = None) -> ErrorReply:
    # a retry cannot help a 4xx; a 5xx here is a restart or a full queue, and passes
    headers = {"x-should-retry": "false" if status < 500 else "true"}
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return ErrorReply(status, body, headers)


def to_reply(error: BaseException) -> ErrorReply:
    """Never a path, a traceback or a class name: what is not in the tree is "internal error"."""
    if isinstance(error, HttpError):
        kind = "authentication_error" if error.status == 401 else "invalid_request_error"
        reply = _reply(error.status, str(error), kind, code=error.code)
        reply.headers.update(error.headers)
        return reply
    if isinstance(error, InvalidRequestError):
        return _reply(400, error.message, "invalid_request_error", param=error.param, code=error.code)
    if isinstance(error, TemplateError):
        return _reply(400, str(error), "invalid_request_error", param="messages")
    if isinstance(error, ModelNotFoundError):
        return _reply(404, str(error), "invalid_request_error", param="model", code="model_not_found")
    if isinstance(error, OverloadedError):
        reply = _reply(503, str(error), "server_error", code="overloaded")
        reply.headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
        return reply
    if isinstance(error, InferdError):
        return _reply(500, str(error), "server_error", code="engine_error")
    return _reply(500, "Internal error.", "server_error")
