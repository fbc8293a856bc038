"""The routes of llama-server for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from inferd.gateway.schemas import FLAG, INT32, TEXT, Schema, array, get, integer, number, optional, post
from inferd.types import MAX_LOGPROBS, MAX_N, MAX_SEED, MAX_STOP_STRING_LEN, MAX_STOP_STRINGS

_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "object", "required": ["code", "message", "type"]}},
}
_STOP: Schema = {"type": "string", "maxLength": MAX_STOP_STRING_LEN}
_TOKEN_ID: Schema = {"type": "integer", "minimum": 0, "maximum": INT32}
_FIELDS: dict[str, Schema] = {
    "model": TEXT,
    "stream": FLAG,
    "n_predict": integer(-2, INT32),
    "n_cmpl": integer(1, MAX_N),
    "temperature": number(-(2**31), 100),
    "top_k": integer(-1, INT32),
    "top_p": number(0, 1),
    "min_p": number(0, 1),
    "typical_p": number(0, 1),
    "repeat_penalty": number(0.01, 100),
    "repeat_last_n": integer(-1, INT32),
    "presence_penalty": number(-2, 2),
    "frequency_penalty": number(-2, 2),
    "seed": integer(-(2**63), MAX_SEED),
    "stop": array(_STOP, maxItems=MAX_STOP_STRINGS),
    "n_probs": integer(0, MAX_LOGPROBS),
    "ignore_eos": FLAG,
    "grammar": TEXT,
    "json_schema": {"type": ["object", "boolean", "null"]},
    "cache_prompt": FLAG,
    "return_tokens": FLAG,
    "timings_per_token": FLAG,
    "response_fields": array({"type": "string"}),
}
_COMPLETION: Schema = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        **_FIELDS,
        "stop": {"anyOf": [_STOP, _FIELDS["stop"]]},
        "prompt": {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"anyOf": [_TOKEN_ID, {"type": "string"}]}, "minItems": 1},
                {"type": "array", "items": {"type": "array", "items": _TOKEN_ID, "minItems": 1}, "minItems": 1},
            ]
        },
    },
}
_EXTRA: Schema = {
    "type": "object",
    "required": ["text"],
    "properties": {"text": {"type": "string"}, "filename": {"type": "string"}},
}
_INFILL: Schema = {
    "type": "object",
    "required": ["input_prefix", "input_suffix"],
    "properties": {
        **_FIELDS,
        "input_prefix": {"type": "string"},
        "input_suffix": {"type": "string"},
        "input_extra": array(_EXTRA),
        "prompt": TEXT,
    },
}
_COMPLETED: Schema = {"type": ["object", "array"]}
_CHAT: Schema = {
    "type": "object",
    "required": ["messages"],
    "properties": {
        "messages": {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["role"]}},
        "add_generation_prompt": FLAG,
        "chat_template_kwargs": optional("object"),
    },
}
_MODEL: Schema = {"type": "object", "required": ["model"], "properties": {"model": {"type": "string"}}}
_DONE: Schema = {"type": "object", "required": ["success"]}


def paths() -> dict[str, Any]:
    complete = post("The continuation of prompts", _COMPLETION, _COMPLETED, _ERROR, streams=True)
    rendered: Schema = {"type": "object", "required": ["prompt"]}
    props: Schema = {"type": "object", "required": ["default_generation_settings", "total_slots", "chat_template"]}
    return {
        "/completion": complete,
        "/completions": complete,
        "/infill": post("What belongs between two texts", _INFILL, _COMPLETED, _ERROR, streams=True),
        "/apply-template": post("A chat as its template renders it", _CHAT, rendered, _ERROR),
        "/props": get("Defaults and limits", props, _ERROR),
        "/slots": get("How many sequences run", {"type": "array"}, _ERROR),
        "/models": get("The models, loaded or not", {"type": "object", "required": ["data"]}, _ERROR),
        "/models/load": post("Loads a model", _MODEL, _DONE, _ERROR),
        "/models/unload": post("Unloads a model, after the requests that use it", _MODEL, _DONE, _ERROR),
    }
