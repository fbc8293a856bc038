"""The bodies of the routes, and what becomes of each field."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from inferd.gateway.dialects.fields import Refusals


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Thinking(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: int | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, frozen=True, kw_only=True):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class CountBody(msgspec.Struct, kw_only=True):
    """What the prompt is made of. Messages, system and tools are looked into in history.py."""

    model: str | None = None
    messages: list[dict[str, Any]]
    system: str | list[dict[str, Any]] = ""
    tools: list[dict[str, Any]] = []
    tool_choice: ToolChoice = ToolChoice(type="auto")
    thinking: Thinking | None = None
    output_config: OutputConfig = OutputConfig()
    output_format: OutputFormat | None = None  # where output_config.format stood before


class MessagesBody(CountBody, kw_only=True):
    max_tokens: int
    stop_sequences: list[str] = []
    stream: bool = False


SAMPLING = frozenset({"temperature", "top_p", "top_k"})
HONOURED = frozenset(MessagesBody.__struct_fields__) | SAMPLING
HARMLESS = frozenset({"cache_control", "diagnostics", "metadata", "service_tier", "speed", "user_profile_id"})
REFUSED: Refusals = {
    "container": ((), "nothing is run here"),
    "inference_geo": ((), "this server is where its operator put it"),
    "mcp_servers": (([],), "the server connects to no other; give their tools as `tools`"),
}
