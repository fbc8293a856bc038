"""What clients send of batches, and files and batches as they see them."""

from __future__ import annotations

import re
import time
import uuid
from typing import Any

import msgspec
from starlette.datastructures import QueryParams

from inferd.errors import InvalidRequestError
from inferd.gateway.json_fields import convert
from inferd.jobs.lines import ENDPOINTS
from inferd.jobs.store import Batch, StoredFile

MAX_FILES_LISTED, MAX_BATCHES_LISTED = 10_000, 100
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MAX_WINDOW = 30 * 86400
_MAX_METADATA, _MAX_KEY, _MAX_VALUE = 16, 64, 512
_STATUSES = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


class CreateBatch(msgspec.Struct, forbid_unknown_fields=True):
    input_file_id: str
    endpoint: str
    completion_window: str = "24h"
    metadata: dict[str, str] | None = None


def new_batch(fields: dict[str, Any], tenant: str) -> Batch:
    """Raises InvalidRequestError."""
    unknown = sorted(fields.keys() - set(CreateBatch.__struct_fields__))
    if unknown:
        raise InvalidRequestError(f"{unknown[0][:80]} is not supported", param=unknown[0][:80])
    body = convert(fields, CreateBatch)
    if body.endpoint not in ENDPOINTS:
        message = f"endpoint must be one of {', '.join(ENDPOINTS)}, got {body.endpoint[:80]!r}"
        raise InvalidRequestError(message, param="endpoint")
    _check_metadata(body.metadata or {})
    now = int(time.time())
    return Batch(
        id=f"batch_{uuid.uuid4().hex[:24]}",
        tenant=tenant,
        endpoint=body.endpoint,
        input_file_id=body.input_file_id,
        completion_window=body.completion_window,
        metadata=body.metadata,
        created_at=now,
        expires_at=now + _seconds(body.completion_window),
    )


def _seconds(window: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,7})([smhd])", window)
    seconds = int(found[1]) * _UNITS[found[2]] if found is not None else 0
    if not 0 < seconds <= _MAX_WINDOW:
        message = f"completion_window must be a time from 1s to 30d, as 24h; got {window[:80]!r}"
        raise InvalidRequestError(message, param="completion_window")
    return seconds


def _check_metadata(metadata: dict[str, str]) -> None:
    ok = len(metadata) <= _MAX_METADATA and all(
        len(key) <= _MAX_KEY and len(value) <= _MAX_VALUE for key, value in metadata.items()
    )
    if not ok:
        sizes = f"keys of {_MAX_KEY} and values of {_MAX_VALUE} characters"
        message = f"metadata has at most {_MAX_METADATA} entries, {sizes}"
        raise InvalidRequestError(message, param="metadata")


def batch_json(batch: Batch) -> dict[str, Any]:
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": batch.created_at,
        "expires_at": batch.expires_at,
        **{f"{status}_at": batch.times.get(status) for status in _STATUSES},
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "metadata": batch.metadata,
    }


def file_json(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.num_bytes,
        "created_at": file.created_at,
        "expires_at": None,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
    }


def page(items: list[dict[str, Any]], query: QueryParams, *, usual: int, most: int) -> dict[str, Any]:
    """At most `limit` of the items behind the one that `after` names."""
    limit, after = query.get("limit", str(usual)), query.get("after")
    if not limit.isdecimal() or not 1 <= int(limit[:9]) <= most:
        raise InvalidRequestError(f"limit must be an integer from 1 to {most}", param="limit")
    ids = [item["id"] for item in items]
    if after is not None and after not in ids:
        raise InvalidRequestError("after is not the id of an entry", param="after")
    rest = items[ids.index(after) + 1 if after is not None else 0 :]
    data = rest[: int(limit)]
    edges = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return {"object": "list", "data": data, "has_more": len(data) < len(rest), **edges}
