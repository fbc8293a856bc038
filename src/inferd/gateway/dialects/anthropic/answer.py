"""An answer: its head, its blocks of content, its end; whole, or as the events of a stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from inferd.errors import InferdError
from inferd.gateway.calls import AnswerContext
from inferd.gateway.chat import TurnReader
from inferd.gateway.dialects.anthropic.history import signature_of
from inferd.gateway.errors import to_reply
from inferd.gateway.segments import Kind, Opened, Part, Piece, Segments
from inferd.parsing.deltas import Delta
from inferd.worker.client import Update

Event = dict[str, Any]
PATH = "/v1/messages"


class Blocks:
    """Deltas as events of content blocks."""

    def __init__(self, *, shows_thinking: bool) -> None:
        self._segments = Segments()
        self._shows_thinking = shows_thinking
        self._index = -1
        self._kind: Kind = "text"

    def push(self, deltas: Iterable[Delta]) -> list[Event]:
        return self._events(self._segments.push(deltas))

    def close(self) -> list[Event]:
        """Ends the block that is open."""
        return self._events(self._segments.close())

    def _events(self, parts: Iterable[Part]) -> list[Event]:
        return [event for part in parts for event in self._of(part)]

    def _of(self, part: Part) -> list[Event]:
        if isinstance(part, Opened):
            self._index += 1
            self._kind = part.kind
            return [{"type": "content_block_start", "index": self._index, "content_block": _block(part)}]
        if isinstance(part, Piece):
            return [] if self._kind == "reasoning" and not self._shows_thinking else [self._delta(part.text)]
        stop = {"type": "content_block_stop", "index": self._index}
        if part.kind != "reasoning":
            return [stop]
        signature = signature_of("" if self._shows_thinking else part.text)
        return [self._event({"type": "signature_delta", "signature": signature}), stop]

    def _delta(self, text: str) -> Event:
        kind, field = _DELTAS[self._kind]
        return self._event({"type": kind, field: text})

    def _event(self, delta: dict[str, str]) -> Event:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}


_DELTAS: dict[Kind, tuple[str, str]] = {  # kind of segment -> type of its deltas, their field
    "text": ("text_delta", "text"),
    "reasoning": ("thinking_delta", "thinking"),
    "call": ("input_json_delta", "partial_json"),
}


def _block(opened: Opened) -> dict[str, Any]:
    if opened.call is not None:
        return {"type": "tool_use", "id": opened.call.id, "name": opened.call.name, "input": {}}
    if opened.kind == "reasoning":
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "text", "text": ""}


class Answer:
    """What was counted and read so far. max_tokens: what was asked for; the context may leave less."""

    def __init__(
        self,
        *,
        message_id: str,
        context: AnswerContext,
        reader: TurnReader,
        max_tokens: int,
        shows_thinking: bool,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self._id, self._model, self._reader, self._max_tokens = message_id, context.model, reader, max_tokens
        self.warnings = list(warnings)
        self._blocks = Blocks(shows_thinking=shows_thinking)
        self._num_prompt = len(context.accepted[0].prompt_token_ids)
        self._num_cached = 0
        self._num_output = 0

    def push(self, update: Update) -> list[Event]:
        event = update.event
        self._num_output += len(event.token_ids)
        self._num_cached = event.num_cached_tokens or self._num_cached
        events = self._blocks.push(self._reader.push(event))
        return events if event.finish_reason is None else events + self._blocks.close()

    def head(self) -> dict[str, Any]:
        message: dict[str, Any] = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self.usage(),
        }
        return message | ({"warnings": self.warnings} if self.warnings else {})

    def usage(self) -> dict[str, Any]:
        """input_tokens are those that were computed: all of the prompt but what came from the prefix cache."""
        return {
            "input_tokens": self._num_prompt - self._num_cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": self._num_cached,
            "output_tokens": self._num_output,
            "output_tokens_details": {"thinking_tokens": self._reader.num_reasoning_tokens},
        }

    def stop(self) -> dict[str, str | None]:
        reason, stop = self._reader.finish_reason, self._reader.stop_reason
        if reason == "tool_calls":
            return {"stop_reason": "tool_use", "stop_sequence": None}
        if reason == "length":
            is_own = self._num_output >= self._max_tokens
            return {"stop_reason": "max_tokens" if is_own else "model_context_window_exceeded", "stop_sequence": None}
        if isinstance(stop, str):
            return {"stop_reason": "stop_sequence", "stop_sequence": stop}
        return {"stop_reason": "end_turn", "stop_sequence": None}


class MessageStream:
    """The StreamWriter. The first event comes with the first token: only then it is known what the cache held."""

    content_type = b"text/event-stream; charset=utf-8"

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._is_started = False
        self.keep_alive = _to_sse({"type": "ping"})

    def encode(self, updates: list[Update]) -> bytes:
        events = [event for update in updates for event in self._answer.push(update)]
        if not self._is_started:
            self._is_started = True
            events.insert(0, {"type": "message_start", "message": self._answer.head()})
        return b"".join(map(_to_sse, events))

    def end(self) -> bytes:
        answer = self._answer
        last = {"type": "message_delta", "delta": answer.stop(), "usage": answer.usage()}
        return _to_sse(last) + _to_sse({"type": "message_stop"})

    def fail(self, error: InferdError | Exception) -> bytes:
        return _to_sse(to_reply(error, PATH).body)


class WholeMessage:
    """The WholeWriter: puts the events of a stream together."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._blocks: list[dict[str, Any]] = []
        self._pieces: list[list[str]] = []  # of each block

    def add(self, update: Update) -> None:
        for event in self._answer.push(update):
            if event["type"] == "content_block_start":
                self._blocks.append(event["content_block"])
                self._pieces.append([])
            elif event["type"] == "content_block_delta":
                self._add_delta(event["delta"])

    def to_json(self) -> dict[str, Any]:
        rows = zip(self._blocks, self._pieces, strict=True)
        content = [self._finished(block, "".join(pieces)) for block, pieces in rows]
        message = {**self._answer.head(), "content": [block for block in content if block is not None]}
        return message | self._answer.stop()

    def _add_delta(self, delta: dict[str, str]) -> None:
        if delta["type"] == "signature_delta":
            self._blocks[-1]["signature"] = delta["signature"]
        else:
            self._pieces[-1].append(next(text for name, text in delta.items() if name != "type"))

    def _finished(self, block: dict[str, Any], text: str) -> dict[str, Any] | None:
        if block["type"] != "tool_use":
            return {**block, block["type"]: text}  # the field has the name of the type
        try:
            return {**block, "input": msgspec.json.decode(text or "{}")}
        except (msgspec.DecodeError, RecursionError):  # a stream shows what there is; here it must be an object
            name = block["name"]
            self._answer.warnings.append(f"content: the input of tool_use {name!r} was cut off; it is left out")
            return None


def _to_sse(event: Event) -> bytes:
    kind: str = event["type"]
    return b"event: " + kind.encode() + b"\ndata: " + msgspec.json.encode(event) + b"\n\n"
