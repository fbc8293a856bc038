"""The OpenAPI 3.1 document of every route, as plain data."""

from __future__ import annotations

from typing import Any

from inferd.gateway.dialects.openai.bodies import MAX_TOKEN_ID, ROLES
from inferd.gateway.dialects.openai.call import MAX_PROMPTS, MAX_SALT_LEN
from inferd.gateway.dialects.openai.fields import REFUSED
from inferd.metrics.recorder import NUM_LATEST
from inferd.metrics.requests import MAX_TARGET, MIN_TARGET
from inferd.types import (
    MAX_BIAS_ENTRIES,
    MAX_LOGPROBS,
    MAX_N,
    MAX_SEED,
    MAX_STOP_STRING_LEN,
    MAX_STOP_STRINGS,
)

Schema = dict[str, Any]
INT32 = 2**31 - 1


def _optional(kind: str, **limits: Any) -> Schema:
    """null counts as absent, for every field that need not be there."""
    return {"type": [kind, "null"], **limits}


def _integer(low: int, high: int) -> Schema:
    return _optional("integer", minimum=low, maximum=high)


def _number(low: float, high: float) -> Schema:
    return _optional("number", minimum=low, maximum=high)


def _list(items: Schema, **limits: Any) -> Schema:
    return _optional("array", items=items, **limits)


FLAG = _optional("boolean")
TEXT = _optional("string")
TOKEN_ID: Schema = {"type": "integer", "minimum": 0, "maximum": MAX_TOKEN_ID}
STOP: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_STRING_LEN}
STREAM_OPTIONS = _optional(
    "object", properties={"include_usage": {"type": "boolean"}, "continuous_usage_stats": {"type": "boolean"}}
)

SAMPLING: dict[str, Schema] = {
    "n": _integer(1, MAX_N),
    "temperature": _number(0, 100),
    "top_p": _number(0, 1),
    "top_k": _integer(-1, INT32),
    "min_p": _number(0, 1),
    "typical_p": _number(0, 1),
    "seed": _integer(-(2**63), MAX_SEED),
    "stop": {"anyOf": [STOP, {"type": "array", "items": STOP, "maxItems": MAX_STOP_STRINGS}, {"type": "null"}]},
    "stop_token_ids": _list(TOKEN_ID, maxItems=128),
    "ignore_eos": FLAG,
    "min_tokens": _integer(0, INT32),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "repetition_penalty": _number(0.01, 100),
    "logit_bias": _optional(
        "object",
        additionalProperties={"type": "number", "minimum": -100, "maximum": 100},
        propertyNames={"pattern": "^[0-9]{1,10}$"},
        maxProperties=MAX_BIAS_ENTRIES,
    ),
    "allowed_token_ids": _list(TOKEN_ID, minItems=1),
    "bad_words": _list({"type": "string", "minLength": 1, "maxLength": 256}, maxItems=128),
    "skip_special_tokens": FLAG,
    "include_stop_str_in_output": FLAG,
    "prompt_logprobs": _integer(0, MAX_LOGPROBS),
}
COMMON: dict[str, Schema] = {
    "model": TEXT,
    "stream": FLAG,
    "stream_options": STREAM_OPTIONS,
    **SAMPLING,
    "priority": _integer(-(2**63) + 1, 2**63 - 1),
    "cache_salt": _optional("string", maxLength=MAX_SALT_LEN),
    "truncate_prompt_tokens": _integer(-1, INT32),
    "return_token_ids": FLAG,
    "return_tokens_as_token_ids": FLAG,
    "return_prompt_text": FLAG,
    "return_timings": FLAG,
    "ttft_target": _number(MIN_TARGET, MAX_TARGET),
    "itl_target": _number(MIN_TARGET, MAX_TARGET),
    "add_special_tokens": FLAG,
    "user": TEXT,
    "metadata": _optional("object"),
}
TEXT_PART: Schema = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
}
MESSAGE: Schema = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"enum": list(ROLES)},
        "content": {"anyOf": [{"type": ["string", "null"]}, {"type": "array", "items": TEXT_PART}]},
    },
}
TEMPLATE_FIELDS: dict[str, Schema] = {
    "add_generation_prompt": FLAG,
    "continue_final_message": FLAG,
    "chat_template_kwargs": _optional("object"),
}
CHAT: Schema = {
    "type": "object",
    "required": ["messages"],
    "properties": {
        **COMMON,
        "messages": {"type": "array", "items": MESSAGE, "minItems": 1},
        "max_tokens": _integer(1, INT32),
        "max_completion_tokens": _integer(1, INT32),
        "logprobs": FLAG,
        "top_logprobs": _integer(0, MAX_LOGPROBS),
        **TEMPLATE_FIELDS,
    },
}
PROMPT: Schema = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": TOKEN_ID, "minItems": 1},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_PROMPTS},
        {
            "type": "array",
            "items": {"type": "array", "items": TOKEN_ID, "minItems": 1},
            "minItems": 1,
            "maxItems": MAX_PROMPTS,
        },
    ]
}
COMPLETION: Schema = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        **COMMON,
        "prompt": PROMPT,
        "max_tokens": _integer(0, INT32),
        "echo": FLAG,
        "logprobs": _integer(0, MAX_LOGPROBS),
        "best_of": _integer(1, MAX_N),
    },
}
TOKENIZE: Schema = {
    "type": "object",
    "oneOf": [
        {"required": ["prompt"], "properties": {"prompt": {"type": "string"}, "messages": {"type": "null"}}},
        {"required": ["messages"], "properties": {"messages": {"type": "array"}, "prompt": {"type": "null"}}},
    ],
    "properties": {
        "model": TEXT,
        "prompt": TEXT,
        "messages": _list(MESSAGE, minItems=1),
        "add_special_tokens": FLAG,
        "return_token_strs": FLAG,
        **TEMPLATE_FIELDS,
    },
}
DETOKENIZE: Schema = {
    "type": "object",
    "required": ["tokens"],
    "properties": {"model": TEXT, "tokens": {"type": "array", "items": TOKEN_ID}},
}

ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {"message": {"type": "string"}, "type": {"type": "string"}, "param": TEXT, "code": TEXT},
        }
    },
}
STATUS: Schema = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
MODEL: Schema = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
        "root": {"type": "string"},
        "parent": {"type": "null"},
        "max_model_len": _optional("integer"),
    },
}
MODELS: Schema = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": MODEL}},
}
ANSWER: Schema = {
    "type": "object",
    "required": ["id", "object", "created", "model", "choices", "usage"],
    "properties": {
        "id": {"type": "string"},
        "object": {"enum": ["chat.completion", "text_completion"]},
        "created": {"type": "integer"},
        "model": {"type": "string"},
        "choices": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "finish_reason", "logprobs"],
                "properties": {"index": {"type": "integer"}, "finish_reason": {"enum": ["stop", "length"]}},
            },
        },
        "usage": {"type": "object", "required": ["prompt_tokens", "completion_tokens", "total_tokens"]},
        "timings": {"type": "object", "additionalProperties": _optional("number")},
        "warnings": {"type": "array", "items": {"type": "string"}},
    },
}
STATE: Schema = {
    "type": "object",
    "required": ["version", "now", "uptime", "currency", "models", "requests"],
    "properties": {
        "version": {"type": "string"},
        "now": {"type": "number"},
        "uptime": {"type": "number"},
        "currency": TEXT,
        "models": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "status", "totals", "latency", "goodput", "cost"],
                "properties": {"status": {"enum": ["ready", "loading", "restarting", "failed"]}},
            },
        },
        "requests": {"type": "array", "items": {"type": "object"}, "maxItems": NUM_LATEST},
    },
}
TOKENS: Schema = {
    "type": "object",
    "required": ["count", "max_model_len", "tokens", "token_strs"],
    "properties": {
        "count": {"type": "integer"},
        "max_model_len": {"type": "integer"},
        "tokens": {"type": "array", "items": {"type": "integer"}},
        "token_strs": _list({"type": "string"}),
    },
}
PROMPT_TEXT: Schema = {"type": "object", "required": ["prompt"], "properties": {"prompt": {"type": "string"}}}


def _error(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": ERROR}}}


_ANY_ERROR = {"default": _error("An error of the client (4xx, names the field) or of the server (5xx)")}


def _get(summary: str, schema: Schema | None, kind: str = "application/json", **more: Any) -> dict[str, Any]:
    content = {kind: {"schema": schema if schema is not None else {"type": "string"}}}
    responses = {"200": {"description": "Done", "content": content}, **_ANY_ERROR}
    return {"get": {"summary": summary, "responses": responses, **more}}


def _post(summary: str, request: Schema, answer: Schema, *, streams: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": answer}}
    if streams:
        content["text/event-stream"] = {}  # one JSON object an event, then [DONE]
    body = {"required": True, "content": {"application/json": {"schema": request}}}
    responses = {"200": {"description": "Done", "content": content}, **_ANY_ERROR}
    return {"post": {"summary": summary, "requestBody": body, "responses": responses}}


def _ready() -> dict[str, Any]:
    path = _get("Whether a token can be generated now", STATUS)
    not_ready = {"description": "Not ready", "content": {"application/json": {"schema": STATUS}}}
    path["get"]["responses"]["503"] = not_ready
    return path


def paths() -> dict[str, Any]:
    model_id = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    alive = "Whether the gateway lives"
    tokenize = _post("Token ids of a text or a chat", TOKENIZE, TOKENS)
    detokenize = _post("The text of token ids", DETOKENIZE, PROMPT_TEXT)
    return {
        "/health": {"get": {**_get(alive, STATUS)["get"], "security": []}},
        "/v1/health": _get(alive, STATUS),
        "/ping": _get(alive, STATUS),
        "/ready": _ready(),
        "/metrics": _get("Figures for Prometheus", None, "text/plain"),
        "/inferd/state": _get("Models, their figures and the latest requests", STATE),
        "/version": _get("The version of inferd", {"type": "object", "required": ["version"]}),
        "/openapi.json": _get("This document", {"type": "object"}),
        "/v1/models": _get("The models that are served", MODELS),
        "/v1/models/{id}": _get("One of them", MODEL, parameters=[model_id]),
        "/v1/chat/completions": _post("The next message of a chat", CHAT, ANSWER, streams=True),
        "/v1/completions": _post("The continuation of a text", COMPLETION, ANSWER, streams=True),
        "/tokenize": tokenize,
        "/v1/tokenize": tokenize,
        "/detokenize": detokenize,
        "/v1/detokenize": detokenize,
    }


def document(version: str, *, needs_key: bool) -> dict[str, Any]:
    refused = ", ".join(sorted(REFUSED))
    description = (
        "Fields that are not listed here are ignored and named in the answer's `warnings`. "
        f"These are refused unless their value changes nothing: {refused}."
    )
    body: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "inferd", "version": version, "description": description},
        "paths": paths(),
    }
    if needs_key:
        body["components"] = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}
        body["security"] = [{"key": []}]
    return body
