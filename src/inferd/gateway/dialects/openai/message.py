"""A message of a chat, whole or in deltas, as OpenAI words it."""

from __future__ import annotations

from typing import Any

from inferd.parsing.deltas import Content, Delta, Reasoning, ToolCallArguments, ToolCallBegin


class Message:
    """Collects the deltas of one choice."""

    def __init__(self, content: str = "") -> None:
        self._content = [content]
        self._reasoning: list[str] = []
        self._calls: list[tuple[ToolCallBegin, list[str]]] = []

    @property
    def content(self) -> str:
        return "".join(self._content)

    def add(self, delta: Delta) -> None:
        match delta:
            case Content(text):
                self._content.append(text)
            case Reasoning(text):
                self._reasoning.append(text)
            case ToolCallBegin():
                self._calls.append((delta, []))
            case ToolCallArguments(index, text):
                self._calls[index][1].append(text)

    def to_json(self, *, is_legacy: bool) -> dict[str, Any]:
        """is_legacy: the call is a function_call. content is null when there are only calls."""
        content = self.content
        body: dict[str, Any] = {"role": "assistant", "content": None if self._calls and not content else content}
        if self._reasoning:
            body |= _reasoning("".join(self._reasoning))
        if self._calls and is_legacy:
            begin, pieces = self._calls[0]
            body["function_call"] = {"name": begin.name, "arguments": "".join(pieces)}
        elif self._calls:
            body["tool_calls"] = [_call(begin, "".join(pieces)) for begin, pieces in self._calls]
        return body


def delta_json(delta: Delta, *, is_legacy: bool) -> dict[str, Any]:
    """Name and id of a call come once: clients put the pieces together by adding them up."""
    match delta:
        case Content(text):
            return {"content": text}
        case Reasoning(text):
            return _reasoning(text)
        case ToolCallBegin() if is_legacy:
            return {"function_call": {"name": delta.name, "arguments": ""}}
        case ToolCallBegin():
            return {"tool_calls": [{"index": delta.index, **_call(delta, "")}]}
        case ToolCallArguments(_, text) if is_legacy:
            return {"function_call": {"arguments": text}}
        case ToolCallArguments(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}


def _call(begin: ToolCallBegin, arguments: str) -> dict[str, Any]:
    return {"id": begin.id, "type": "function", "function": {"name": begin.name, "arguments": arguments}}


def _reasoning(text: str) -> dict[str, str]:
    return {"reasoning_content": text, "reasoning": text}  # DeepSeek's name, and vLLM's
