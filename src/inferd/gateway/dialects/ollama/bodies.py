"""The bodies of the routes, and the checks of what is in them."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from inferd.errors import InvalidRequestError
from inferd.gateway.dialects.fields import Refusals
from inferd.gateway.residency import FOREVER
from inferd.types import StructuredOutputs

MAX_TOP_LOGPROBS = 20
ROLES = ("system", "user", "assistant", "tool")
EFFORTS = ("low", "medium", "high", "max")
_DURATION = re.compile(r"(-?)((?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+)")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_IMAGES = "this server reads no images"

REFUSED: Refusals = {
    "template": (("",), "templates of a request are not run; the model's own is used"),
    "images": (([],), _IMAGES),
    "shift": ((False,), "the context is not shifted: an answer that fills it ends with done_reason length"),
    "_debug_render_only": ((False,), "POST /apply-template renders a chat without an answer"),
}


class Body(msgspec.Struct, kw_only=True):
    """Fields of chats and texts."""

    model: str
    stream: bool = True
    format: str | dict[str, Any] | None = None
    keep_alive: str | float | None = None
    options: dict[str, Any] = {}
    think: bool | str | None = None
    truncate: bool = False
    logprobs: bool = False
    top_logprobs: int = 0


class ChatBody(Body, kw_only=True):
    messages: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] = []


class GenerateBody(Body, kw_only=True):
    prompt: str = ""
    suffix: str = ""
    system: str = ""
    raw: bool = False
    context: list[int] = []


class EmbedBody(msgspec.Struct, kw_only=True):
    model: str
    input: str | list[str] = []
    truncate: bool = False
    dimensions: int | None = None
    keep_alive: str | float | None = None
    options: dict[str, Any] = {}


class EmbeddingsBody(msgspec.Struct, kw_only=True):
    """The older route: one text."""

    model: str
    prompt: str = ""
    keep_alive: str | float | None = None
    options: dict[str, Any] = {}


class NameBody(msgspec.Struct, kw_only=True):
    """Routes about one model; `name` is its older name."""

    model: str = ""
    name: str = ""
    stream: bool = True

    @property
    def wanted(self) -> str:
        if not (self.model or self.name):
            raise InvalidRequestError("model: required", param="model")
        return self.model or self.name


def check_body(body: Body) -> None:
    seconds_of(body.keep_alive)
    if not 0 <= body.top_logprobs <= MAX_TOP_LOGPROBS:
        raise InvalidRequestError(f"top_logprobs must be from 0 to {MAX_TOP_LOGPROBS}", param="top_logprobs")
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequestError("top_logprobs needs logprobs to be true", param="top_logprobs")
    if isinstance(body.think, str) and body.think not in EFFORTS:
        raise InvalidRequestError(f"think must be true, false or one of {', '.join(EFFORTS)}", param="think")


def seconds_of(keep_alive: str | float | None) -> float | None:
    """For how long a model stays after the request; FOREVER for what is below 0; None: as the server is set."""
    if keep_alive is None:
        return None
    seconds = _seconds(keep_alive)
    return FOREVER if seconds < 0 else seconds


def _seconds(keep_alive: str | float) -> float:
    if not isinstance(keep_alive, str) or re.fullmatch(r"-?\d{1,12}", keep_alive):
        return float(keep_alive)
    found = _DURATION.fullmatch(keep_alive)
    if found is None:
        raise InvalidRequestError('keep_alive must be seconds or a duration like "5m"', param="keep_alive")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(found.group(2)))
    return -seconds if found.group(1) else seconds


def structured_of(value: str | dict[str, Any] | None) -> StructuredOutputs | None:
    """What `format` asks for."""
    if value is None or value == "":
        return None
    if value == "json":
        return StructuredOutputs(kind="json_object")
    if isinstance(value, str):
        raise InvalidRequestError('format must be "json" or a JSON schema', param="format")
    return StructuredOutputs(kind="json_schema", value=msgspec.json.encode(value).decode())


def messages_of(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In OpenAI's shape: the arguments of calls are JSON text, thinking is reasoning_content."""
    return [_message(message) for message in messages]


def _message(message: dict[str, Any]) -> dict[str, Any]:
    role = message.get("role")
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise InvalidRequestError(f"messages: role must be one of {', '.join(ROLES)}", param="messages")
    if message.get("images"):
        raise InvalidRequestError(f"messages: {_IMAGES}", param="images")
    turned: dict[str, Any] = {"role": role.lower(), "content": _text(message, "content")}
    if message.get("thinking"):
        turned["reasoning_content"] = _text(message, "thinking")
    if message.get("tool_calls"):
        turned["tool_calls"] = [_call(number, call) for number, call in enumerate(_list(message, "tool_calls"))]
    if message.get("tool_name"):
        turned["name"] = _text(message, "tool_name")
    if message.get("tool_call_id"):
        turned["tool_call_id"] = _text(message, "tool_call_id")
    return turned


def _text(message: dict[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str | None):
        raise InvalidRequestError(f"messages: {name} must be a string", param="messages")
    return value or ""


def _list(message: dict[str, Any], name: str) -> list[Any]:
    value = message[name]
    if not isinstance(value, list):
        raise InvalidRequestError(f"messages: {name} must be a list", param="messages")
    return value


def _call(number: int, call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    arguments = (function.get("arguments") or {}) if isinstance(function, dict) else None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        what = "messages: a tool call has a function with a name and an object of arguments"
        raise InvalidRequestError(what, param="messages")
    call_id = call.get("id")
    return {
        "id": call_id if isinstance(call_id, str) and call_id else f"call_{number}",
        "type": "function",
        "function": {"name": name, "arguments": msgspec.json.encode(arguments).decode()},
    }
