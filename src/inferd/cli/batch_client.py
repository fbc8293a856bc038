"""Files and batches of an OpenAI-compatible server, as `inferd batch` needs them."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from inferd.cli.remote import ask

_DIGEST = "input_sha256"  # in the metadata: a batch is found again by what it reads


class BatchClient:
    def __init__(self, url: str, api_key: str | None) -> None:
        """url: with or without /v1."""
        base = url.rstrip("/")
        self._base = base if base.endswith("/v1") else base + "/v1"
        self._api_key = api_key

    def upload(self, path: Path) -> str:
        """The id of the file."""
        mark = uuid.uuid4().hex
        head = (
            f'--{mark}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f'--{mark}\r\ncontent-disposition: form-data; name="file"; filename="{path.name}"\r\n\r\n'
        )
        body = head.encode() + path.read_bytes() + f"\r\n--{mark}--\r\n".encode()
        return str(self._json("/files", body, f"multipart/form-data; boundary={mark}")["id"])

    def create(self, file_id: str, endpoint: str, window: str, digest: str) -> dict[str, Any]:
        fields = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": window}
        body = json.dumps({**fields, "metadata": {_DIGEST: digest}}).encode()
        return self._json("/batches", body)

    def find(self, digest: str, statuses: frozenset[str]) -> dict[str, Any] | None:
        """The latest batch that reads the same input and has one of these statuses."""
        for batch in self._json("/batches?limit=100")["data"]:
            if (batch["metadata"] or {}).get(_DIGEST) == digest and batch["status"] in statuses:
                found: dict[str, Any] = batch
                return found
        return None

    def batch(self, batch_id: str) -> dict[str, Any]:
        return self._json(f"/batches/{batch_id}")

    def content(self, file_id: str) -> bytes:
        return ask(self._base, f"/files/{file_id}/content", api_key=self._api_key)

    def _json(self, path: str, body: bytes | None = None, kind: str = "application/json") -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(ask(self._base, path, body, kind=kind, api_key=self._api_key))
        return answer
