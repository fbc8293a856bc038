"""The OpenAPI 3.1 document of every route, as plain data: the dialects' parts, and the server's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from inferd.gateway.dialects.openai.fields import REFUSED
from inferd.gateway.schemas import TEXT, Schema, get
from inferd.metrics.recorder import NUM_LATEST

STATUS: Schema = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
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


def paths() -> dict[str, Any]:
    """Of the server itself."""
    alive = get("Whether the gateway lives", STATUS)
    metrics = get("Figures for Prometheus", {})
    metrics["get"]["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "/health": {"get": {**alive["get"], "security": []}},
        **dict.fromkeys(("/v1/health", "/ping"), alive),
        "/ready": _ready(),
        "/metrics": metrics,
        "/inferd/state": get("Models, their figures and the latest requests", STATE),
        "/version": get("The version of inferd", {"type": "object", "required": ["version"]}),
        "/openapi.json": get("This document", {"type": "object"}),
    }


def _ready() -> dict[str, Any]:
    path = get("Whether a token can be generated now", STATUS)
    not_ready = {"description": "Not ready", "content": {"application/json": {"schema": STATUS}}}
    path["get"]["responses"]["503"] = not_ready
    return path


def document(version: str, parts: Iterable[dict[str, Any]], *, needs_key: bool) -> dict[str, Any]:
    """parts: the paths of each dialect; no two have the same."""
    listed = paths()
    for part in parts:
        assert not listed.keys() & part.keys()
        listed |= part
    refused = ", ".join(sorted(REFUSED))
    description = (
        "Fields that are not listed here are ignored and named in the answer's `warnings`. "
        f"These are refused unless their value changes nothing: {refused}."
    )
    body: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "inferd", "version": version, "description": description},
        "paths": listed,
    }
    if needs_key:
        body["components"] = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}
        body["security"] = [{"key": []}]
    return body
