"""The routes of Anthropic's Messages for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from inferd.gateway.schemas import FLAG, INT32, TEXT, Schema, array, integer, number, one_of, optional, post
from inferd.types import MAX_STOP_STRING_LEN, MAX_STOP_STRINGS

_TEXT_BLOCK: Schema = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}, "cache_control": optional("object")},
}
_BLOCK: Schema = {
    "anyOf": [
        _TEXT_BLOCK,
        {
            "type": "object",
            "required": ["type", "id", "name", "input"],
            "properties": {
                "type": {"const": "tool_use"},
                "id": {"type": "string"},
                "name": {"type": "string"},
                "input": {"type": "object"},
            },
        },
        {
            "type": "object",
            "required": ["type", "tool_use_id"],
            "properties": {
                "type": {"const": "tool_result"},
                "tool_use_id": {"type": "string"},
                "content": {"anyOf": [TEXT, {"type": "array", "items": _TEXT_BLOCK}]},
                "is_error": FLAG,
            },
        },
        {
            "type": "object",
            "required": ["type", "thinking"],
            "properties": {"type": {"const": "thinking"}, "thinking": {"type": "string"}, "signature": TEXT},
        },
    ]
}
_MESSAGE: Schema = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"enum": ["user", "assistant", "system"]},
        "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": _BLOCK}]},
    },
}
_TOOL: Schema = {
    "type": "object",
    "required": ["name", "input_schema"],
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "description": TEXT,
        "input_schema": {"type": "object"},
    },
}
_CHOICE = optional(
    "object",
    required=["type"],
    properties={
        "type": {"enum": ["auto", "any", "tool", "none"]},
        "name": TEXT,
        "disable_parallel_tool_use": {"type": "boolean"},
    },
)
_THINKING = optional(
    "object",
    required=["type"],
    properties={
        "type": {"enum": ["enabled", "disabled", "adaptive", "between_tools"]},
        "budget_tokens": integer(1, INT32),
        "display": one_of("summarized", "omitted"),
    },
)
_FORMAT = optional(
    "object",
    required=["type", "schema"],
    properties={"type": {"const": "json_schema"}, "schema": {"type": "object"}},
)
COUNT: Schema = {
    "type": "object",
    "required": ["messages"],
    "properties": {
        "model": TEXT,
        "messages": {"type": "array", "items": _MESSAGE, "minItems": 1},
        "system": {"anyOf": [TEXT, {"type": "array", "items": _TEXT_BLOCK}]},
        "tools": array(_TOOL),
        "tool_choice": _CHOICE,
        "thinking": _THINKING,
        "output_config": optional(
            "object",
            properties={"effort": one_of("low", "medium", "high", "xhigh", "max"), "format": _FORMAT},
        ),
        "output_format": _FORMAT,
    },
}
MESSAGES: Schema = {
    "type": "object",
    "required": ["messages", "max_tokens"],
    "properties": {
        **COUNT["properties"],
        "max_tokens": {"type": "integer", "minimum": 1, "maximum": INT32},
        "stop_sequences": array(
            {"type": "string", "minLength": 1, "maxLength": MAX_STOP_STRING_LEN}, maxItems=MAX_STOP_STRINGS
        ),
        "stream": FLAG,
        "temperature": number(0, 100),
        "top_p": number(0, 1),
        "top_k": integer(-1, INT32),
        "metadata": optional("object"),
    },
}
_COUNTS = {
    name: {"type": "integer", "minimum": 0}
    for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
}
ANSWER: Schema = {
    "type": "object",
    "required": ["id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"],
    "properties": {
        "id": {"type": "string"},
        "type": {"const": "message"},
        "role": {"const": "assistant"},
        "model": {"type": "string"},
        "content": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type"],
                "properties": {"type": {"enum": ["text", "thinking", "tool_use"]}},
            },
        },
        "stop_reason": {
            "enum": ["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]
        },
        "stop_sequence": TEXT,
        "usage": {"type": "object", "required": list(_COUNTS), "properties": _COUNTS},
        "warnings": {"type": "array", "items": {"type": "string"}},
    },
}
ERROR: Schema = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}
COUNTED: Schema = {
    "type": "object",
    "required": ["input_tokens"],
    "properties": {"input_tokens": {"type": "integer", "minimum": 1}},
}


def paths() -> dict[str, Any]:
    return {
        "/v1/messages": post("The next message of a chat (Anthropic)", MESSAGES, ANSWER, ERROR, streams=True),
        "/v1/messages/count_tokens": post("The tokens of a chat (Anthropic)", COUNT, COUNTED, ERROR),
    }
