"""Files and batches of an OpenAI-compatible server, as `inferd batch` needs them."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from inferd.cli.output import Failure

TIMEOUT = 60.0
_DIGEST = "input_sha256"  # in the metadata: a batch is found again by what it reads


class BatchClient:
    def __init__(self, url: str, api_key: str | None) -> None:
        """url: with or without /v1."""
        base = url.rstrip("/")
        self._base = base if base.endswith("/v1") else base + "/v1"
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}

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
        return self._ask(f"/files/{file_id}/content")

    def _json(self, path: str, body: bytes | None = None, kind: str = "application/json") -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._ask(path, body, kind))
        return answer

    def _ask(self, path: str, body: bytes | None = None, kind: str = "") -> bytes:
        headers = self._headers | ({"content-type": kind} if body is not None else {})
        request = urllib.request.Request(self._base + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            raise Failure(f"{self._base}{path}: {_message(error)}") from None
        except OSError as error:
            raise Failure(f"{self._base} does not answer: {getattr(error, 'reason', error)}") from None


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {error.code}"
