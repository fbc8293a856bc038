"""The dashboard's page at /, and the plans it asks for at /inferd/plan.

The page's headers let it load nothing and call nobody but this server. It holds no data, so the guard lets everybody
have it (`guard.OPEN_PATHS`); what it asks for needs the key like any other call.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inferd.dashboard import page
from inferd.errors import InvalidRequestError, OverloadedError
from inferd.gateway.body import read_body
from inferd.gateway.completion import unless_gone
from inferd.gateway.config import ServerConfig
from inferd.gateway.errors import json_response
from inferd.gateway.json_fields import decode

PLAN_SECONDS = 20.0  # a plan takes 0.2 to 1.5 s on an idle machine
MAX_WAITING_PLANS = 8
_PLANNER = "inferd.dashboard.planning"
_HEADERS = {
    "cache-control": "no-cache",  # asked for each time, sent again only when it changed
    "vary": "accept",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Dashboard:
    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._turn = asyncio.Lock()  # one plan at a time
        self._num_plans = 0

    def routes(self) -> list[Route]:
        return [
            Route("/", self.page),
            Route("/inferd/plan", self.choices, methods=["GET"]),
            Route("/inferd/plan", self.plan, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """For browsers, which ask for HTML; Ollama's clients look here for a server of its kind."""
        if "text/html" not in request.headers.get("accept", ""):
            return Response("Ollama is running", media_type="text/plain", headers={"vary": "accept"})
        built = page()
        headers = {**_HEADERS, "content-security-policy": built.policy, "etag": built.etag}
        if request.headers.get("if-none-match") == built.etag:
            return Response(status_code=304, headers=headers)
        return Response(built.html, headers=headers, media_type="text/html")

    async def choices(self, request: Request) -> Response:
        return json_response(await unless_gone(request.receive, self._planner(None)))

    async def plan(self, request: Request) -> Response:
        fields = decode(await read_body(request, self._config))
        return json_response(await unless_gone(request.receive, self._planner(fields)))

    async def _planner(self, fields: dict[str, Any] | None) -> Any:
        """What the planner says to fields, None for its choices. Raises InvalidRequestError, OverloadedError."""
        if self._num_plans >= MAX_WAITING_PLANS:
            raise OverloadedError("Too many plans are waiting.", retry_after=1.0)
        self._num_plans += 1
        try:
            async with self._turn:
                answer = await _run_planner(msgspec.json.encode(fields))
        finally:
            self._num_plans -= 1
        if "error" in answer:
            raise InvalidRequestError(answer["error"])
        return answer


async def _run_planner(fields: bytes) -> Any:
    pipe = asyncio.subprocess.PIPE
    environment = {name: value for name, value in os.environ.items() if name != "INFERD_API_KEY"}
    command = sys.executable, "-P", "-m", _PLANNER  # -P: no module is taken from the working directory
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment)
    try:
        async with asyncio.timeout(PLAN_SECONDS):
            output, _ = await process.communicate(fields)
    except TimeoutError:
        raise OverloadedError(f"The plan was not ready within {PLAN_SECONDS:g} s.", retry_after=5.0) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"{_PLANNER} ended with status {process.returncode}")
    return msgspec.json.decode(output)
