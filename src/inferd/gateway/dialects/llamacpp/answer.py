"""Answers as llama-server's clients read them: an object for each sequence, or an event for each piece of text."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from inferd.gateway.calls import AnswerContext
from inferd.gateway.dialects.llamacpp.server import settings_json
from inferd.gateway.dialects.openai.logprobs import floored
from inferd.gateway.errors import to_reply
from inferd.types import PositionLogprobs, RequestTimings, TokenLogprob
from inferd.worker.client import Update
from inferd.worker.protocol import Accepted

if TYPE_CHECKING:
    from inferd.gateway.dialects.llamacpp.call import Call


@dataclass(slots=True)
class Sequence:
    """One sequence of the answer, as far as it has come. Times are of time.monotonic."""

    index: int
    accepted: Accepted
    begin: float
    first: float | None = None
    last: float = 0.0
    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    probabilities: list[dict[str, Any]] = field(default_factory=list)
    num_cached: int = 0
    timings: RequestTimings | None = None
    stop_type: str = "none"
    stopping_word: str = ""

    def add(self, update: Update) -> None:
        event = update.event
        self.last = time.monotonic()
        self.first = self.first or self.last
        self.texts.append(event.text)
        self.token_ids += event.token_ids
        self.num_cached = event.num_cached_tokens
        self.timings = event.timings or self.timings
        self.probabilities += [_with_top(one, update.pieces) for one in event.logprobs or ()]
        if event.finish_reason == "length":
            self.stop_type = "limit"
        elif event.finish_reason is not None:
            self.stop_type = "word" if isinstance(event.stop_reason, str) else "eos"
            self.stopping_word = event.stop_reason if isinstance(event.stop_reason, str) else ""

    @property
    def num_evaluated(self) -> int:
        return len(self.accepted.prompt_token_ids)

    def timings_json(self, num_predicted: int) -> dict[str, Any]:
        """The engine's own times where it has told them, else those seen here."""
        timings, first = self.timings, self.first or self.begin
        prompt = timings.prefill if timings else first - self.begin
        predicted = timings.decode if timings else self.last - first
        num_prompt = self.num_evaluated - self.num_cached
        return {
            "cache_n": self.num_cached,
            **_speed("prompt", num_prompt, prompt),
            **_speed("predicted", num_predicted, predicted),
        }


class Answer:
    """The sequences of a call and which of them an event belongs to."""

    def __init__(self, call: Call, context: AnswerContext) -> None:
        self.call = call
        self._model = context.model
        self._settings = settings_json(call.settings(context.ready), context.ready, call.body)
        now, n = time.monotonic(), context.n
        self.sequences = [Sequence(at * n + i, one, now) for at, one in enumerate(context.accepted) for i in range(n)]
        self._first_of = {one.request_id: at * n for at, one in enumerate(context.accepted)}

    def add(self, update: Update) -> Sequence:
        event = update.event
        sequence = self.sequences[self._first_of[event.request_id] + event.index]
        sequence.add(update)
        return sequence

    def final(self, sequence: Sequence) -> dict[str, Any]:
        call, body = self.call, self.call.body
        dropped, streamed = call.drops_output, body.stream
        content = "" if dropped else "".join(sequence.texts)
        num_predicted = 0 if dropped else len(sequence.token_ids)
        fields: dict[str, Any] = {
            "index": sequence.index,
            "content": "" if streamed else content,
            "tokens": sequence.token_ids if body.return_tokens and not (streamed or dropped) else [],
            "id_slot": -1,
            "stop": True,
            "model": self._model,
            "tokens_predicted": num_predicted,
            "tokens_evaluated": sequence.num_evaluated,
            "generation_settings": self._settings,
            "prompt": sequence.accepted.prompt_text or "",
            "has_new_line": "\n" in content,
            "truncated": False,
            "stop_type": "limit" if dropped else sequence.stop_type,
            "stopping_word": "" if dropped else sequence.stopping_word,
            "tokens_cached": sequence.num_cached,
            "timings": sequence.timings_json(num_predicted),
        }
        if body.n_probs and not streamed:
            fields["completion_probabilities"] = [] if dropped else sequence.probabilities
        if call.warnings:
            fields["warnings"] = list(call.warnings)
        return _picked(fields, body.response_fields) if body.response_fields else fields


class WholeAnswer:
    """The WholeWriter: one object, or a list where there are several sequences."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def add(self, update: Update) -> None:
        self._answer.add(update)

    def to_json(self) -> Any:
        bodies = [self._answer.final(sequence) for sequence in self._answer.sequences]
        return bodies[0] if len(bodies) == 1 else bodies


class EventStream:
    """The StreamWriter: events without an end mark, as this route has none."""

    content_type = b"text/event-stream; charset=utf-8"
    keep_alive = b":\n\n"

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._num_told: dict[int, int] = {}  # tokens of each sequence that were told; those of held back text wait

    def encode(self, updates: list[Update]) -> bytes:
        return b"".join(_event(body) for update in updates for body in self._bodies(update))

    def _bodies(self, update: Update) -> list[dict[str, Any]]:
        sequence = self._answer.add(update)
        bodies = []
        if (update.event.text or update.event.logprobs) and not self._answer.call.drops_output:
            bodies.append(self._piece(sequence, update))
        if update.event.finish_reason is not None:
            bodies.append(self._answer.final(sequence))
        return bodies

    def _piece(self, sequence: Sequence, update: Update) -> dict[str, Any]:
        body, num_told = self._answer.call.body, self._num_told.get(sequence.index, 0)
        self._num_told[sequence.index] = num_predicted = len(sequence.token_ids)
        fields: dict[str, Any] = {
            "index": sequence.index,
            "content": update.event.text,
            "tokens": sequence.token_ids[num_told:],
            "stop": False,
            "id_slot": -1,
            "tokens_predicted": num_predicted,
            "tokens_evaluated": sequence.num_evaluated,
        }
        if body.timings_per_token:
            fields["timings"] = sequence.timings_json(num_predicted)
        if body.n_probs:
            fields["completion_probabilities"] = sequence.probabilities[num_told:]
        return fields

    def end(self) -> bytes:
        return b""

    def fail(self, error: Exception) -> bytes:
        return _event(to_reply(error, "/completion").body)


def _event(body: Any) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _speed(name: str, num_tokens: int, seconds: float) -> dict[str, Any]:
    return {
        f"{name}_n": num_tokens,
        f"{name}_ms": seconds * 1e3,
        f"{name}_per_token_ms": seconds * 1e3 / num_tokens if num_tokens else 0.0,
        f"{name}_per_second": num_tokens / seconds if seconds > 0 else 0.0,
    }


def _with_top(position: PositionLogprobs, pieces: dict[int, bytes]) -> dict[str, Any]:
    top = [_probability(token, pieces) for token in position.top]
    return {**_probability(position.chosen, pieces), "top_logprobs": top}


def _probability(token: TokenLogprob, pieces: dict[int, bytes]) -> dict[str, Any]:
    piece = pieces.get(token.token_id, b"")
    text = piece.decode("utf-8", "ignore")
    return {"id": token.token_id, "token": text, "bytes": list(piece), "logprob": floored(token.logprob)}


def _picked(fields: dict[str, Any], paths: list[str]) -> dict[str, Any]:
    """What each path leads to, under the whole path as its name; a path that leads nowhere is left out."""
    picked = {}
    for path in paths:
        value: Any = fields
        for name in path.split("/"):
            value = value.get(name, msgspec.UNSET) if isinstance(value, dict) else msgspec.UNSET
        if value is not msgspec.UNSET:
            picked[path] = value
    return picked
