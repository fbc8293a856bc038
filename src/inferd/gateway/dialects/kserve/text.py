"""Triton's /generate and /generate_stream: one text in, its continuation out."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import msgspec

from inferd.errors import InferdError, InvalidRequestError
from inferd.gateway.calls import SAMPLING, AnswerContext, Caller, sampling_of
from inferd.gateway.errors import to_reply
from inferd.metrics.requests import Targets
from inferd.worker.client import Update
from inferd.worker.protocol import Generate, Ready, TextPrompt

DEFAULT_MAX_TOKENS = 16
_OWN = frozenset({"id", "text_input", "parameters", "stream", "exclude_input_in_output"})
_OTHER_NAMES = {"stop_words": "stop", "max_new_tokens": "max_tokens"}  # of TensorRT-LLM's models
_REFUSED = frozenset({"n", "logprobs", "prompt_logprobs", "structured_outputs"})  # one text is all that is answered


class GenerateCall:
    """A calls.Call. Parameters of sampling may stand in `parameters` or beside text_input, as clients do both."""

    num_prompts = 1
    operation = "text_completion"

    def __init__(self, fields: dict[str, Any], *, is_streamed: bool) -> None:
        self.is_streamed = is_streamed
        self.id = _text(fields, "id", "")
        self.text = _text(fields, "text_input", None)
        inner = fields.get("parameters", {})
        if not isinstance(inner, dict):
            raise InvalidRequestError("parameters must be an object", param="parameters")
        values = {**{name: value for name, value in fields.items() if name not in _OWN}, **inner}
        flag = values.pop("exclude_input_in_output", fields.get("exclude_input_in_output", True))
        if not isinstance(flag, bool):
            raise InvalidRequestError("exclude_input_in_output must be true or false", param="exclude_input_in_output")
        self.includes_input = not flag
        wants_stream = values.pop("stream", fields.get("stream", is_streamed))
        if wants_stream is not is_streamed:
            route = "/generate_stream" if wants_stream else "/generate"
            raise InvalidRequestError(f"stream must be {str(is_streamed).lower()} here; ask {route}", param="stream")
        self._values = _sampling_values(values)

    def commands(self, ready: Ready, caller: Caller) -> Sequence[Generate]:
        return [
            Generate(
                request_id=f"kserve-{uuid.uuid4().hex}",
                prompt=TextPrompt(text=self.text),
                sampling=sampling_of(ready, {"max_tokens": DEFAULT_MAX_TOKENS, **self._values}),
                tenant=caller.tenant,
                weight=caller.weight,
                adapter=caller.adapter,
                is_background=caller.is_background,
            )
        ]

    def targets(self, usual: Targets) -> Targets:
        return usual

    def stream_writer(self, context: AnswerContext) -> TextStream:
        return TextStream(self, context)

    def whole_writer(self, context: AnswerContext) -> WholeText:
        return WholeText(self, context)

    def body(self, model: str, text: str) -> dict[str, Any]:
        body = {"model_name": model, "model_version": "1", "text_output": text}
        return {"id": self.id, **body} if self.id else body


class WholeText:
    def __init__(self, call: GenerateCall, context: AnswerContext) -> None:
        self._call, self._model = call, context.model
        self._parts = [call.text] if call.includes_input else []

    def add(self, update: Update) -> None:
        self._parts.append(update.event.text)

    def to_json(self) -> dict[str, Any]:
        return self._call.body(self._model, "".join(self._parts))


class TextStream:
    content_type = b"text/event-stream; charset=utf-8"
    keep_alive = b": keep-alive\n\n"

    def __init__(self, call: GenerateCall, context: AnswerContext) -> None:
        self._call, self._model = call, context.model
        self._begin = call.text if call.includes_input else ""

    def encode(self, updates: list[Update]) -> bytes:
        texts = "".join(update.event.text for update in updates)
        text, self._begin = self._begin + texts, ""
        return _event(self._call.body(self._model, text)) if text else b""

    def end(self) -> bytes:
        return b""  # the stream's end is the end of the connection's body

    def fail(self, error: InferdError | Exception) -> bytes:
        return _event(to_reply(error, "/v2").body)


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _text(fields: dict[str, Any], name: str, default: str | None) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str):
        raise InvalidRequestError(f"{name} must be a text", param=name)
    return value


def _sampling_values(values: dict[str, Any]) -> dict[str, Any]:
    named = {_OTHER_NAMES.get(name, name): value for name, value in values.items()}
    for name in named:
        if name not in SAMPLING or name in _REFUSED:
            raise InvalidRequestError(f"'{name[:80]}' is not a parameter known here", param=name[:80])
    if isinstance(named.get("stop"), str):
        named["stop"] = [named["stop"]]
    return named
