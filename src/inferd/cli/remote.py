"""Calls of commands to a running server; the key is read from INFERD_API_KEY."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import Any

from inferd.cli.output import Failure

TIMEOUT = 600.0  # seconds: a first request may load models


def call(url: str, route: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
    """The JSON of the answer. Raises Failure with what the server says, or that none answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url.rstrip("/") + route, data, method=method)
    request.add_header("content-type", "application/json")
    if key := os.environ.get("INFERD_API_KEY"):
        request.add_header("authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        raise Failure(_message(error)) from None
    except (urllib.error.URLError, TimeoutError, ValueError) as error:
        raise Failure(f"no server answers at {url}: {getattr(error, 'reason', error)}") from None


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {error.code} {error.reason}"
