"""The routes of OpenAI's Responses for the OpenAPI document."""

from __future__ import annotations

from typing import Any, get_args

from inferd.gateway.dialects.responses.bodies import Include
from inferd.gateway.schemas import (
    FLAG,
    INT32,
    TEXT,
    Schema,
    array,
    bodiless,
    in_path,
    integer,
    number,
    one_of,
    optional,
    post,
    query,
)
from inferd.types import MAX_SEED, MAX_STOP_STRING_LEN, MAX_STOP_STRINGS

_PART: Schema = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"enum": ["input_text", "output_text"]}, "text": {"type": "string"}},
}
_PARTS: Schema = {"anyOf": [{"type": "string"}, {"type": "array", "items": _PART}]}


def _item(kind: str, **properties: Schema) -> Schema:
    required = ["type", *properties]
    return {
        "type": "object",
        "required": required,
        "properties": {"type": {"const": kind}, "id": TEXT, **properties},
    }


_ITEM: Schema = {
    "anyOf": [
        _item("message", role={"enum": ["user", "assistant", "system", "developer"]}, content=_PARTS),
        _item("function_call", call_id={"type": "string"}, name={"type": "string"}, arguments={"type": "string"}),
        _item("function_call_output", call_id={"type": "string"}, output=_PARTS),
        _item("reasoning", summary={"type": "array"}),
    ]
}
_TOOL: Schema = {
    "anyOf": [
        {
            "type": "object",
            "required": ["type", "name"],
            "properties": {
                "type": {"const": "function"},
                "name": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"},
                "description": TEXT,
                "parameters": optional("object"),
                "strict": FLAG,
            },
        },
        {
            "type": "object",
            "required": ["type"],
            "properties": {"type": {"type": "string", "not": {"const": "function"}}},
        },
    ]
}
_FORMAT = optional(
    "object",
    properties={
        "type": {"enum": ["text", "json_object", "json_schema"]},
        "name": TEXT,
        "schema": optional("object"),
        "strict": FLAG,
    },
)
COUNT: Schema = {
    "type": "object",
    "properties": {
        "model": TEXT,
        "input": {"anyOf": [TEXT, {"type": "array", "items": _ITEM}]},
        "instructions": TEXT,
        "previous_response_id": TEXT,
        "tools": array(_TOOL),
        "tool_choice": {"anyOf": [one_of("none", "auto", "required"), {"type": "object"}]},
        "parallel_tool_calls": FLAG,
        "reasoning": optional(
            "object",
            properties={
                "effort": one_of("none", "minimal", "low", "medium", "high", "xhigh", "max"),
                "summary": one_of("auto", "concise", "detailed"),
                "generate_summary": one_of("auto", "concise", "detailed"),
            },
        ),
        "text": optional("object", properties={"format": _FORMAT, "verbosity": one_of("low", "medium", "high")}),
        "truncation": one_of("auto", "disabled"),
    },
}
_STOP: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_STRING_LEN}
RESPONSES: Schema = {
    "type": "object",
    "properties": {
        **COUNT["properties"],
        "stream": FLAG,
        "store": FLAG,
        "background": FLAG,
        "include": array({"enum": list(get_args(Include))}),
        "max_output_tokens": integer(1, INT32),
        "max_tool_calls": optional("integer"),
        "metadata": optional("object", additionalProperties={"type": "string"}),
        "user": TEXT,
        "safety_identifier": TEXT,
        "prompt_cache_key": TEXT,
        "temperature": number(0, 100),
        "top_p": number(0, 1),
        "top_k": integer(-1, INT32),
        "min_p": number(0, 1),
        "seed": integer(-(2**63), MAX_SEED),
        "stop": {"anyOf": [_STOP, array(_STOP, maxItems=MAX_STOP_STRINGS)]},
        "min_tokens": integer(0, INT32),
        "ignore_eos": FLAG,
        "presence_penalty": number(-2, 2),
        "frequency_penalty": number(-2, 2),
        "repetition_penalty": number(0.01, 100),
    },
}
_USAGE = optional("object", required=["input_tokens", "output_tokens", "total_tokens"])
RESPONSE: Schema = {
    "type": "object",
    "required": ["id", "object", "created_at", "status", "model", "output", "usage", "error", "incomplete_details"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "response"},
        "created_at": {"type": "integer"},
        "status": {"enum": ["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]},
        "model": {"type": "string"},
        "output": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "id", "status"],
                "properties": {"type": {"enum": ["message", "reasoning", "function_call"]}},
            },
        },
        "usage": _USAGE,
        "warnings": {"type": "array", "items": {"type": "string"}},
    },
}
_DELETED: Schema = {
    "type": "object",
    "required": ["id", "object", "deleted"],
    "properties": {"id": {"type": "string"}, "object": {"const": "response"}, "deleted": {"const": True}},
}
_ITEMS: Schema = {
    "type": "object",
    "required": ["object", "data", "has_more", "first_id", "last_id"],
    "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": {"type": "object"}}},
}
_COUNTED: Schema = {
    "type": "object",
    "required": ["object", "input_tokens"],
    "properties": {"object": {"const": "response.input_tokens"}, "input_tokens": {"type": "integer", "minimum": 1}},
}
_ID: Schema = {"type": "string", "pattern": "^resp_[0-9a-f]{32}$"}


def paths() -> dict[str, Any]:
    page = [
        query("limit", {"type": "integer", "minimum": 1, "maximum": 100}),
        query("order", {"enum": ["asc", "desc"]}),
        query("after", {"type": "string"}),
    ]
    items = {**bodiless("The input of a kept response", _ITEMS), "parameters": page}
    one = {"get": bodiless("A kept response", RESPONSE), "delete": bodiless("Deletes it", _DELETED)}
    cancel = {"post": bodiless("Ends a response of the background", RESPONSE)}
    return {
        "/v1/responses": post("The next response of a chat", RESPONSES, RESPONSE, streams=True),
        "/v1/responses/input_tokens": post("The tokens of an input", COUNT, _COUNTED),
        "/v1/responses/{id}": in_path(one, "id", schema=_ID),
        "/v1/responses/{id}/cancel": in_path(cancel, "id", schema=_ID),
        "/v1/responses/{id}/input_items": in_path({"get": items}, "id", schema=_ID),
    }
