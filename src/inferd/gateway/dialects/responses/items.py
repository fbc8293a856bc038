"""Input items and tools in the shape of chat templates (that of OpenAI's chats)."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from inferd.errors import InvalidRequestError
from inferd.gateway.tools import checked_tools

Item = dict[str, Any]
Message = dict[str, Any]
MARK = "inferd:"  # begins encrypted_content that was made here: the reasoning itself, in base64
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
_TEXT_PARTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}  # type -> field


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


def items_of(given: str | list[Item]) -> list[Item]:
    """The input as items that each have a type and an id. Raises InvalidRequestError naming `input`."""
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    return [_named(item) for item in given]


def chat_of(instructions: str | None, items: Iterable[Item]) -> list[Message]:
    """instructions come first, and go with system messages that follow at once. Raises InvalidRequestError."""
    chat: list[Message] = []
    if instructions:
        chat.append({"role": "system", "content": instructions})
    names: dict[str, str] = {}  # of each function, by the id of its call
    for item in items:
        _READERS[item["type"]](item, chat, names)
    return chat


def tools_of(tools: Iterable[Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Functions, and a warning for each tool that a server would have to run or this one does not know."""
    functions, warnings = [], []
    for tool in tools:
        kind = tool.get("type")
        if kind != "function":
            warnings.append(f"tools: {str(kind)[:80]!r} is not offered here and was left out")
            continue
        known = ("name", "description", "parameters", "strict")
        function = {name: tool[name] for name in known if tool.get(name) is not None}
        functions.append({"type": "function", "function": function})
    return checked_tools(functions), warnings


def encrypted(reasoning: str) -> str:
    return MARK + base64.b64encode(reasoning.encode()).decode()


def _named(item: Item) -> Item:
    kind = item.get("type") or ("message" if "role" in item else None)
    if kind not in _READERS:
        known = ", ".join(_READERS)
        raise _refused(f"an item of type {str(kind)[:80]!r} cannot be read here; only {known} can")
    item_id = item.get("id")
    if item_id is not None and not isinstance(item_id, str):
        raise _refused("the id of an item must be a string")
    return {**item, "type": kind, "id": item_id or new_id(_PREFIXES[kind])}


def _read_message(item: Item, chat: list[Message], names: dict[str, str]) -> None:
    role = {"developer": "system"}.get(item.get("role", ""), item.get("role"))
    if role not in ("user", "assistant", "system"):
        raise _refused(f"role must be user, assistant, system or developer, got {str(role)[:80]!r}")
    text = _text_of(item.get("content"))
    if role == "assistant":
        _add_text(_assistant(chat), text)
    elif role == "system" and len(chat) == 1 and chat[0]["role"] == "system":
        _add_text(chat[0], text)  # templates often know only one system message, the first
    else:
        chat.append({"role": role, "content": text})


def _read_reasoning(item: Item, chat: list[Message], names: dict[str, str]) -> None:
    thought = _text_of(item.get("content") or [], {"reasoning_text": "text"}) or _decrypted(item)
    if thought:
        turn = _assistant(chat)
        turn["reasoning_content"] = turn.get("reasoning_content", "") + thought


def _read_call(item: Item, chat: list[Message], names: dict[str, str]) -> None:
    call_id, name, arguments = item.get("call_id"), item.get("name"), item.get("arguments")
    if not isinstance(call_id, str) or not isinstance(name, str) or not isinstance(arguments, str):
        raise _refused("a function_call needs call_id, name and arguments, all strings")
    names[call_id] = name
    function = {"name": name, "arguments": arguments}
    _assistant(chat).setdefault("tool_calls", []).append({"id": call_id, "type": "function", "function": function})


def _read_call_output(item: Item, chat: list[Message], names: dict[str, str]) -> None:
    call_id = item.get("call_id")
    if not isinstance(call_id, str):
        raise _refused("a function_call_output needs call_id, a string")
    turn = {"role": "tool", "tool_call_id": call_id, "content": _text_of(item.get("output"))}
    chat.append(turn | ({"name": names[call_id]} if call_id in names else {}))


_READERS: dict[str, Callable[[Item, list[Message], dict[str, str]], None]] = {
    "message": _read_message,
    "function_call": _read_call,
    "function_call_output": _read_call_output,
    "reasoning": _read_reasoning,
}


def _assistant(chat: list[Message]) -> Message:
    """The assistant's turn that is going on; a new one after any other's."""
    if not chat or chat[-1]["role"] != "assistant":
        chat.append({"role": "assistant", "content": ""})
    return chat[-1]


def _add_text(turn: Message, text: str) -> None:
    turn["content"] = "\n\n".join(filter(None, (turn["content"], text)))


def _decrypted(item: Item) -> str:
    """Nothing of reasoning that another server hid."""
    mark, hidden = str(item.get("encrypted_content"))[: len(MARK)], str(item.get("encrypted_content"))[len(MARK) :]
    if mark != MARK:
        return ""
    try:
        return base64.b64decode(hidden, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise _refused("encrypted_content is not what was sent") from None


def _text_of(content: Any, parts: dict[str, str] = _TEXT_PARTS) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _refused("content and output must be a string or a list of parts")
    return "".join(_part_text(part, parts) for part in content)


def _part_text(part: Any, parts: dict[str, str]) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get(parts[kind]) if isinstance(kind, str) and kind in parts else None
    if not isinstance(text, str):
        raise _refused(f"a part of type {str(kind)[:80]!r} cannot be read here; only {', '.join(parts)} can")
    return text


def _refused(what: str) -> InvalidRequestError:
    return InvalidRequestError(f"input: {what}", param="input")
