"""A body that was read and checked, as one turn of a chat."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from inferd.errors import InvalidRequestError
from inferd.gateway.calls import AnswerContext, Caller, StreamWriter, WholeWriter
from inferd.gateway.chat import ChatTurn
from inferd.gateway.dialects.anthropic import bodies
from inferd.gateway.dialects.anthropic.answer import Answer, MessageStream, WholeMessage
from inferd.gateway.dialects.anthropic.bodies import CountBody, MessagesBody
from inferd.gateway.dialects.anthropic.history import chat_of, tools_of
from inferd.gateway.dialects.fields import check_fields, unknown_inside
from inferd.gateway.error_styles import ANTHROPIC
from inferd.gateway.json_fields import convert, integral
from inferd.metrics.requests import Targets
from inferd.types import StructuredOutputs
from inferd.worker.protocol import Generate, Ready


@dataclass(frozen=True, slots=True)
class Call:
    """One POST to /v1/messages."""

    id: str
    body: MessagesBody
    turn: ChatTurn
    warnings: tuple[str, ...]

    @property
    def num_prompts(self) -> int:
        return 1

    @property
    def operation(self) -> str:
        return "chat"

    @property
    def is_streamed(self) -> bool:
        return self.body.stream

    @property
    def shows_thinking(self) -> bool:
        return self.body.thinking is None or self.body.thinking.display != "omitted"

    def commands(self, ready: Ready, caller: Caller) -> Sequence[Generate]:
        return [self.turn.command(self.id, ready, caller)]

    def targets(self, usual: Targets) -> Targets:
        return usual

    def stream_writer(self, context: AnswerContext) -> StreamWriter:
        return MessageStream(self._answer(context))

    def whole_writer(self, context: AnswerContext) -> WholeWriter:
        return WholeMessage(self._answer(context))

    def _answer(self, context: AnswerContext) -> Answer:
        return Answer(
            message_id=self.id,
            context=context,
            reader=self.turn.reader(context.ready),
            max_tokens=self.body.max_tokens,
            shows_thinking=self.shows_thinking,
            warnings=(*self.warnings, *self.turn.warnings(context.ready, ANTHROPIC.names)),
        )


def parse(fields: dict[str, Any]) -> Call:
    """Raises InvalidRequestError that names the field."""
    warnings = _check(fields)
    body = convert(integral(fields), MessagesBody)
    turn, more = _turn(body)
    more += unknown_inside(fields, body)
    sampling = {name: value for name, value in fields.items() if name in bodies.SAMPLING}
    sampling |= {"max_tokens": body.max_tokens, "stop": body.stop_sequences}
    return Call(f"msg_{uuid.uuid4().hex}", body, replace(turn, sampling=sampling), (*warnings, *more))


def counted_turn(fields: dict[str, Any]) -> ChatTurn:
    """The turn whose prompt is to be counted. Raises InvalidRequestError that names the field."""
    _check(fields)
    return _turn(convert(integral(fields), CountBody))[0]


def _check(fields: dict[str, Any]) -> tuple[str, ...]:
    return check_fields(fields, honoured=bodies.HONOURED, harmless=bodies.HARMLESS, refused=bodies.REFUSED)


def _turn(body: CountBody) -> tuple[ChatTurn, list[str]]:
    """A turn without sampling fields, and warnings."""
    messages = chat_of(body.system, body.messages)
    if not body.messages or not messages:
        raise InvalidRequestError("messages must hold at least one message", param="messages")
    tools, warnings = tools_of(body.tools)
    is_prefilled = messages[-1]["role"] == "assistant"
    if is_prefilled and "tool_calls" in messages[-1]:
        raise InvalidRequestError("messages: a tool_use needs its tool_result after it", param="messages")
    turn = ChatTurn(
        messages=messages,
        tools=tools,
        tool_choice=_tool_choice(body, tools),
        parallel_tool_calls=not body.tool_choice.disable_parallel_tool_use,
        structured=_structured(body),
        reasoning_effort=body.output_config.effort,
        continue_final_message=is_prefilled,
        fit_max_tokens=True,  # coding agents ask for more than small models hold; stop_reason tells which bound was met
        **_thinking(body),
    )
    return turn, warnings


def _tool_choice(body: CountBody, tools: list[dict[str, Any]]) -> str:
    choice = body.tool_choice
    if choice.type == "tool":
        if choice.name not in {tool["function"]["name"] for tool in tools}:
            raise InvalidRequestError(f"tool_choice: no tool is named {str(choice.name)[:80]!r}", param="tool_choice")
        return f"={choice.name}"
    if choice.type == "any" and not tools:
        raise InvalidRequestError("tool_choice: any needs tools", param="tool_choice")
    return "required" if choice.type == "any" else choice.type


def _structured(body: CountBody) -> StructuredOutputs | None:
    wanted = body.output_config.format or body.output_format
    if wanted is None:
        return None
    return StructuredOutputs(kind="json_schema", value=msgspec.json.encode(wanted.schema).decode())


def _thinking(body: CountBody) -> dict[str, Any]:
    """Without the field there are no thinking blocks where a model can do without: clients that did not ask for
    thinking take the first block for the text."""
    thinking = body.thinking
    if thinking is None or thinking.type == "disabled":
        return {"thinks": False}
    if thinking.type != "enabled":
        return {"thinks": None}
    budget = thinking.budget_tokens
    if budget is None or budget < 1:
        raise InvalidRequestError("thinking: enabled needs budget_tokens of at least 1", param="thinking")
    return {"thinks": True, "thinking_budget": budget}
