"""The bodies of the routes: their types, and the way from JSON to them."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from inferd.errors import InvalidRequestError

MAX_DEPTH = 64  # of nested lists and objects; the deepest real requests are JSON schemas of about 20
MAX_TOKEN_ID = 2**31 - 1
_FIELD = re.compile(r"\$\.(\w+)")
_MISSING = re.compile(r"missing required field `(\w+)`")
ROLES = ("system", "developer", "user", "assistant", "tool")


class StreamOptions(msgspec.Struct):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class Body(msgspec.Struct, kw_only=True):
    """Fields of both routes but those of SamplingParams."""

    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None
    priority: int = 0
    cache_salt: str = ""
    truncate_prompt_tokens: int | None = None
    return_token_ids: bool = False
    return_tokens_as_token_ids: bool = False
    return_prompt_text: bool = False
    return_timings: bool = False
    ttft_target: float | None = None  # seconds; None: the model's
    itl_target: float | None = None


class ChatBody(Body, kw_only=True):
    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    add_special_tokens: bool = False
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] = {}


class CompletionBody(Body, kw_only=True):
    prompt: str | list[str | int | list[int]]
    add_special_tokens: bool = True
    echo: bool = False
    logprobs: int | None = None
    best_of: int | None = None


class TokenizeBody(msgspec.Struct, kw_only=True):
    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    add_special_tokens: bool | None = None  # auto: for a prompt, not for messages
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] = {}
    return_token_strs: bool = False


class DetokenizeBody(msgspec.Struct, kw_only=True):
    model: str | None = None
    tokens: list[int]


T = TypeVar("T")


def decode(raw: bytes) -> dict[str, Any]:
    """The fields of a JSON body; null counts as absent."""
    try:
        fields = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequestError("the body is not valid JSON") from error
    if not isinstance(fields, dict):
        raise InvalidRequestError("the body must be a JSON object")
    for name, value in fields.items():
        if is_deep(value):
            raise InvalidRequestError(f"{name[:80]} is nested more than {MAX_DEPTH} levels deep", param=name[:80])
    return {name: value for name, value in fields.items() if value is not None}


def is_deep(value: Any) -> bool:
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return False
        values = (item for box in level for item in (box.values() if isinstance(box, dict) else box))
        level = [item for item in values if isinstance(item, list | dict)]
    return True


def convert(fields: dict[str, Any], kind: type[T], *, str_keys: bool = False) -> T:
    """Raises InvalidRequestError with the field's name when a type is wrong or a field is missing."""
    try:
        return msgspec.convert(fields, kind, str_keys=str_keys)
    except (msgspec.ValidationError, RecursionError) as error:
        what, _, where = str(error).partition(" - at ")
        found = _FIELD.search(where) or _MISSING.search(what)
        param = found.group(1) if found else None
        raise InvalidRequestError(f"{param or 'body'}: {what}", param=param) from error


def integral(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON has one kind of number: 16.0 is an integer where one is wanted, and fits where a float is."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in fields.items()
    }


def message_of(message: dict[str, Any]) -> dict[str, Any]:
    """A message as templates want it: content is text, a developer is a system."""
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise InvalidRequestError(f"messages: role must be one of {', '.join(ROLES)}", param="messages")
    if isinstance(content, list):
        content = "".join(map(_part_text, content))
    if content is not None and not isinstance(content, str):
        raise InvalidRequestError("messages: content must be a string, a list of parts or null", param="messages")
    return {**message, "role": "system" if role == "developer" else role, "content": content or ""}


def _part_text(part: Any) -> str:
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    if not isinstance(text, str):
        raise InvalidRequestError("messages: only parts of type text are supported", param="messages")
    return text


def check_token_id(token_id: int, param: str) -> None:
    if not 0 <= token_id <= MAX_TOKEN_ID:
        raise InvalidRequestError(f"{param} must hold token ids of the vocabulary, got {token_id}", param=param)
