"""/api/pull: `inferd pull` as a process of its own, told line by line. The gateway itself fetches nothing."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from inferd.errors import InvalidRequestError, OverloadedError
from inferd.gateway.completion import unless_gone
from inferd.gateway.dialects.ollama.answer import to_line
from inferd.gateway.errors import HttpError, json_response

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,95}")  # a name of the store, never a path
_BEAT_SECONDS = 5.0


class Puller:
    """One pull at a time."""

    def __init__(self) -> None:
        self._is_pulling = False

    async def response(self, request: Request, name: str, *, is_streamed: bool) -> Response:
        """Raises InvalidRequestError for a name that cannot be one, OverloadedError while another pull runs."""
        if not _NAME.fullmatch(name):
            raise InvalidRequestError("model must be the name of a model that inferd pull knows", param="model")
        if self._is_pulling:
            raise OverloadedError("Another model is being pulled.", retry_after=10.0)
        if is_streamed:
            return StreamingResponse(self._lines(name), media_type="application/x-ndjson")
        error = await unless_gone(request.receive, self._pull(name))
        if error is not None:
            raise HttpError(500, error)
        return json_response({"status": "success"})

    async def _lines(self, name: str) -> AsyncIterator[bytes]:
        yield to_line({"status": "pulling manifest"})
        pulling = asyncio.ensure_future(self._pull(name))
        try:
            while not pulling.done():
                yield to_line({"status": f"pulling {name}"})
                await asyncio.wait({pulling}, timeout=_BEAT_SECONDS)
        finally:
            pulling.cancel()  # no effect on one that is done
        error = pulling.result()
        yield to_line({"status": "success"} if error is None else {"error": error})

    async def _pull(self, name: str) -> str | None:
        """What kept the model from coming; None when it is in the store."""
        self._is_pulling = True
        environment = {key: value for key, value in os.environ.items() if key != "INFERD_API_KEY"}
        command = sys.executable, "-P", "-m", "inferd", "pull", "--json", "--", name
        pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        process = None
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=null, stdout=null, stderr=pipe, env=environment, cwd="/"
            )
            _, told = await process.communicate()
        finally:
            self._is_pulling = False
            if process is not None and process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode == 0:
            return None
        lines = told.decode("utf-8", "replace").strip().splitlines()
        return lines[-1].removeprefix("error: ")[:500] if lines else f"the pull ended with status {process.returncode}"
