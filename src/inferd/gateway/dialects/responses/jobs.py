"""Responses of the background: they run without their client, who asks for them again or cancels them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.responses import Response as HttpResponse
from starlette.types import Message, Scope

from inferd.gateway.dialects.responses.answer import cancelled, failed
from inferd.gateway.error_styles import Failure

Response = dict[str, Any]
PATH = "/v1/responses"


@dataclass(slots=True, eq=False)
class Job:
    """A response while it runs. response: as it stands."""

    tenant: str
    response: Response
    is_left: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Jobs:
    def __init__(self) -> None:
        self._running: dict[str, Job] = {}

    def start(self, tenant: str, head: Response, answer: HttpResponse, on_end: Callable[[Response], None]) -> None:
        """answer: what a client that waits would get. on_end gets the response as it is in the end."""
        job = Job(tenant, {**head, "status": "in_progress"})
        self._running[head["id"]] = job
        job.task = asyncio.create_task(self._run(job, answer, on_end))

    def find(self, response_id: str, tenant: str) -> Job | None:
        job = self._running.get(response_id)
        return job if job is not None and job.tenant == tenant else None

    async def cancel(self, job: Job) -> Response:
        """The response as it is then: it may have ended just before."""
        job.is_left.set()
        assert job.task is not None
        await asyncio.wait({job.task})
        return job.response

    async def _run(self, job: Job, answer: HttpResponse, on_end: Callable[[Response], None]) -> None:
        try:
            status, body = await _answered(answer, job.is_left)
            if status == 200:
                job.response = body
            elif job.is_left.is_set():
                job.response = cancelled(job.response)
            else:
                job.response = failed(job.response, _failure(status, body))
        except Exception:
            job.response = failed(job.response, _failure(500, {}))
            raise
        finally:
            del self._running[job.response["id"]]
            on_end(job.response)


async def _answered(answer: HttpResponse, is_left: asyncio.Event) -> tuple[int, dict[str, Any]]:
    """Plays the client of one answer, who leaves when is_left is set."""
    status, parts = 500, []

    async def receive() -> Message:
        await is_left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        parts.append(message.get("body", b""))

    scope: Scope = {"type": "http", "method": "POST", "path": PATH}
    await answer(scope, receive, send)
    body: dict[str, Any] = msgspec.json.decode(b"".join(parts))
    return status, body


def _failure(status: int, body: dict[str, Any]) -> Failure:
    message = body.get("error", {}).get("message", "Internal error.")
    return Failure(status=status, message=message, kind="server_error")
