"""Answers as Ollama's clients read them: one JSON object, or one for each piece of text on a line of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from inferd.gateway.calls import AnswerContext
from inferd.gateway.dialects.openai.logprobs import ChatLogprobs
from inferd.gateway.errors import to_reply
from inferd.parsing.deltas import Content, Delta, Reasoning, ToolCallBegin
from inferd.types import RequestTimings
from inferd.worker.client import Update

if TYPE_CHECKING:
    from inferd.gateway.dialects.ollama.call import Call

_DONE_REASONS = {"stop": "stop", "tool_calls": "stop", "length": "length"}


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def to_line(value: Any) -> bytes:
    return msgspec.json.encode(value) + b"\n"


@dataclass(slots=True)
class Piece:
    """What one event, or all of them, add to an answer."""

    content: str = ""
    thinking: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    def __iadd__(self, other: Piece) -> Piece:
        self.content += other.content
        self.thinking += other.thinking
        self.calls += other.calls
        self.logprobs += other.logprobs
        return self

    @property
    def is_empty(self) -> bool:
        return not (self.content or self.thinking or self.calls or self.logprobs)

    def to_json(self, *, is_chat: bool) -> dict[str, Any]:
        more: dict[str, Any] = {"thinking": self.thinking} if self.thinking else {}
        if self.calls:
            more["tool_calls"] = self.calls
        last = {"logprobs": self.logprobs} if self.logprobs else {}
        if is_chat:
            return {"message": {"role": "assistant", "content": self.content, **more}, **last}
        return {"response": self.content, **more, **last}


class ToolCalls:
    """Calls of tools as whole objects: each is told once its arguments are complete."""

    def __init__(self) -> None:
        self._begun: ToolCallBegin | None = None
        self._arguments = ""
        self.broken: list[str] = []

    def begin(self, delta: ToolCallBegin) -> list[dict[str, Any]]:
        done = self.finish()
        self._begun = delta
        return done

    def add(self, text: str) -> None:
        self._arguments += text

    def finish(self) -> list[dict[str, Any]]:
        begun, text = self._begun, self._arguments
        self._begun, self._arguments = None, ""
        if begun is None:
            return []
        try:
            arguments = msgspec.json.decode(text or "{}", type=dict[str, Any])
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
            self.broken.append(f"the call of {begun.name} has no complete object of arguments: {text}")
            return []
        return [{"id": begun.id, "function": {"index": begun.index, "name": begun.name, "arguments": arguments}}]


class Times:
    """Durations in nanoseconds: the engine's own where it measured them, else those seen here."""

    def __init__(self, begin: float) -> None:
        self._begin = begin
        self._accepted = time.monotonic()
        self._first: float | None = None

    def on_tokens(self) -> None:
        self._first = self._first or time.monotonic()

    def to_json(self, timings: RequestTimings | None) -> dict[str, int]:
        """load_duration: until the model was there and had the request in its queue."""
        end = time.monotonic()
        first = self._first or end
        prefill, decode = (timings.prefill, timings.decode) if timings else (first - self._accepted, end - first)
        seconds = {
            "total_duration": end - self._begin,
            "load_duration": self._accepted - self._begin,
            "prompt_eval_duration": prefill,
            "eval_duration": decode,
        }
        return {name: round(value * 1e9) for name, value in seconds.items()}


class Answer:
    """The one sequence of a call: its events to pieces, and what is told at its end."""

    def __init__(self, call: Call, context: AnswerContext) -> None:
        self.call = call
        self.model = call.body.model
        self._accepted = context.accepted[0]
        self._num_kept = call.num_kept(context.ready)
        self._reader = call.reader(context.ready)
        self._warnings = call.all_warnings(context.ready)
        self._calls = ToolCalls()
        self._logprobs = ChatLogprobs(as_ids=False)
        self._times = Times(context.begin)
        self._timings: RequestTimings | None = None
        self._token_ids: list[int] = []

    def read(self, update: Update) -> Piece:
        event = update.event
        self._times.on_tokens()
        self._token_ids += event.token_ids
        self._timings = event.timings or self._timings
        piece = Piece()
        for delta in self._reader.push(event):
            self._put(delta, piece)
        if event.finish_reason is not None:
            piece.calls += self._calls.finish()
        if event.logprobs is not None and self.call.body.logprobs:
            piece.logprobs = self._logprobs.render(event.logprobs, update.pieces)["content"]
        return piece

    def _put(self, delta: Delta, piece: Piece) -> None:
        if isinstance(delta, Content):
            piece.content += delta.text
        elif isinstance(delta, Reasoning):
            piece.thinking += delta.text
        elif isinstance(delta, ToolCallBegin):
            piece.calls += self._calls.begin(delta)
        else:
            self._calls.add(delta.text)

    def to_json(self, piece: Piece, *, done: bool) -> dict[str, Any]:
        head = {"model": self.model, "created_at": now()}
        body = {**head, **piece.to_json(is_chat=self.call.is_chat), "done": done}
        return body | self._end() if done else body

    def _end(self) -> dict[str, Any]:
        prompt_ids = self._accepted.prompt_token_ids
        fields: dict[str, Any] = {"done_reason": _DONE_REASONS.get(self._reader.finish_reason or "", "stop")}
        if self.call.tells_context:
            fields["context"] = [*prompt_ids, *self._token_ids]
        fields |= self._times.to_json(self._timings)
        fields |= {"prompt_eval_count": len(prompt_ids), "eval_count": len(self._token_ids)}
        warnings = [*self._warnings, *self._calls.broken]
        if self._num_kept is not None and len(prompt_ids) >= self._num_kept:
            warnings.append(f"truncate: the prompt is its last {self._num_kept} tokens")
        return fields | ({"warnings": warnings} if warnings else {})


class LineStream:
    """The StreamWriter of chats and texts."""

    content_type = b"application/x-ndjson"
    keep_alive = b""  # every line is an answer to these clients

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def encode(self, updates: list[Update]) -> bytes:
        lines = []
        for update in updates:
            piece = self._answer.read(update)
            if not piece.is_empty:
                lines.append(to_line(self._answer.to_json(piece, done=False)))
            if update.event.finish_reason is not None:
                lines.append(to_line(self._answer.to_json(Piece(), done=True)))
        return b"".join(lines)

    def end(self) -> bytes:
        return b""

    def fail(self, error: Exception) -> bytes:
        return to_line(to_reply(error, "/api/").body)


class WholeAnswer:
    """The WholeWriter of chats and texts."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._whole = Piece()

    def add(self, update: Update) -> None:
        self._whole += self._answer.read(update)

    def to_json(self) -> dict[str, Any]:
        return self._answer.to_json(self._whole, done=True)
