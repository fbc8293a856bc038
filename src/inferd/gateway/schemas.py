"""Pieces of OpenAPI documents that all dialects are described with."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
INT32 = 2**31 - 1


def optional(kind: str, **limits: Any) -> Schema:
    """null counts as absent, for every field that need not be there."""
    return {"type": [kind, "null"], **limits}


def integer(low: int, high: int) -> Schema:
    return optional("integer", minimum=low, maximum=high)


def number(low: float, high: float) -> Schema:
    return optional("number", minimum=low, maximum=high)


def array(items: Schema, **limits: Any) -> Schema:
    return optional("array", items=items, **limits)


def one_of(*values: str) -> Schema:
    return {"enum": [*values, None]}


NAME: Schema = {"type": "string", "minLength": 1}
FLAG = optional("boolean")
TEXT = optional("string")
OPENAI_ERROR: Schema = {
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


def answers(done: Schema, error: Schema = OPENAI_ERROR, *, streams: bool = False) -> dict[str, Any]:
    """The responses of a route: 200, and any error in the dialect's shape."""
    content: dict[str, Any] = {"application/json": {"schema": done}}
    if streams:
        content["text/event-stream"] = {}
    failed = "An error of the client (4xx, names the field) or of the server (5xx)"
    return {
        "200": {"description": "Done", "content": content},
        "default": {"description": failed, "content": {"application/json": {"schema": error}}},
    }


def get(summary: str, done: Schema, error: Schema = OPENAI_ERROR) -> dict[str, Any]:
    return {"get": bodiless(summary, done, error)}


def bodiless(summary: str, done: Schema, error: Schema = OPENAI_ERROR) -> dict[str, Any]:
    """An operation of any method that takes no body."""
    return {"summary": summary, "responses": answers(done, error)}


def in_path(item: dict[str, Any], *names: str, schema: Schema = NAME) -> dict[str, Any]:
    """The item with parameters in its path."""
    parameters = [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]
    return {**item, "parameters": parameters}


def query(name: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema}


def listed(item: Schema) -> Schema:
    """OpenAI's list."""
    data = {"type": "array", "items": item}
    return {"type": "object", "required": ["object", "data"], "properties": {"object": {"const": "list"}, "data": data}}


def post(
    summary: str, request: Schema, done: Schema, error: Schema = OPENAI_ERROR, *, streams: bool = False
) -> dict[str, Any]:
    body = {"required": True, "content": {"application/json": {"schema": request}}}
    return {"post": {"summary": summary, "requestBody": body, "responses": answers(done, error, streams=streams)}}
