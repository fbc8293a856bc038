"""A text to be continued, as every dialect asks for it: to a text what ChatTurn is to a chat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inferd.gateway.calls import Caller, command_of
from inferd.parsing.deltas import Content, Delta
from inferd.types import StructuredOutputs, TokenEvent
from inferd.worker.protocol import Generate, Prompt, Ready


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTurn:
    """sampling: fields of SamplingParams that were set."""

    prompt: Prompt
    sampling: Mapping[str, Any] = field(default_factory=dict)
    structured: StructuredOutputs | None = None
    truncate_prompt_tokens: int | None = None
    priority: int = 0
    cache_salt: str = ""
    fit_max_tokens: bool = False
    want_prompt_text: bool = False
    want_prompt_pieces: bool = False

    def command(self, request_id: str, ready: Ready, caller: Caller) -> Generate:
        """The request to the engine. Raises InvalidRequestError in the names of SamplingParams."""
        return command_of(
            request_id,
            self.prompt,
            ready,
            caller,
            self.sampling,
            self.structured,
            priority=self.priority,
            cache_salt=self.cache_salt,
            truncate_prompt_tokens=self.truncate_prompt_tokens,
            fit_max_tokens=self.fit_max_tokens,
            want_prompt_text=self.want_prompt_text,
            want_prompt_pieces=self.want_prompt_pieces,
        )

    def reader(self, ready: Ready) -> TextReader:
        """For one sequence of the answer."""
        return TextReader()


class TextReader:
    """The events of one sequence; all of it is content."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.num_reasoning_tokens = 0

    def push(self, event: TokenEvent) -> list[Delta]:
        self.finish_reason, self.stop_reason = event.finish_reason, event.stop_reason
        return [Content(event.text)] if event.text else []


def below_defaults(ready: Ready, usual: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """values, and under them `usual`: what a dialect does where neither the model's file nor the request says."""
    return {**{name: value for name, value in usual.items() if name not in ready.generation_defaults}, **values}
