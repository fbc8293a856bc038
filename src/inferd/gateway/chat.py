"""One turn of a chat as every dialect asks for it, and what comes back, taken apart.

A dialect maps its body onto ChatTurn, makes its command of it, and pushes each event's text through a TurnReader.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from inferd.errors import InvalidRequestError
from inferd.gateway.calls import Caller, sampling_of
from inferd.parsing.deltas import Delta
from inferd.parsing.parser import OutputParser
from inferd.types import StructuredOutputs, TokenEvent
from inferd.worker.protocol import ChatPrompt, Generate, Ready

ToolChoice = str  # "none", "auto", "required", or "=name" for that function


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTurn:
    """messages, tools: in OpenAI's shape, checked; content is text. sampling: fields of SamplingParams that were set.

    Every role is one of system, user, assistant, tool; an assistant's may have tool_calls and reasoning_content.
    """

    messages: list[dict[str, Any]]
    sampling: dict[str, Any] = field(default_factory=dict)
    tools: list[dict[str, Any]] = field(default_factory=list)
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    structured: StructuredOutputs | None = None
    thinks: bool | None = None  # whether the model reasons first; None: as its template does by itself
    reasoning_effort: str | None = None
    thinking_budget: int | None = None  # tokens of reasoning, after which it is ended
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    truncate_prompt_tokens: int | None = None
    priority: int = 0
    cache_salt: str = ""
    want_prompt_text: bool = False

    def prompt(self, ready: Ready) -> ChatPrompt:
        """Raises InvalidRequestError naming `tools` when this model has no way to call them."""
        if self.tools and self.tool_choice != "none":
            raise InvalidRequestError("tools: this model's chat template does not know tools", param="tools")
        return ChatPrompt(
            messages=self.messages,
            add_generation_prompt=self.add_generation_prompt and not self.continue_final_message,
            continue_final_message=self.continue_final_message,
            template_kwargs=self.template_kwargs,
            add_special_tokens=self.add_special_tokens,
        )

    def command(self, request_id: str, ready: Ready, caller: Caller) -> Generate:
        """The request to the engine. Raises InvalidRequestError in the names of SamplingParams and of this class."""
        values = dict(self.sampling)
        if self.structured is not None:
            values["structured_outputs"] = {"kind": self.structured.kind, "value": self.structured.value}
        return Generate(
            request_id=request_id,
            prompt=self.prompt(ready),
            sampling=sampling_of(ready, values),
            priority=self.priority,
            tenant=caller.tenant,
            weight=caller.weight,
            adapter=caller.adapter,
            is_background=caller.is_background,
            cache_salt=self.cache_salt,
            truncate_prompt_tokens=self.truncate_prompt_tokens,
            want_prompt_text=self.want_prompt_text,
        )

    def reader(self, ready: Ready) -> TurnReader:
        """For one sequence of the answer."""
        return TurnReader(OutputParser())


class TurnReader:
    """The events of one sequence, taken apart."""

    def __init__(self, parser: OutputParser) -> None:
        self._parser = parser
        self.finish_reason: str | None = None  # "stop", "length" or "tool_calls", once it has ended
        self.stop_reason: int | str | None = None
        self.num_reasoning_tokens = 0

    def push(self, event: TokenEvent) -> list[Delta]:
        deltas = self._parser.push(event.text)
        if event.finish_reason is not None:
            deltas += self._parser.finish()
            self.stop_reason = event.stop_reason
            calls = self._parser.num_tool_calls and event.finish_reason == "stop"
            self.finish_reason = "tool_calls" if calls else event.finish_reason
        return deltas
