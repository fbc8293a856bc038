"""Tools and the choice among them as a body has them, the old functions included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from inferd.errors import InvalidRequestError
from inferd.gateway.chat import ToolChoice
from inferd.gateway.dialects.openai.bodies import ChatBody
from inferd.gateway.tools import Tool, checked_tools, name_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """is_legacy: the body has functions instead of tools, and its answer a function_call."""

    tools: list[Tool] = field(default_factory=list)
    choice: ToolChoice = "auto"
    is_legacy: bool = False


def offer_of(body: ChatBody) -> Offer:
    """Raises InvalidRequestError naming the field."""
    if body.functions or body.function_call is not None:
        if body.tools or body.tool_choice is not None:
            raise InvalidRequestError("functions cannot be combined with tools", param="functions")
        functions = [{"type": "function", "function": one} for one in body.functions]
        tools = checked_tools(functions, "functions")
        return Offer(tools=tools, choice=_old_choice(body.function_call, tools), is_legacy=True)
    return _offer(checked_tools(body.tools), body.tool_choice)


def _offer(tools: list[Tool], choice: Any) -> Offer:
    if choice is None or choice in ("none", "auto"):
        return Offer(tools=tools, choice=choice or "auto")
    if choice == "required":
        if not tools:
            raise InvalidRequestError("tool_choice: required needs tools", param="tool_choice")
        return Offer(tools=tools, choice="required")
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "allowed_tools":
        return _allowed(tools, choice.get("allowed_tools", choice))
    function = choice.get("function") if kind == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    return Offer(tools=tools, choice=f"={_known(name, tools, 'tool_choice')}")


def _allowed(tools: list[Tool], allowed: Any) -> Offer:
    named = allowed.get("tools") if isinstance(allowed, dict) else None
    if not isinstance(named, list) or allowed.get("mode", "auto") not in ("auto", "required"):
        message = "tool_choice: allowed_tools must have a mode, auto or required, and tools"
        raise InvalidRequestError(message, param="tool_choice")
    names = {_known(_name_in(one), tools, "tool_choice") for one in named}
    return _offer([tool for tool in tools if name_of(tool) in names], allowed.get("mode"))


def _name_in(tool: Any) -> Any:
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def _old_choice(choice: Any, tools: Sequence[Tool]) -> ToolChoice:
    if choice is None or choice in ("none", "auto"):
        return choice or "auto"
    return f"={_known(choice.get('name') if isinstance(choice, dict) else None, tools, 'function_call')}"


def _known(name: Any, tools: Sequence[Tool], param: str) -> str:
    if not isinstance(name, str):
        allowed = "none, auto, required, or an object with the name of a function"
        raise InvalidRequestError(f"{param} must be {allowed}", param=param)
    if name not in map(name_of, tools):
        raise InvalidRequestError(f"{param}: no tool is named {name[:80]!r}", param=param)
    return name
