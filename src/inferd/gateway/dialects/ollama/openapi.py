"""The routes of Ollama for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from inferd.gateway.dialects.ollama.bodies import EFFORTS, MAX_TOP_LOGPROBS
from inferd.gateway.schemas import FLAG, INT32, TEXT, Schema, array, get, integer, number, optional, post
from inferd.types import MAX_STOP_STRING_LEN, MAX_STOP_STRINGS

_ERROR: Schema = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_STOP: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_STRING_LEN}
_OPTIONS = optional(
    "object",
    properties={
        "num_predict": optional("integer", anyOf=[{"enum": [-1, -2]}, {"minimum": 1, "maximum": INT32}]),
        "num_ctx": integer(1, INT32),
        "temperature": number(0, 100),
        "top_k": integer(-1, INT32),
        "top_p": number(0, 1),
        "min_p": number(0, 1),
        "typical_p": number(0, 1),
        "repeat_penalty": number(0.01, 100),
        "repeat_last_n": integer(-1, INT32),
        "presence_penalty": number(-2, 2),
        "frequency_penalty": number(-2, 2),
        "seed": integer(-(2**63), 2**64 - 1),
        "stop": {"anyOf": [_STOP, {"type": "array", "items": _STOP, "maxItems": MAX_STOP_STRINGS}, {"type": "null"}]},
    },
)
_KEEP_ALIVE: Schema = {"anyOf": [{"type": ["number", "null"]}, {"type": "string", "pattern": r"^-?\d{1,9}[smh]?$"}]}
_COMMON: dict[str, Schema] = {
    "model": {"type": "string"},
    "stream": FLAG,
    "format": {"anyOf": [{"enum": ["", "json"]}, {"type": ["object", "null"]}]},
    "keep_alive": _KEEP_ALIVE,
    "options": _OPTIONS,
    "think": {"enum": [True, False, None, *EFFORTS]},
    "truncate": FLAG,
    "logprobs": FLAG,
    "top_logprobs": integer(0, MAX_TOP_LOGPROBS),
}
_MESSAGE: Schema = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"enum": ["system", "user", "assistant", "tool"]},
        "content": TEXT,
        "thinking": TEXT,
        "tool_name": TEXT,
        "tool_call_id": TEXT,
    },
}
_CHAT: Schema = {
    "type": "object",
    "required": ["model"],
    "properties": {**_COMMON, "messages": array(_MESSAGE), "tools": array({"type": "object"})},
}
_GENERATE: Schema = {
    "type": "object",
    "required": ["model"],
    "properties": {
        **_COMMON,
        "prompt": TEXT,
        "suffix": TEXT,
        "system": TEXT,
        "raw": FLAG,
        "context": array({"type": "integer", "minimum": 0, "maximum": INT32}),
    },
}
_ANSWER: Schema = {
    "type": "object",
    "required": ["model", "created_at", "done"],
    "properties": {"done_reason": {"enum": ["stop", "length", "load", "unload"]}},
}
_EMBED: Schema = {
    "type": "object",
    "required": ["model"],
    "properties": {"model": {"type": "string"}, "input": {"anyOf": [TEXT, array({"type": "string"})]}},
}
_EMBEDDINGS: Schema = {
    "type": "object",
    "required": ["model"],
    "properties": {"model": {"type": "string"}, "prompt": TEXT},
}
_NAME: Schema = {
    "type": "object",
    "anyOf": [
        {"required": ["model"], "properties": {"model": {"type": "string", "minLength": 1}}},
        {"required": ["name"], "properties": {"name": {"type": "string", "minLength": 1}}},
    ],
    "properties": {"model": TEXT, "name": TEXT},
}
_MODELS: Schema = {"type": "object", "required": ["models"], "properties": {"models": {"type": "array"}}}


def _lines(summary: str, request: Schema) -> dict[str, Any]:
    """A route that streams lines of JSON unless it is told not to."""
    path = post(summary, request, _ANSWER, _ERROR)
    path["post"]["responses"]["200"]["content"]["application/x-ndjson"] = {}
    return path


def paths() -> dict[str, Any]:
    return {
        "/api/version": get("The version of inferd", {"type": "object", "required": ["version"]}, _ERROR),
        "/api/tags": get("The models that are served", _MODELS, _ERROR),
        "/api/ps": get("The models that are loaded", _MODELS, _ERROR),
        "/api/show": post("What a model is and can", _NAME, {"type": "object", "required": ["details"]}, _ERROR),
        "/api/chat": _lines("The next message of a chat", _CHAT),
        "/api/generate": _lines("The answer to a prompt, or the continuation of a text", _GENERATE),
        "/api/embed": post("Vectors of texts", _EMBED, {"type": "object", "required": ["embeddings"]}, _ERROR),
        "/api/embeddings": post("The vector of a text", _EMBEDDINGS, {"type": "object"}, _ERROR),
    }
