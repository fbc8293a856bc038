"""Server-sent events of a streamed answer.

Most chunks differ in their text alone: each choice has a prepared chunk with a hole, and only the text is encoded.
"""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from inferd.gateway.dialects.openai.answer import Answer, Choice, prompt_fields
from inferd.gateway.errors import to_reply
from inferd.worker.client import Update

DONE = b"data: [DONE]\n\n"
_encode = msgspec.json.encode


def to_sse(value: Any) -> bytes:
    return b"data: " + _encode(value) + b"\n\n"


class ChunkStream:
    """The StreamWriter of OpenAI's two routes."""

    content_type = b"text/event-stream; charset=utf-8"
    keep_alive = b": keep-alive\n\n"

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._call = call = answer.call
        options = call.body.stream_options
        self._kind = "chat.completion.chunk" if call.is_chat else "text_completion"
        self._is_continuous = options is not None and options.continuous_usage_stats
        self._is_plain = not (call.body.return_token_ids or self._is_continuous or call.drops_output)
        self._opened: set[int] = set()
        self._num_unfinished = len(answer.choices)
        self._holes: dict[int, tuple[bytes, bytes]] = {}  # choice -> the chunk before and after its text

    def encode(self, updates: list[Update]) -> bytes:
        """All that `updates` add, ready to be sent; b"" when text is held back."""
        parts: list[bytes] = []
        for update in updates:
            event = update.event
            choice = self._answer.choice_of(event)
            self._answer.count(event)
            if choice.index not in self._opened:
                parts += self._open(choice, update)
            if self._is_plain and event.logprobs is None:
                if event.text:
                    before, after = self._holes[choice.index]
                    parts += (before, _encode(event.text), after)
            elif not self._call.drops_output:
                parts += self._full_chunk(choice, update)
            if event.finish_reason is not None:
                parts.append(self._finish(choice, update))
        return b"".join(parts)

    def end(self) -> bytes:
        return self._usage_chunk() + DONE

    def _open(self, choice: Choice, update: Update) -> list[bytes]:
        """The first chunk of a choice: its role, or the echoed prompt. The prompt's logprobs come with one event only,
        so that event opens every choice of its prompt."""
        if update.event.prompt_logprobs is None:
            return [self._first_chunk(choice, update)]
        unopened = [one for one in self._answer.siblings_of(update.event) if one.index not in self._opened]
        return [self._first_chunk(one, update) for one in unopened]

    def _first_chunk(self, choice: Choice, update: Update) -> bytes:
        self._opened.add(choice.index)
        marker = uuid.uuid4().hex
        before, _, after = self._chunk(self._piece(choice, marker)).partition(marker.encode())
        self._holes[choice.index] = before[:-1], after[1:]  # the quotation marks come with the text
        extra = prompt_fields(self._call, choice.accepted)
        if self._call.is_chat:
            body = {**self._piece(choice, ""), "delta": {"role": "assistant", "content": ""}}
            return self._chunk(body, extra)
        if not self._call.echo:
            return self._chunk({**self._piece(choice, ""), **extra}) if extra else b""
        logprobs = self._answer.echoed_logprobs(choice, update)
        return self._chunk({**self._piece(choice, choice.accepted.prompt_text or ""), **extra, "logprobs": logprobs})

    def _full_chunk(self, choice: Choice, update: Update) -> list[bytes]:
        event = update.event
        logprobs = self._answer.logprobs_of(choice, update)
        if not event.text and logprobs is None and not self._call.body.return_token_ids:
            return []
        piece = {**self._piece(choice, event.text), "logprobs": logprobs}
        if self._call.body.return_token_ids:
            piece["token_ids"] = list(event.token_ids)
        return [self._chunk(piece)]

    def _finish(self, choice: Choice, update: Update) -> bytes:
        event = update.event
        self._num_unfinished -= 1
        piece = self._piece(choice, "")
        if self._call.is_chat:
            piece["delta"] = {}
        piece["finish_reason"] = "length" if self._call.drops_output else event.finish_reason
        piece["stop_reason"] = None if self._call.drops_output else event.stop_reason
        is_last = self._num_unfinished == 0 and not self._call.includes_usage
        return self._chunk(piece, self._answer.last_fields() if is_last else {})

    def fail(self, error: Exception) -> bytes:
        return to_sse(to_reply(error).body)

    def _usage_chunk(self) -> bytes:
        if not self._call.includes_usage:
            return b""
        body: dict[str, Any] = {**self._answer.head, "object": self._kind, "choices": []}
        body["usage"] = self._answer.usage.to_json()
        return to_sse(body | self._answer.last_fields())

    def _piece(self, choice: Choice, text: str) -> dict[str, Any]:
        body: dict[str, Any] = {"delta": {"content": text}} if self._call.is_chat else {"text": text}
        return {"index": choice.index, **body, "logprobs": None, "finish_reason": None}

    def _chunk(self, piece: dict[str, Any], extra: dict[str, Any] | None = None) -> bytes:
        body: dict[str, Any] = {**self._answer.head, "object": self._kind, "choices": [piece], **(extra or {})}
        if self._is_continuous:
            body["usage"] = self._answer.usage.to_json()
        elif self._call.includes_usage:
            body["usage"] = None
        return to_sse(body)
