"""A body that was read and checked, as one turn of a chat."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from inferd.errors import InvalidRequestError
from inferd.gateway.calls import AnswerContext, Caller, StreamWriter, WholeWriter
from inferd.gateway.chat import ChatTurn
from inferd.gateway.dialects.fields import check_fields, unknown_inside
from inferd.gateway.dialects.responses import bodies
from inferd.gateway.dialects.responses.answer import Answer, ResponseStream, WholeResponse
from inferd.gateway.dialects.responses.bodies import ENCRYPTED, CountBody, ResponsesBody
from inferd.gateway.dialects.responses.items import Item, chat_of, items_of, new_id, tools_of
from inferd.gateway.error_styles import RESPONSES
from inferd.gateway.json_fields import convert, integral
from inferd.metrics.requests import Targets
from inferd.types import StructuredOutputs
from inferd.worker.protocol import Generate, Ready

Response = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A body whose fields are checked. items: of its own input, each with an id."""

    body: ResponsesBody
    sampling: dict[str, Any]
    items: list[Item]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One POST to /v1/responses. on_end gets the response when it is done, also when it has failed."""

    asked: Asked
    turn: ChatTurn
    warnings: tuple[str, ...]
    is_stored: bool
    on_end: Callable[[Response], None]
    id: str = field(default_factory=lambda: new_id("resp"))
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def num_prompts(self) -> int:
        return 1

    @property
    def operation(self) -> str:
        return "chat"

    @property
    def is_streamed(self) -> bool:
        return self.asked.body.stream

    def commands(self, ready: Ready, caller: Caller) -> Sequence[Generate]:
        return [self.turn.command(self.id, ready, caller)]

    def targets(self, usual: Targets) -> Targets:
        return usual

    def stream_writer(self, context: AnswerContext) -> StreamWriter:
        return ResponseStream(self._answer(context), self.on_end)

    def whole_writer(self, context: AnswerContext) -> WholeWriter:
        return WholeResponse(self._answer(context), self.on_end)

    def head(self, model: str, status: str, more_warnings: Iterable[str] = ()) -> Response:
        """A response without output. temperature and top_p are null where the body has none."""
        body, warnings = self.asked.body, [*self.warnings, *more_warnings]
        head = {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": None,
            "status": status,
            "background": body.background,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "max_tool_calls": body.max_tool_calls,
            "metadata": body.metadata,
            "model": model,
            "output": [],
            "parallel_tool_calls": body.parallel_tool_calls,
            "previous_response_id": body.previous_response_id,
            "prompt_cache_key": body.prompt_cache_key,
            "reasoning": {"effort": body.reasoning.effort, "summary": body.reasoning.summary},
            "safety_identifier": body.safety_identifier,
            "service_tier": "default",
            "store": self.is_stored,
            "temperature": self.asked.sampling.get("temperature"),
            "text": {"format": _shown(body.text.format), "verbosity": body.text.verbosity or "medium"},
            "tool_choice": body.tool_choice,
            "tools": body.tools,
            "top_logprobs": 0,
            "top_p": self.asked.sampling.get("top_p"),
            "truncation": body.truncation,
            "usage": None,
            "user": body.user,
        }
        return head | ({"warnings": warnings} if warnings else {})

    def _answer(self, context: AnswerContext) -> Answer:
        idle = self.turn.warnings(context.ready, RESPONSES.names)
        return Answer(
            head=self.head(context.model, "in_progress", idle),
            context=context,
            turn=self.turn,
            is_encrypted=ENCRYPTED in self.asked.body.include,
        )


def read(fields: dict[str, Any]) -> Asked:
    """Raises InvalidRequestError that names the field."""
    unknown = check_fields(fields, honoured=bodies.HONOURED, harmless=bodies.HARMLESS, refused=bodies.REFUSED)
    body = convert(integral(fields), ResponsesBody)
    if body.background and not body.store:
        raise InvalidRequestError("background: needs store to be true", param="background")
    if body.background and body.stream:
        raise InvalidRequestError("background: cannot be streamed; ask for the response by its id", param="background")
    sampling = {name: value for name, value in fields.items() if name in bodies.SAMPLING}
    if isinstance(sampling.get("stop"), str):
        sampling["stop"] = [sampling["stop"]]
    sampling["max_tokens"] = body.max_output_tokens
    warnings = (*unknown, *unknown_inside(fields, body), *_idle(body))
    return Asked(body=body, sampling=sampling, items=items_of(body.input), warnings=warnings)


def counted(fields: dict[str, Any]) -> CountBody:
    check_fields(fields, honoured=bodies.HONOURED, harmless=bodies.HARMLESS, refused=bodies.REFUSED)
    return convert(integral(fields), CountBody)


def turn_of(
    body: CountBody, items: Iterable[Item], sampling: dict[str, Any] | None = None
) -> tuple[ChatTurn, list[str]]:
    """items: those of the responses that this one goes on from, then its own. Also gives warnings about tools."""
    messages = chat_of(body.instructions, items)
    if not messages:
        raise InvalidRequestError("input must not be empty", param="input")
    tools, warnings = tools_of(body.tools)
    choice, tools = _tool_choice(body.tool_choice, tools)
    turn = ChatTurn(
        messages=messages,
        sampling=sampling or {},
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls,
        structured=_structured(body.text.format),
        thinks=False if body.reasoning.effort == "none" else None,
        reasoning_effort=body.reasoning.effort,
        fit_max_tokens=True,  # a response says when its bound was met
    )
    return turn, warnings


def _idle(body: ResponsesBody) -> Iterable[str]:
    """Warnings about what was asked for and is not done."""
    if body.reasoning.summary or body.reasoning.generate_summary:
        yield "reasoning.summary: reasoning is given as it was written, not as a summary"
    if body.truncation == "auto":
        yield "truncation: nothing is left out; an input that is too long is refused"
    if "message.output_text.logprobs" in body.include:
        yield "include: log probabilities are given by /v1/chat/completions"


def _tool_choice(choice: str | dict[str, Any], tools: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The choice in ChatTurn's words, and the tools that it leaves."""
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        given = choice.get("tools")
        allowed = [tool.get("name") for tool in given if isinstance(tool, dict)] if isinstance(given, list) else []
        tools = [tool for tool in tools if tool["function"]["name"] in allowed]
        choice = str(choice.get("mode", "auto"))
    if isinstance(choice, dict):
        name = choice.get("name")
        if choice.get("type") != "function" or name not in [tool["function"]["name"] for tool in tools]:
            raise InvalidRequestError(f"tool_choice: {str(name)[:80]!r} is no function of `tools`", param="tool_choice")
        return f"={name}", tools
    if choice not in ("none", "auto", "required"):
        raise InvalidRequestError("tool_choice must be none, auto, required or an object", param="tool_choice")
    if choice == "required" and not tools:
        raise InvalidRequestError("tool_choice: required needs a function in `tools`", param="tool_choice")
    return choice, tools


def _structured(wanted: bodies.TextFormat | None) -> StructuredOutputs | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return StructuredOutputs(kind="json_object")
    if wanted.schema is None:
        raise InvalidRequestError("text: a format of type json_schema needs its schema", param="text")
    return StructuredOutputs(kind="json_schema", value=msgspec.json.encode(wanted.schema).decode())


def _shown(wanted: bodies.TextFormat | None) -> dict[str, Any]:
    values = msgspec.structs.asdict(wanted or bodies.TextFormat())
    return {name: value for name, value in values.items() if value is not None}
