"""Calls of commands to a running server."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import Any

from inferd.cli.output import Failure

TIMEOUT = 600.0  # seconds: a first request may load models


def call(url: str, route: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
    """The JSON of the answer; the key is read from INFERD_API_KEY. Raises Failure as ask does."""
    data = None if body is None else json.dumps(body).encode()
    answer = ask(url.rstrip("/"), route, data, method=method, api_key=os.environ.get("INFERD_API_KEY"))
    try:
        return json.loads(answer)
    except ValueError:
        raise Failure(f"{url} answers, but not as inferd does") from None


def ask(
    base: str,
    route: str,
    body: bytes | None = None,
    *,
    kind: str = "application/json",
    method: str | None = None,
    api_key: str | None = None,
) -> bytes:
    """What the server answers. kind: of the body. Raises Failure with what it says, or that it does not answer."""
    headers = {"content-type": kind} if body is not None else {}
    if api_key:
        headers["authorization"] = f"Bearer {api_key}"
    try:
        request = urllib.request.Request(base + route, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
            content: bytes = reply.read()
            return content
    except urllib.error.HTTPError as error:
        raise Failure(_message(error)) from None
    except (OSError, ValueError) as error:  # a ValueError: no URL
        raise Failure(f"{base} does not answer: {getattr(error, 'reason', error)}") from None


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {error.code} {error.reason}"
