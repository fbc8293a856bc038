"""Tools as requests bring them: the checks, and how they are told to a template that knows of none."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from inferd.errors import InvalidRequestError
from inferd.parsing.formats import OutputFormat

MAX_TOOLS = 256
_NAME = re.compile(r"[a-zA-Z0-9_.:/-]{1,128}")
_ANY_OBJECT = {"type": "object", "properties": {}}

Message = dict[str, Any]
Tool = dict[str, Any]

_INSTRUCTIONS = """You can call these functions:
{tools}

To call one, answer with its name and arguments as JSON inside of tags, and with nothing else:
<tool_call>
{{"name": "function name", "arguments": {{"argument name": "value"}}}}
</tool_call>
Results come back inside of <tool_response> tags. Answer in plain words when no function is needed."""


def checked_tools(tools: Sequence[Any], param: str = "tools") -> list[Tool]:
    """Tools of type function in OpenAI's shape, with a schema for each. Raises InvalidRequestError naming `param`."""
    if len(tools) > MAX_TOOLS:
        raise InvalidRequestError(f"{param} must hold at most {MAX_TOOLS} tools, got {len(tools)}", param=param)
    checked = [_checked_tool(tool, param) for tool in tools]
    names = [name_of(tool) for tool in checked]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidRequestError(f"{param}: the name {twice!r} is there twice", param=param)
    return checked


def _checked_tool(tool: Any, param: str) -> Tool:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or tool.get("type", "function") != "function":
        raise InvalidRequestError(
            f'{param} must hold objects with type "function" and a function; no other type is served', param=param
        )
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        allowed = "1 to 128 letters, digits and _ . : / -"
        raise InvalidRequestError(f"{param}: a function's name must be {allowed}, got {str(name)[:80]!r}", param=param)
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise InvalidRequestError(f"{param}: parameters of {name} must be a JSON schema, an object", param=param)
    description = function.get("description")
    if description is not None and not isinstance(description, str):
        raise InvalidRequestError(f"{param}: the description of {name} must be text", param=param)
    strict = function.get("strict")
    if strict is not None and not isinstance(strict, bool):
        raise InvalidRequestError(f"{param}: strict of {name} must be true or false", param=param)
    return {"type": "function", "function": {**function, "parameters": dict(parameters or _ANY_OBJECT)}}


def checked_calls(calls: Any, param: str = "messages") -> list[dict[str, Any]]:
    """Of an assistant's message of the past. Raises InvalidRequestError naming `param`."""
    if not isinstance(calls, list):
        raise InvalidRequestError(f"{param}: tool_calls must be a list", param=param)
    for call in calls:
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise InvalidRequestError(f"{param}: tool_calls must hold objects with function.name", param=param)
        if not isinstance(function.get("arguments", ""), str | Mapping):
            raise InvalidRequestError(f"{param}: function.arguments must be JSON text", param=param)
        if not isinstance(call.get("id", ""), str):
            raise InvalidRequestError(f"{param}: the id of a tool call must be text", param=param)
    return calls


def name_of(tool: Tool) -> str:
    return str(tool["function"]["name"])


def schemas_of(tools: Sequence[Tool]) -> dict[str, Mapping[str, Any]]:
    return {name_of(tool): tool["function"]["parameters"] for tool in tools}


def for_template(messages: Sequence[Message], form: OutputFormat) -> list[Message]:
    """messages as the templates of this format read them: arguments as objects, ids of their length, and the
    reasoning of earlier answers under every name it goes by."""
    if not form.knows_tools:
        messages = _as_words(messages)
    names = {call.get("id"): call["function"]["name"] for message in messages for call in message.get("tool_calls", ())}
    return [_for_template(message, form, names) for message in messages]


def _for_template(message: Message, form: OutputFormat, names: Mapping[Any, str]) -> Message:
    message = dict(message)
    thought = next((message[key] for key in ("reasoning_content", "reasoning", "thinking") if message.get(key)), None)
    if isinstance(thought, str):
        message |= {"reasoning_content": thought, "thinking": thought}
    if not message.get("tool_calls"):
        message.pop("tool_calls", None)
    else:
        message["tool_calls"] = [_call_for_template(call, form) for call in message["tool_calls"]]
    if message.get("role") == "tool":
        message.setdefault("name", names.get(message.get("tool_call_id"), ""))
        if "tool_call_id" in message:
            message["tool_call_id"] = _fitting_id(str(message["tool_call_id"]), form.tool_format.id_len)
    return message


def _call_for_template(call: Mapping[str, Any], form: OutputFormat) -> dict[str, Any]:
    function = dict(call["function"])
    text = _arguments_text(function)
    function["arguments"] = text if form.takes_argument_text else _object_or_text(text)
    call_id = _fitting_id(str(call.get("id", "")), form.tool_format.id_len)
    return {**call, "type": "function", "id": call_id, "function": function}


def _arguments_text(function: Mapping[str, Any]) -> str:
    arguments = function.get("arguments", "")
    return arguments or "{}" if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _object_or_text(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return text  # the model wrote it so


def _fitting_id(call_id: str, size: int | None) -> str:
    """Some templates refuse ids that are not of their own length; another server's become a digest."""
    if size is None or (len(call_id) == size and call_id.isalnum()):
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:size]


def told_of_tools(messages: Sequence[Message], tools: Sequence[Tool], form: OutputFormat) -> list[Message]:
    """For a template that knows no tools: a system message says what they are and how to call them."""
    told = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    text = _INSTRUCTIONS.format(tools=told)
    first, *rest = messages
    if form.knows_system and first.get("role") == "system":
        return [{**first, "content": f"{first['content']}\n\n{text}"}, *rest]
    if form.knows_system:
        return [{"role": "system", "content": text}, *messages]
    return [{**first, "content": f"{text}\n\n{first['content']}"}, *rest]


def _as_words(messages: Sequence[Message]) -> list[Message]:
    """Calls and their results as text that an assistant and a user wrote, as told_of_tools says; results that follow
    one another become one message, since some templates demand that roles alternate."""
    shown: list[Message] = []
    is_result = False
    for message in messages:
        if message.get("role") == "tool":
            text = f"<tool_response>\n{message.get('content', '')}\n</tool_response>"
            if is_result:
                shown[-1] = {"role": "user", "content": f"{shown[-1]['content']}\n{text}"}
            else:
                shown.append({"role": "user", "content": text})
        elif message.get("tool_calls"):
            calls = [_call_as_words(call["function"]) for call in message["tool_calls"]]
            kept = {key: value for key, value in message.items() if key != "tool_calls"}
            shown.append({**kept, "content": "\n".join(filter(None, [str(message.get("content") or ""), *calls]))})
        else:
            shown.append(message)
        is_result = message.get("role") == "tool"
    return shown


def _call_as_words(function: Mapping[str, Any]) -> str:
    name = json.dumps(function["name"], ensure_ascii=False)
    return f'<tool_call>\n{{"name": {name}, "arguments": {_arguments_text(function)}}}\n</tool_call>'
