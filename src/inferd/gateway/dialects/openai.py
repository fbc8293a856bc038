"""OpenAI's chat and text completions: wire JSON to Generate commands, token events to wire JSON."""

from __future__ import annotations

import time
import uuid
from typing import Any

import msgspec

from inferd.errors import InvalidRequestError
from inferd.types import SamplingParams
from inferd.worker.protocol import ChatPrompt, Generate, Prompt, Ready, TextPrompt, TokenPrompt

HARMLESS = frozenset(
    ["model", "user", "store", "metadata", "service_tier", "safety_identifier",
     "prompt_cache_key", "parallel_tool_calls"]
)
SAMPLING = frozenset(SamplingParams.__dataclass_fields__) - {"logprobs", "prompt_logprobs", "max_tokens", "stop"}
MAX_TOKEN_ID = 2**31 - 1


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class Body(msgspec.Struct, kw_only=True):
    """Fields of both routes; sampling fields go to SamplingParams, which checks them."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None
    priority: int | None = None
    cache_salt: str | None = None


class ChatBody(Body, kw_only=True):
    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionBody(Body, kw_only=True):
    prompt: str | list[int]
    add_special_tokens: bool = True


def parse(raw: bytes, *, is_chat: bool) -> tuple[ChatBody | CompletionBody, dict[str, Any]]:
    """The checked body and all its fields. A field that is neither honoured nor harmless raises with its name."""
    try:
        fields = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequestError("the body is not valid JSON") from error
    if not isinstance(fields, dict):
        raise InvalidRequestError("the body must be a JSON object")
    kind: type[ChatBody] | type[CompletionBody] = ChatBody if is_chat else CompletionBody
    fields = {name: value for name, value in fields.items() if value is not None}
    known = set(kind.__struct_fields__) | SAMPLING | HARMLESS
    for name, value in fields.items():
        if name not in known and value not in (False, [], {}):
            raise InvalidRequestError(f"{name[:80]} is not supported", param=name[:80])
    try:
        return msgspec.convert(fields, kind), fields
    except (msgspec.ValidationError, RecursionError) as error:
        text = str(error)
        param = text.partition("`$.")[2].strip("`").partition("[")[0] or None
        raise InvalidRequestError(f"{param or 'body'}: {text.partition(' - at')[0]}", param=param) from error


def to_sampling(body: ChatBody | CompletionBody, fields: dict[str, Any], ready: Ready | None) -> SamplingParams:
    values = {k: v for k, v in (ready.generation_defaults if ready else {}).items() if k in SAMPLING}
    values |= {name: fields[name] for name in SAMPLING if name in fields}
    values["max_tokens"] = body.max_tokens
    if isinstance(body, ChatBody):
        if body.max_completion_tokens is not None:
            values["max_tokens"] = body.max_completion_tokens
    elif body.max_tokens is None:
        values["max_tokens"] = 16
    values["stop"] = [body.stop] if isinstance(body.stop, str) else body.stop or []
    try:
        return msgspec.convert(values, SamplingParams, strict=True, str_keys=True)
    except msgspec.ValidationError as error:
        param = str(error).partition("`$.")[2].strip("`").partition("[")[0] or None
        raise InvalidRequestError(f"{param}: {str(error).partition(' - at')[0]}", param=param) from error


def to_command(body: ChatBody | CompletionBody, sampling: SamplingParams, tenant: str) -> Generate:
    if body.priority is not None and abs(body.priority) >= 2**63:
        raise InvalidRequestError("priority must be below 2**63 in size", param="priority")
    prefix = "chatcmpl-" if isinstance(body, ChatBody) else "cmpl-"
    return Generate(
        request_id=prefix + uuid.uuid4().hex,
        prompt=_prompt(body),
        sampling=sampling,
        priority=body.priority or 0,
        tenant=tenant,
        cache_salt=body.cache_salt or "",
    )


def _prompt(body: ChatBody | CompletionBody) -> Prompt:
    if isinstance(body, ChatBody):
        return ChatPrompt(
            messages=[_message(message) for message in body.messages],
            add_generation_prompt=body.add_generation_prompt,
            continue_final_message=body.continue_final_message,
            template_kwargs=body.chat_template_kwargs or {},
        )
    if isinstance(body.prompt, str):
        return TextPrompt(text=body.prompt, add_special_tokens=body.add_special_tokens)
    for token_id in body.prompt:
        if not 0 <= token_id <= MAX_TOKEN_ID:
            raise InvalidRequestError("prompt must hold token ids of the vocabulary", param="prompt")
    return TokenPrompt(token_ids=tuple(body.prompt))


def _message(message: dict[str, Any]) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    if role not in ("system", "developer", "user", "assistant", "tool"):
        raise InvalidRequestError("messages: role must be system, developer, user, assistant or tool", param="messages")
    if isinstance(content, list):
        for part in content:
            if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
                raise InvalidRequestError("messages: only text parts are supported", param="messages")
        content = "".join(part["text"] for part in content)
    if content is not None and not isinstance(content, str):
        raise InvalidRequestError("messages: content must be a string, a list of parts or null", param="messages")
    return {**message, "role": "system" if role == "developer" else role, "content": content or ""}


class Answer:
    """Shapes one response; id, created and model stay the same over a stream."""

    def __init__(self, request_id: str, model: str, *, is_chat: bool) -> None:
        self._is_chat = is_chat
        self._base = {"id": request_id, "created": int(time.time()), "model": model}

    def whole(self, texts: list[str], reasons: list[str | None], usage: dict[str, Any]) -> dict[str, Any]:
        choices = []
        for index, (text, reason) in enumerate(zip(texts, reasons, strict=True)):
            body = {"message": {"role": "assistant", "content": text}} if self._is_chat else {"text": text}
            choices.append({"index": index, **body, "logprobs": None, "finish_reason": reason})
        kind = "chat.completion" if self._is_chat else "text_completion"
        return {**self._base, "object": kind, "choices": choices, "usage": usage}

    def chunk(self, index: int, text: str, reason: str | None = None, *, is_first: bool = False) -> dict[str, Any]:
        delta: dict[str, str] = {"content": text} if text or is_first else {}
        if is_first:
            delta["role"] = "assistant"
        body: dict[str, Any] = {"delta": delta} if self._is_chat else {"text": text}
        return self._chunk([{"index": index, **body, "logprobs": None, "finish_reason": reason}])

    def usage_chunk(self, usage: dict[str, Any]) -> dict[str, Any]:
        return {**self._chunk([]), "usage": usage}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self._is_chat else "text_completion"
        return {**self._base, "object": kind, "choices": choices}


def usage(num_prompt: int, num_output: int, num_cached: int) -> dict[str, Any]:
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_output,
        "total_tokens": num_prompt + num_output,
        "prompt_tokens_details": {"cached_tokens": num_cached},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
