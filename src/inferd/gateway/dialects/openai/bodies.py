"""The bodies of the routes, and the checks of what is in them."""

from __future__ import annotations

from typing import Any

import msgspec

from inferd.errors import InvalidRequestError

MAX_TOKEN_ID = 2**31 - 1
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
