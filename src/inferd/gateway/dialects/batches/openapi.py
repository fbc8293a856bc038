"""The routes of files and batches for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from inferd.gateway.dialects.batches.bodies import MAX_BATCHES_LISTED, MAX_FILES_LISTED
from inferd.gateway.schemas import TEXT, Schema, bodiless, in_path, listed, optional, post, query
from inferd.jobs.lines import ENDPOINTS

_FORM: Schema = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"const": "batch"}},
}
_FILE: Schema = {
    "type": "object",
    "required": ["id", "object", "bytes", "created_at", "filename", "purpose"],
    "properties": {"object": {"const": "file"}, "bytes": {"type": "integer", "minimum": 0}},
}
_DELETED: Schema = {"type": "object", "required": ["id", "object", "deleted"]}
_CREATE: Schema = {
    "type": "object",
    "required": ["input_file_id", "endpoint"],
    "additionalProperties": False,
    "properties": {
        "input_file_id": {"type": "string"},
        "endpoint": {"enum": sorted(ENDPOINTS)},
        "completion_window": optional("string", pattern="^[1-9][0-9]{0,7}[smhd]$"),
        "metadata": optional("object", additionalProperties={"type": "string"}),
    },
}
_BATCH: Schema = {
    "type": "object",
    "required": ["id", "object", "endpoint", "input_file_id", "completion_window", "status", "request_counts"],
    "properties": {"object": {"const": "batch"}, "output_file_id": TEXT, "error_file_id": TEXT},
}


def paths() -> dict[str, Any]:
    content = bodiless("Its bytes", {})
    content["responses"]["200"]["content"] = {"application/octet-stream": {}}
    add = bodiless("Keeps a file of requests", _FILE)
    add["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}
    files = {
        **bodiless("The files of this key", listed(_FILE)),
        "parameters": [
            *_page(MAX_FILES_LISTED),
            query("order", {"enum": ["asc", "desc"]}),
            query("purpose", {"type": "string"}),
        ],
    }
    batches = {**bodiless("The batches of this key", listed(_BATCH)), "parameters": _page(MAX_BATCHES_LISTED)}
    one_file = {"get": bodiless("What is known of a file", _FILE), "delete": bodiless("Deletes it", _DELETED)}
    return {
        "/v1/files": {"post": add, "get": files},
        "/v1/files/{id}": in_path(one_file, "id"),
        "/v1/files/{id}/content": in_path({"get": content}, "id"),
        "/v1/batches": {**post("Answers each line of a file", _CREATE, _BATCH), "get": batches},
        "/v1/batches/{id}": in_path({"get": bodiless("How far a batch is", _BATCH)}, "id"),
        "/v1/batches/{id}/cancel": in_path({"post": bodiless("Ends a batch", _BATCH)}, "id"),
    }


def _page(most: int) -> list[dict[str, Any]]:
    return [query("limit", {"type": "integer", "minimum": 1, "maximum": most}), query("after", {"type": "string"})]
