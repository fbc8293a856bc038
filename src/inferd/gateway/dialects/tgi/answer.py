"""Answers as TGI's clients read them: a text with its tokens, an event for each token, or a list of predictions."""

from __future__ import annotations

import codecs
import time
from typing import TYPE_CHECKING, Any

import msgspec

from inferd.gateway.calls import AnswerContext
from inferd.gateway.dialects.openai.logprobs import floored
from inferd.gateway.errors import to_reply
from inferd.types import PositionLogprobs, RequestTimings, TokenEvent, TokenLogprob
from inferd.worker.client import Update

if TYPE_CHECKING:
    from inferd.gateway.dialects.tgi.call import GenerateCall

COMPUTE_TYPE = "cpu"


class Answer:
    """The one sequence of a call."""

    def __init__(self, call: GenerateCall, context: AnswerContext) -> None:
        self.call = call
        self.parameters = call.text.parameters
        self._accepted = context.accepted[0]
        self._begin, self._accepted_at = context.begin, time.monotonic()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text: list[str] = []
        self._timings: RequestTimings | None = None
        self._finish_reason = ""
        self._prefill: list[dict[str, Any]] = []
        self.num_tokens = 0

    def read(self, update: Update) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """The tokens of an event, where they are wanted, each with the likeliest ones at its place."""
        event = update.event
        self._text.append(event.text)
        self._timings = event.timings or self._timings
        self.num_tokens += len(event.token_ids)
        is_eos = event.finish_reason == "stop" and not isinstance(event.stop_reason, str)
        if event.finish_reason is not None:
            self._finish_reason = _finish_reason(event)
        if event.prompt_logprobs is not None:
            self._prefill = self._prompt_tokens(event.prompt_logprobs)
        positions = event.logprobs or ()
        tokens = [self._token(position, update.pieces) for position in positions]
        if is_eos and tokens:
            tokens[-1][0]["special"] = True
        return tokens

    @property
    def generated_text(self) -> str:
        text = "".join(self._text)
        return self.call.text.inputs + text if self.parameters.return_full_text else text

    @property
    def end(self) -> dict[str, Any]:
        """What details of every kind begin with."""
        reason, seed = self._finish_reason, self.call.text.seed
        return {"finish_reason": reason, "generated_tokens": self.num_tokens, "seed": seed}

    @property
    def prefill(self) -> list[dict[str, Any]]:
        return self._prefill

    @property
    def input_length(self) -> int:
        return len(self._accepted.prompt_token_ids)

    @property
    def headers(self) -> dict[str, str]:
        """Times are in milliseconds, but for x-compute-time."""
        now = time.monotonic()
        queue = self._timings.queue if self._timings else 0.0
        inference = self._timings.prefill + self._timings.decode if self._timings else now - self._accepted_at
        times = {
            "x-total-time": now - self._begin,
            "x-validation-time": self._accepted_at - self._begin,
            "x-queue-time": queue,
            "x-inference-time": inference,
            "x-time-per-token": inference / max(1, self.num_tokens),
        }
        return {
            "x-compute-type": COMPUTE_TYPE,
            "x-compute-time": f"{now - self._begin:.6f}",
            "x-compute-characters": str(len(self.call.text.inputs)),
            **{name: str(round(seconds * 1000)) for name, seconds in times.items()},
            "x-prompt-tokens": str(self.input_length),
            "x-generated-tokens": str(self.num_tokens),
        }

    def _token(
        self, position: PositionLogprobs, pieces: dict[int, bytes]
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        chosen = position.chosen
        text = self._decoder.decode(pieces.get(chosen.token_id, b""))
        return _to_json(chosen, text), [_to_json(one, _piece(pieces, one)) for one in position.top]

    def _prompt_tokens(self, positions: tuple[PositionLogprobs | None, ...]) -> list[dict[str, Any]]:
        ids, pieces = self._accepted.prompt_token_ids, self._accepted.prompt_pieces or ()
        return [
            {"id": token_id, "text": piece.decode("utf-8", "replace"), "logprob": logprob}
            for token_id, piece, logprob in zip(ids, pieces, map(_logprob, positions), strict=True)
        ]


class WholeAnswer:
    """The WholeWriter of one text."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._tokens: list[dict[str, Any]] = []
        self._top_tokens: list[list[dict[str, Any]]] = []

    @property
    def headers(self) -> dict[str, str]:
        return self._answer.headers

    def add(self, update: Update) -> None:
        for token, top in self._answer.read(update):
            self._tokens.append(token)
            self._top_tokens.append(top)

    def to_json(self) -> Any:
        answer = self._answer
        body: dict[str, Any] = {"generated_text": answer.generated_text}
        if answer.parameters.has_details:
            body["details"] = {**answer.end, "prefill": answer.prefill, "tokens": self._tokens}
            if answer.parameters.top_n_tokens:
                body["details"]["top_tokens"] = self._top_tokens
        if answer.call.warnings:
            body["warnings"] = list(answer.call.warnings)
        return [body] if answer.call.is_listed else body


class EventStream:
    """The StreamWriter of one text: an event for each token, the last one with the whole text."""

    content_type = b"text/event-stream; charset=utf-8"
    keep_alive = b": keep-alive\n\n"

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._index = 0

    @property
    def headers(self) -> dict[str, str]:
        return {"x-compute-type": COMPUTE_TYPE, "x-compute-characters": str(len(self._answer.call.text.inputs))}

    def encode(self, updates: list[Update]) -> bytes:
        return b"".join(map(_event, (body for update in updates for body in self._bodies(update))))

    def _bodies(self, update: Update) -> list[dict[str, Any]]:
        tokens = self._answer.read(update)
        bodies = []
        for token, top in tokens:
            self._index += 1
            more = {"top_tokens": top} if self._answer.parameters.top_n_tokens else {}
            bodies.append({"index": self._index, "token": token, **more, "generated_text": None, "details": None})
        if update.event.finish_reason is not None and bodies:
            bodies[-1] |= self._last()
        return bodies

    def _last(self) -> dict[str, Any]:
        answer = self._answer
        fields: dict[str, Any] = {"generated_text": answer.generated_text}
        if answer.parameters.details:
            fields["details"] = {**answer.end, "input_length": answer.input_length}
        return fields | ({"warnings": list(answer.call.warnings)} if answer.call.warnings else {})

    def end(self) -> bytes:
        return b""

    def fail(self, error: Exception) -> bytes:
        return _event(to_reply(error, "/generate_stream").body)


class Predictions:
    """The WholeWriter of Vertex: a text for each instance."""

    def __init__(self, context: AnswerContext) -> None:
        self._texts = {one.request_id: "" for one in context.accepted}

    def add(self, update: Update) -> None:
        self._texts[update.event.request_id] += update.event.text

    def to_json(self) -> dict[str, Any]:
        return {"predictions": list(self._texts.values())}


def _event(body: Any) -> bytes:
    return b"data:" + msgspec.json.encode(body) + b"\n\n"


def _finish_reason(event: TokenEvent) -> str:
    if event.finish_reason == "length":
        return "length"
    return "stop_sequence" if isinstance(event.stop_reason, str) else "eos_token"


def _to_json(token: TokenLogprob, text: str) -> dict[str, Any]:
    return {"id": token.token_id, "text": text, "logprob": floored(token.logprob), "special": False}


def _piece(pieces: dict[int, bytes], token: TokenLogprob) -> str:
    return pieces.get(token.token_id, b"").decode("utf-8", "replace")


def _logprob(position: PositionLogprobs | None) -> float | None:
    return None if position is None else floored(position.chosen.logprob)
