"""What one tenant may keep of files and batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from inferd.errors import InvalidRequestError
from inferd.jobs.store import Batch, JobStore


@dataclass
class Tenant:
    store: JobStore
    name: str

    def add_file(self) -> None:
        upload = self.store.new_upload()
        upload.write_bytes(b"x")
        self.store.add_file(upload, self.name, "x", "batch")

    def add_batch(self, number: int, status: str) -> None:
        self.store.put(Batch(id=f"batch_{number}", tenant=self.name, endpoint="/v1/completions", input_file_id="f",
                             completion_window="1h", created_at=number, expires_at=10**10, status=status))  # fmt: skip


def test_many_small_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferd.jobs.store.MAX_TENANT_FILES", 2)
    one = Tenant(JobStore(tmp_path), "one")
    one.add_file()
    one.add_file()
    with pytest.raises(InvalidRequestError, match="there may be 2 files"):
        one.add_file()
    Tenant(one.store, "other").add_file()
    one.store.close()


def test_the_oldest_ended_batches_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferd.jobs.store.MAX_TENANT_BATCHES", 2)
    one = Tenant(JobStore(tmp_path), "one")
    Tenant(one.store, "other").add_batch(1, "completed")
    for number, status in ((2, "in_progress"), (3, "completed"), (4, "failed"), (5, "validating")):
        one.add_batch(number, status)
    assert [batch.id for batch in one.store.batches("one")] == ["batch_5", "batch_4", "batch_2"]
    assert one.store.batches("other")
    one.store.close()
