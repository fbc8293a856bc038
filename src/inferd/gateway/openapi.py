"""The OpenAPI 3.1 document of every route, as plain data."""

from __future__ import annotations

from typing import Any

from inferd.gateway.dialects.anthropic import openapi as anthropic
from inferd.gateway.dialects.openai.bodies import MAX_TOKEN_ID, ROLES
from inferd.gateway.dialects.openai.call import MAX_PROMPTS, MAX_SALT_LEN
from inferd.gateway.dialects.openai.fields import REFUSED
from inferd.gateway.dialects.responses import openapi as responses
from inferd.gateway.schemas import FLAG, INT32, TEXT, Schema, answers, array, integer, number, optional, post
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

TOKEN_ID: Schema = {"type": "integer", "minimum": 0, "maximum": MAX_TOKEN_ID}
STOP: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_STRING_LEN}
STREAM_OPTIONS = optional(
    "object", properties={"include_usage": {"type": "boolean"}, "continuous_usage_stats": {"type": "boolean"}}
)

SAMPLING: dict[str, Schema] = {
    "n": integer(1, MAX_N),
    "temperature": number(0, 100),
    "top_p": number(0, 1),
    "top_k": integer(-1, INT32),
    "min_p": number(0, 1),
    "typical_p": number(0, 1),
    "seed": integer(-(2**63), MAX_SEED),
    "stop": {"anyOf": [STOP, {"type": "array", "items": STOP, "maxItems": MAX_STOP_STRINGS}, {"type": "null"}]},
    "stop_token_ids": array(TOKEN_ID, maxItems=128),
    "ignore_eos": FLAG,
    "min_tokens": integer(0, INT32),
    "presence_penalty": number(-2, 2),
    "frequency_penalty": number(-2, 2),
    "repetition_penalty": number(0.01, 100),
    "logit_bias": optional(
        "object",
        additionalProperties={"type": "number", "minimum": -100, "maximum": 100},
        propertyNames={"pattern": "^[0-9]{1,10}$"},
        maxProperties=MAX_BIAS_ENTRIES,
    ),
    "allowed_token_ids": array(TOKEN_ID, minItems=1),
    "bad_words": array({"type": "string", "minLength": 1, "maxLength": 256}, maxItems=128),
    "skip_special_tokens": FLAG,
    "include_stop_str_in_output": FLAG,
    "prompt_logprobs": integer(0, MAX_LOGPROBS),
}
COMMON: dict[str, Schema] = {
    "model": TEXT,
    "stream": FLAG,
    "stream_options": STREAM_OPTIONS,
    **SAMPLING,
    "priority": integer(-(2**63) + 1, 2**63 - 1),
    "cache_salt": optional("string", maxLength=MAX_SALT_LEN),
    "truncate_prompt_tokens": integer(-1, INT32),
    "return_token_ids": FLAG,
    "return_tokens_as_token_ids": FLAG,
    "return_prompt_text": FLAG,
    "return_timings": FLAG,
    "ttft_target": number(MIN_TARGET, MAX_TARGET),
    "itl_target": number(MIN_TARGET, MAX_TARGET),
    "add_special_tokens": FLAG,
    "user": TEXT,
    "metadata": optional("object"),
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
    "chat_template_kwargs": optional("object"),
}
CHAT: Schema = {
    "type": "object",
    "required": ["messages"],
    "properties": {
        **COMMON,
        "messages": {"type": "array", "items": MESSAGE, "minItems": 1},
        "max_tokens": integer(1, INT32),
        "max_completion_tokens": integer(1, INT32),
        "logprobs": FLAG,
        "top_logprobs": integer(0, MAX_LOGPROBS),
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
        "max_tokens": integer(0, INT32),
        "echo": FLAG,
        "logprobs": integer(0, MAX_LOGPROBS),
        "best_of": integer(1, MAX_N),
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
        "messages": array(MESSAGE, minItems=1),
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
        "max_model_len": optional("integer"),
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
        "timings": {"type": "object", "additionalProperties": optional("number")},
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
                "properties": {"status": {"enum": ["asleep", "loading", "ready", "restarting", "leaving", "failed"]}},
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
        "token_strs": array({"type": "string"}),
    },
}
PROMPT_TEXT: Schema = {"type": "object", "required": ["prompt"], "properties": {"prompt": {"type": "string"}}}


def _get(summary: str, schema: Schema | None, kind: str = "application/json", **more: Any) -> dict[str, Any]:
    content = {kind: {"schema": schema if schema is not None else {"type": "string"}}}
    responses = {"200": {"description": "Done", "content": content}, "default": answers({})["default"]}
    return {"get": {"summary": summary, "responses": responses, **more}}


def _ready() -> dict[str, Any]:
    path = _get("Whether a token can be generated now", STATUS)
    not_ready = {"description": "Not ready", "content": {"application/json": {"schema": STATUS}}}
    path["get"]["responses"]["503"] = not_ready
    return path


def paths() -> dict[str, Any]:
    model_id = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    alive = "Whether the gateway lives"
    tokenize = post("Token ids of a text or a chat", TOKENIZE, TOKENS)
    detokenize = post("The text of token ids", DETOKENIZE, PROMPT_TEXT)
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
        "/v1/chat/completions": post("The next message of a chat", CHAT, ANSWER, streams=True),
        "/v1/completions": post("The continuation of a text", COMPLETION, ANSWER, streams=True),
        "/tokenize": tokenize,
        "/v1/tokenize": tokenize,
        "/detokenize": detokenize,
        "/v1/detokenize": detokenize,
        **anthropic.paths(),
        **responses.paths(),
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
