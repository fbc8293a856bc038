"""The routes of /v2 for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from inferd.gateway.dialects.kserve.values import DATATYPES, MAX_DIMS
from inferd.gateway.schemas import TEXT, Schema, answers, get, in_path, post

_ERROR: Schema = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_SHAPE: Schema = {
    "type": "array",
    "maxItems": MAX_DIMS,
    "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
}
_INPUT: Schema = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string"},
        "shape": _SHAPE,
        "datatype": {"enum": sorted(DATATYPES)},
        "data": {"type": ["array", "null"]},
        "parameters": {"type": "object"},
    },
}
_INFER: Schema = {
    "type": "object",
    "required": ["inputs"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "string"},
        "inputs": {"type": "array", "items": _INPUT},
        "outputs": {"type": "array", "items": {"type": "object", "required": ["name"]}},
        "parameters": {"type": "object"},
    },
}
_INFERRED: Schema = {"type": "object", "required": ["model_name", "model_version", "outputs"]}
_GENERATE: Schema = {
    "type": "object",
    "required": ["text_input"],
    "properties": {"text_input": {"type": "string"}, "id": TEXT, "parameters": {"type": ["object", "null"]}},
}
_GENERATED: Schema = {"type": "object", "required": ["model_name", "model_version", "text_output"]}
_METADATA: Schema = {"type": "object", "required": ["name", "versions", "platform", "inputs", "outputs"]}
_STATISTICS: Schema = {"type": "object", "required": ["model_stats"]}
_INDEX: Schema = {"type": "object", "properties": {"ready": {"type": ["boolean", "null"]}}}
_TOLD: Schema = {"type": "object", "properties": {"parameters": {"type": ["object", "null"]}}}


def paths() -> dict[str, Any]:
    of_model = {
        "": get("What a model takes and gives", _METADATA, _ERROR),
        "/config": get("How it is computed", {"type": "object", "required": ["name", "platform"]}, _ERROR),
        "/stats": get("Its calls so far", _STATISTICS, _ERROR),
        "/ready": _state("Whether it can answer now"),
        "/infer": post("Inference on tensors", _INFER, _INFERRED, _ERROR),
        "/generate": post("The continuation of a text", _GENERATE, _GENERATED, _ERROR),
        "/generate_stream": post("The same piece by piece", _GENERATE, _GENERATED, _ERROR, streams=True),
    }
    versioned = {
        f"/v2/models/{{model}}/versions/{{version}}{path}": in_path(item, "model", "version")
        for path, item in of_model.items()
    }
    index = {"type": "array", "items": {"type": "object", "required": ["name", "version", "state"]}}
    return {
        "/v2": get("The server and its extensions", {"type": "object", "required": ["name", "version"]}, _ERROR),
        "/v2/health/live": _state("Whether the gateway lives"),
        "/v2/health/ready": _state("Whether requests can be answered now"),
        "/v2/models/stats": get("The calls of all models", _STATISTICS, _ERROR),
        **{f"/v2/models/{{model}}{path}": in_path(item, "model") for path, item in of_model.items()},
        **versioned,
        "/v2/repository/index": _bodiless(post("All models and their states", _INDEX, index, _ERROR)),
        "/v2/repository/models/{model}/load": in_path(_done("Load a model"), "model"),
        "/v2/repository/models/{model}/unload": in_path(_done("Take a model out of memory"), "model"),
    }


def _state(summary: str) -> dict[str, Any]:
    """Told by the status alone."""
    responses = {**answers({}, _ERROR), "200": {"description": "Yes"}, "503": {"description": "No"}}
    return {"get": {"summary": summary, "responses": responses}}


def _done(summary: str) -> dict[str, Any]:
    item = post(summary, _TOLD, {}, _ERROR)
    item["post"]["responses"]["200"] = {"description": "Done"}
    return _bodiless(item)


def _bodiless(item: dict[str, Any]) -> dict[str, Any]:
    """Its body may be left out."""
    item["post"]["requestBody"]["required"] = False
    return item
