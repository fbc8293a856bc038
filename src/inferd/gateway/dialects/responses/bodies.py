"""The bodies of the routes, and what becomes of each field."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from inferd.gateway.dialects.fields import Refusals

Include = Literal[
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
ENCRYPTED: Include = "reasoning.encrypted_content"


class TextFormat(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class TextConfig(msgspec.Struct, frozen=True, kw_only=True):
    format: TextFormat = TextFormat()
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningConfig(msgspec.Struct, frozen=True, kw_only=True):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None  # the old name of summary


class CountBody(msgspec.Struct, kw_only=True):
    """What the prompt is made of. Items and tools are looked into in items.py."""

    model: str | None = None
    input: str | list[dict[str, Any]] = []
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True
    reasoning: ReasoningConfig = ReasoningConfig()
    text: TextConfig = TextConfig()
    truncation: Literal["auto", "disabled"] = "disabled"


class ResponsesBody(CountBody, kw_only=True):
    stream: bool = False
    store: bool = True
    background: bool = False
    include: list[Include] = []
    max_output_tokens: int | None = None
    metadata: dict[str, str] = {}
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    max_tool_calls: int | None = None  # of tools that the server runs, and it runs none


SAMPLING = frozenset(
    {
        "temperature", "top_p", "top_k", "min_p", "seed", "stop", "min_tokens", "ignore_eos",
        "presence_penalty", "frequency_penalty", "repetition_penalty",
    }
)  # fmt: skip
HONOURED = frozenset(ResponsesBody.__struct_fields__) | SAMPLING
HARMLESS = frozenset("prompt_cache_options prompt_cache_retention service_tier stream_options client_metadata".split())
REFUSED: Refusals = {
    "conversation": ((), "conversations are not kept; give previous_response_id"),
    "prompt": ((), "no prompts are stored here; give input"),
    "context_management": (([],), "nothing is left out of the input"),
    "moderation": ((), "nothing is moderated here"),
    "top_logprobs": ((0,), "log probabilities are given by /v1/chat/completions"),
}
