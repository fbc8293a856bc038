"""A response that comes to be; whole, or as the events of a stream."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from inferd.errors import InferdError
from inferd.gateway.calls import AnswerContext, sampling_of
from inferd.gateway.chat import ChatTurn
from inferd.gateway.dialects.responses.output import Event, Output
from inferd.gateway.error_styles import RESPONSES, Failure
from inferd.gateway.errors import to_failure
from inferd.worker.client import Update

Response = dict[str, Any]
OnEnd = Callable[[Response], None]


def failed(response: Response, failure: Failure) -> Response:
    code = "server_error" if failure.status >= 500 else "invalid_prompt"
    return {**response, "status": "failed", "error": {"code": code, "message": failure.message}}


def cancelled(response: Response) -> Response:
    return {**response, "status": "cancelled"}


class Answer:
    """What was counted and read so far. head: the response while it has no output."""

    def __init__(self, *, head: Response, context: AnswerContext, turn: ChatTurn, is_encrypted: bool) -> None:
        used = sampling_of(context.ready, turn.sampling)
        self.head = {**head, "temperature": used.temperature, "top_p": used.top_p}
        self._output = Output(is_encrypted=is_encrypted)
        self._reader = turn.reader(context.ready)
        self._num_prompt = len(context.accepted[0].prompt_token_ids)
        self._num_cached = 0
        self._num_output = 0
        self._status = "in_progress"

    def push(self, update: Update) -> list[Event]:
        event = update.event
        self._num_output += len(event.token_ids)
        self._num_cached = event.num_cached_tokens or self._num_cached
        events = self._output.push(self._reader.push(event))
        if event.finish_reason is None:
            return events
        self._status = "incomplete" if self._reader.finish_reason == "length" else "completed"
        return events + self._output.close(self._status)

    def response(self) -> Response:
        """As it stands; final once all was pushed."""
        status = self._status
        more = {
            "status": status,
            "completed_at": int(time.time()) if status == "completed" else None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "output": list(self._output.items),
            "usage": self._usage(),
        }
        return {**self.head, **more}

    def _usage(self) -> dict[str, Any]:
        return {
            "input_tokens": self._num_prompt,
            "input_tokens_details": {"cached_tokens": self._num_cached, "cache_write_tokens": 0},
            "output_tokens": self._num_output,
            "output_tokens_details": {"reasoning_tokens": self._reader.num_reasoning_tokens},
            "total_tokens": self._num_prompt + self._num_output,
        }


class WholeResponse:
    """The WholeWriter."""

    def __init__(self, answer: Answer, on_end: OnEnd) -> None:
        self._answer = answer
        self._on_end = on_end

    def add(self, update: Update) -> None:
        self._answer.push(update)

    def to_json(self) -> Response:
        response = self._answer.response()
        self._on_end(response)
        return response


class ResponseStream:
    """The StreamWriter. The first events come with the first token, so that a client's time to it is a true one."""

    content_type = b"text/event-stream; charset=utf-8"
    keep_alive = b": keep-alive\n\n"

    def __init__(self, answer: Answer, on_end: OnEnd) -> None:
        self._answer = answer
        self._on_end = on_end
        self._num_sent = 0

    def encode(self, updates: list[Update]) -> bytes:
        events = [event for update in updates for event in self._answer.push(update)]
        return self._begin() + self._encoded(events)

    def end(self) -> bytes:
        response = self._answer.response()
        self._on_end(response)
        return self._encoded([{"type": f"response.{response['status']}", "response": response}])

    def fail(self, error: InferdError | Exception) -> bytes:
        """Clients that wait for the last event find it; those that read only text stop at the event `error`."""
        failure = RESPONSES.apply(to_failure(error))
        response = failed(self._answer.response(), failure)
        self._on_end(response)
        said = {"code": failure.code or failure.kind, "message": failure.message, "param": failure.param}
        last: list[Event] = [
            {"type": "response.failed", "response": response},
            {"type": "error", **said, "error": {**said, "type": failure.kind}},
        ]
        return self._begin() + self._encoded(last)

    def _begin(self) -> bytes:
        if self._num_sent:
            return b""
        kinds = ("response.created", "response.in_progress")
        return self._encoded([{"type": kind, "response": self._answer.head} for kind in kinds])

    def _encoded(self, events: list[Event]) -> bytes:
        parts = []
        for event in events:
            kind: str = event["type"]
            data = msgspec.json.encode({**event, "sequence_number": self._num_sent})
            parts.append(b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n")
            self._num_sent += 1
        return b"".join(parts)
