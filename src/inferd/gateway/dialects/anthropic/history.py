"""Anthropic's messages and tools in the shape of chat templates (OpenAI's).

Turns in a row of one role become one, as Anthropic's service does; blocks of text in a row are lines.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from inferd.errors import InvalidRequestError
from inferd.gateway.tools import checked_tools

Fields = dict[str, Any]
# Claude Code's system prompt starts with this line, and it differs in every request: no prefix could be reused
CHANGING_LINE = "x-anthropic-billing-header:"
MARK = "inferd"  # begins every signature; where thinking is left out of a block, the text follows, for the next request


def chat_of(system: str | Sequence[Fields], messages: Sequence[Fields]) -> list[Fields]:
    """Raises InvalidRequestError naming `system` or `messages`."""
    chat: list[Fields] = []
    _extend(chat, "system", _system_text(system))
    tool_names: dict[str, str] = {}  # of each tool_use, by its id
    for message in messages:
        role, blocks = message.get("role"), _blocks(message.get("content"), "messages")
        if role == "assistant":
            _extend_assistant(chat, blocks, tool_names)
        elif role == "user":
            _extend_user(chat, blocks, tool_names)
        elif role == "system":
            _extend(chat, "system", _joined(_text_of(block, "messages") for block in blocks))
        else:
            raise _refused("messages", f"role must be user, assistant or system, got {str(role)[:80]!r}")
    return chat


def tools_of(tools: Iterable[Fields]) -> tuple[list[Fields], list[str]]:
    """Functions, and a warning for each tool that Anthropic defines and this server cannot offer to a model."""
    functions, warnings = [], []
    for tool in tools:
        kind = tool.get("type") or "custom"
        if kind != "custom":
            warnings.append(f"tools: {str(kind)[:80]!r} is not known here and was left out")
            continue
        if not isinstance(tool.get("input_schema"), dict):
            raise _refused("tools", "each needs a name and an input_schema")
        function = {name: tool[name] for name in ("name", "description", "strict") if tool.get(name) is not None}
        functions.append({"type": "function", "function": {**function, "parameters": tool["input_schema"]}})
    return checked_tools(functions), warnings


def signature_of(hidden: str) -> str:
    return f"{MARK}:{base64.b64encode(hidden.encode()).decode()}" if hidden else MARK


def _system_text(system: str | Sequence[Fields]) -> str:
    texts = [system] if isinstance(system, str) else [_text_of(block, "system") for block in system]
    return _joined(text.partition("\n")[2].lstrip("\n") if text.startswith(CHANGING_LINE) else text for text in texts)


def _extend(chat: list[Fields], role: str, text: str) -> None:
    if chat and chat[-1]["role"] == role:
        chat[-1]["content"] = _joined((chat[-1]["content"], text))
    elif text or role != "system":
        chat.append({"role": role, "content": text})


def _extend_assistant(chat: list[Fields], blocks: Iterable[Fields], tool_names: dict[str, str]) -> None:
    texts, thoughts, calls = [], [], []
    for block in blocks:
        if block.get("type") == "tool_use":
            calls.append(_tool_call(block, tool_names))
        elif block.get("type") in ("thinking", "redacted_thinking"):
            thoughts.append(_thinking_text(block))
        else:
            texts.append(_text_of(block, "messages"))
    _extend(chat, "assistant", _joined(texts))
    turn = chat[-1]
    if thought := _joined((turn.get("reasoning_content", ""), *thoughts)):
        turn["reasoning_content"] = thought
    if calls:
        turn["tool_calls"] = [*turn.get("tool_calls", ()), *calls]


def _extend_user(chat: list[Fields], blocks: Iterable[Fields], tool_names: dict[str, str]) -> None:
    texts: list[str] = []
    has_result = False
    for block in blocks:
        if block.get("type") == "tool_result":
            chat.append(_tool_turn(block, tool_names))
            has_result = True
        else:
            texts.append(_text_of(block, "messages"))
    if texts or not has_result:
        _extend(chat, "user", _joined(texts))


def _tool_call(block: Fields, tool_names: dict[str, str]) -> Fields:
    call_id, name, arguments = block.get("id"), block.get("name"), block.get("input")
    if not isinstance(call_id, str) or not isinstance(name, str) or not isinstance(arguments, dict):
        raise _refused("messages", "a tool_use needs id, name and input")
    tool_names[call_id] = name
    function = {"name": name, "arguments": msgspec.json.encode(arguments).decode()}
    return {"id": call_id, "type": "function", "function": function}


def _tool_turn(block: Fields, tool_names: dict[str, str]) -> Fields:
    call_id = block.get("tool_use_id")
    if not isinstance(call_id, str):
        raise _refused("messages", "a tool_result needs tool_use_id")
    text = _joined(_text_of(part, "messages") for part in _blocks(block.get("content"), "messages"))
    turn = {"role": "tool", "tool_call_id": call_id, "content": f"Error: {text}" if block.get("is_error") else text}
    return turn | ({"name": tool_names[call_id]} if call_id in tool_names else {})


def _thinking_text(block: Fields) -> str:
    """What was thought; nothing of thoughts that another server wrote and hid."""
    text, (mark, _, hidden) = block.get("thinking"), str(block.get("signature")).partition(":")
    if isinstance(text, str) and text:
        return text
    if mark != MARK:
        return ""
    try:
        return base64.b64decode(hidden, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise _refused("messages", "the signature of a thinking block is not the one that was sent") from None


def _blocks(content: Any, param: str) -> list[Fields]:
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise _refused(param, "content must be a string or a list of blocks")
    return content


def _text_of(block: Fields, param: str) -> str:
    kind = block.get("type")
    text = block.get("text") if kind == "text" else _document_text(block, param) if kind == "document" else None
    if not isinstance(text, str):
        readable = "text" if param == "system" else "text, documents of text, thinking, tool_use and tool_result"
        raise _refused(param, f"a block of type {str(kind)[:80]!r} cannot be read here; only {readable} can")
    return text


def _document_text(block: Fields, param: str) -> str | None:
    source = block.get("source")
    if not isinstance(source, dict):
        return None
    readers: dict[str, Callable[[], Any]] = {
        "text": lambda: source.get("data"),
        "content": lambda: _joined(_text_of(part, param) for part in _blocks(source.get("content"), param)),
    }
    text = readers.get(str(source.get("type")), lambda: None)()
    if not isinstance(text, str):
        raise _refused(param, "a document must be text: its source of type text or content")
    heads = [block[name] for name in ("title", "context") if isinstance(block.get(name), str)]
    return _joined((*heads, text))


def _joined(texts: Iterable[str]) -> str:
    return "\n".join(text for text in texts if text)


def _refused(param: str, what: str) -> InvalidRequestError:
    return InvalidRequestError(f"{param}: {what}", param=param)
