"""Bodies that were read and checked: one text to continue, or the instances of a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inferd.errors import InvalidRequestError
from inferd.gateway.calls import AnswerContext, Caller, StreamWriter, WholeWriter
from inferd.gateway.dialects.openai.call import parse as parse_chat
from inferd.gateway.dialects.tgi.answer import Answer, EventStream, Predictions, WholeAnswer
from inferd.gateway.dialects.tgi.bodies import Parameters, read_parameters, sampling_of, structured_of
from inferd.gateway.text import TextTurn
from inferd.metrics.requests import Targets
from inferd.worker.protocol import Generate, Ready, TextPrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """One text to continue."""

    inputs: str
    parameters: Parameters
    sampling: dict[str, Any]

    @classmethod
    def of(cls, inputs: str, parameters: Parameters, *, wants_tokens: bool) -> Text:
        if not inputs:
            raise InvalidRequestError("inputs must not be empty", param="inputs")
        return cls(inputs=inputs, parameters=parameters, sampling=sampling_of(parameters, wants_tokens=wants_tokens))

    @property
    def seed(self) -> int | None:
        return self.sampling.get("seed")

    def command(self, request_id: str, ready: Ready, caller: Caller) -> Generate:
        turn = TextTurn(
            prompt=TextPrompt(text=self.inputs),
            sampling=self.sampling,
            structured=structured_of(self.parameters.grammar),
            truncate_prompt_tokens=self.parameters.truncate,
            want_prompt_pieces=self.parameters.decoder_input_details,
        )
        return turn.command(request_id, ready, caller)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateCall:
    """One POST of a text. is_listed: the answer is a list of one, as the route / has it."""

    id: str
    text: Text
    is_streamed: bool
    is_listed: bool
    warnings: tuple[str, ...] = ()

    num_prompts = 1
    operation = "text_completion"

    def targets(self, usual: Targets) -> Targets:
        return usual

    def commands(self, ready: Ready, caller: Caller) -> Sequence[Generate]:
        if self.is_streamed and self.text.parameters.decoder_input_details:
            message = "decoder_input_details cannot be streamed"
            raise InvalidRequestError(message, param="decoder_input_details")
        return [self.text.command(self.id, ready, caller)]

    def stream_writer(self, context: AnswerContext) -> StreamWriter:
        return EventStream(Answer(self, context))

    def whole_writer(self, context: AnswerContext) -> WholeWriter:
        return WholeAnswer(Answer(self, context))


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictCall:
    """One POST of Vertex: every instance is a text or a chat. instances: (num_prompts,)."""

    id: str
    instances: tuple[Any, ...]  # Text, or OpenAI's call of a chat

    is_streamed = False
    operation = "text_completion"

    @property
    def num_prompts(self) -> int:
        return len(self.instances)

    def targets(self, usual: Targets) -> Targets:
        return usual

    def commands(self, ready: Ready, caller: Caller) -> Sequence[Generate]:
        return [
            one.command(f"{self.id}-{number}", ready, caller)
            if isinstance(one, Text)
            else one.commands(ready, caller)[0]
            for number, one in enumerate(self.instances)
        ]

    def stream_writer(self, context: AnswerContext) -> StreamWriter:
        raise AssertionError("predictions are never streamed")

    def whole_writer(self, context: AnswerContext) -> WholeWriter:
        return Predictions(context)


def read_instances(fields: dict[str, Any]) -> tuple[Any, ...]:
    """Of {"instances": [...], "parameters": {...}}; an instance's own parameters go before the common ones."""
    instances, common = fields.get("instances"), fields.get("parameters", {})
    if not isinstance(instances, list) or not instances or not all(isinstance(one, dict) for one in instances):
        raise InvalidRequestError("instances must be a list of at least one object", param="instances")
    if not isinstance(common, dict):
        raise InvalidRequestError("parameters must be an object", param="parameters")
    return tuple(_instance(one, common) for one in instances)


def _instance(one: dict[str, Any], common: dict[str, Any]) -> Any:
    if "messages" in one:
        call = parse_chat({name: value for name, value in one.items() if value is not None}, is_chat=True)
        if one.get("stream") or one.get("n", 1) != 1:
            raise InvalidRequestError("instances: a chat is answered once and whole", param="instances")
        return call
    inputs, own = one.get("inputs"), one.get("parameters") or {}
    if not isinstance(inputs, str) or not isinstance(own, dict):
        raise InvalidRequestError("instances: each has inputs, a text, or messages", param="instances")
    parameters, _ = read_parameters({**common, **own})
    return Text.of(inputs, parameters, wants_tokens=False)
