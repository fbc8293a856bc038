"""The bytes of a request's body, within the limits of the configuration."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from inferd.gateway.config import ServerConfig
from inferd.gateway.errors import HttpError

_CLOSE = {"connection": "close"}  # the rest of the body is not read


async def read_body(request: Request, config: ServerConfig, *, any_type: bool = False) -> bytes:
    """Of plain JSON. Raises HttpError: 415 for another type or an encoding, 413 when too large, 408 when too slow.

    any_type: JSON may come under another type, as curl sends it, unless it comes from a page: a page of another origin
    can send other types without being asked (CORS).
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    is_from_page = "origin" in request.headers or "sec-fetch-site" in request.headers
    if kind != "application/json" and (is_from_page or not any_type):
        raise HttpError(415, "The content type must be application/json.", headers=_CLOSE)
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise HttpError(415, "The body must not be compressed.", headers=_CLOSE)
    return await read_bytes(request, config)


async def read_bytes(request: Request, config: ServerConfig) -> bytes:
    """Of any type, as they were sent. Raises HttpError: 413 when too large, 408 when too slow."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > config.max_body_size:
        raise _too_large(config)
    try:
        async with asyncio.timeout(config.body_timeout):
            return await _collect(request, config)
    except TimeoutError:
        message = f"The body did not arrive within {config.body_timeout:g} s."
        raise HttpError(408, message, headers=_CLOSE) from None
    except ClientDisconnect:
        raise HttpError(499, "The client left.") from None


async def _collect(request: Request, config: ServerConfig) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > config.max_body_size:
            raise _too_large(config)
    return bytes(body)


def _too_large(config: ServerConfig) -> HttpError:
    return HttpError(413, f"The body is larger than {config.max_body_size} bytes.", headers=_CLOSE)
