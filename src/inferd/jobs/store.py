"""The journal: files and batches of all tenants, and the result of every line, in SQLite and a folder beside it.

One thread owns the only connection. A result is on disk before it counts; a line has a result once; files of results
are written whole under the batch's own names and get their entry in the transaction that ends the batch. So wherever
a process dies, the next one goes on from the last line that was answered.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from inferd.errors import InvalidRequestError
from inferd.jobs.lines import Line, LineError
from inferd.ledger.database import locked, opened

MAX_TENANT_BYTES = 4 * 2**30  # of all files of one tenant
MAX_TENANT_FILES = 10_000
MAX_TENANT_BATCHES = 10_000  # that are told of; the oldest ended ones go first, their files stay
T = TypeVar("T")
_TABLES = (
    "CREATE TABLE IF NOT EXISTS file (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, filename TEXT NOT NULL, "
    "purpose TEXT NOT NULL, num_bytes INTEGER NOT NULL, created_at INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS batch (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, status TEXT NOT NULL, "
    "created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, state BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS line (batch_id TEXT NOT NULL, number INTEGER NOT NULL, custom_id TEXT NOT NULL, "
    "offset INTEGER NOT NULL, size INTEGER NOT NULL, is_ok INTEGER, result BLOB, PRIMARY KEY (batch_id, number), "
    "UNIQUE (batch_id, custom_id)) WITHOUT ROWID",
)
OPEN = ("validating", "in_progress", "cancelling", "finalizing")


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tenant: str
    filename: str
    purpose: str
    num_bytes: int
    created_at: int  # seconds since 1970, as every time here


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as it stands. times: of each status it has had. total, completed, failed: lines."""

    id: str
    tenant: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    status: str = "validating"
    metadata: dict[str, str] | None = None
    times: dict[str, int] = {}
    errors: list[dict[str, Any]] = []
    output_file_id: str | None = None
    error_file_id: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    ends_as: str = "completed"  # the status that follows finalizing


class JobStore:
    """Nobody sees what belongs to another tenant: for it, there is no such thing."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError when another process works there."""
        self._files = folder / "files"
        self._files.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = locked(folder / "jobs.lock")
        self._connection = opened(folder / "jobs.db", _TABLES, "synchronous = FULL")
        self._sweep()
        self._thread = ThreadPoolExecutor(1, "jobs")

    async def do(self, work: Callable[..., T], *args: Any) -> T:
        """A method of this class on its thread: all of them are called so."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    def close(self) -> None:
        self._thread.shutdown()
        self._connection.close()
        self._lock.close()

    # files

    def path_of(self, file_id: str) -> Path:
        return self._files / file_id

    def new_upload(self) -> Path:
        """Where a file can be written before it is added."""
        return self._files / f"upload-{uuid.uuid4().hex}.tmp"

    def add_file(self, upload: Path, tenant: str, filename: str, purpose: str) -> StoredFile:
        """Takes a written upload over. Raises InvalidRequestError when the tenant has too much already."""
        num_bytes = upload.stat().st_size
        sums = "SELECT coalesce(sum(num_bytes), 0), count(*) FROM file WHERE tenant = ?"
        [(used, count)] = self._all(sums, (tenant,))
        if count >= MAX_TENANT_FILES:
            raise InvalidRequestError(f"file: there may be {MAX_TENANT_FILES} files; delete some first", param="file")
        if used + num_bytes > MAX_TENANT_BYTES:
            raise InvalidRequestError(f"file: all files together may have {MAX_TENANT_BYTES} bytes", param="file")
        file_id = f"file-{uuid.uuid4().hex[:24]}"
        _move(upload, self.path_of(file_id))
        with self._connection:
            return self._insert_file(file_id, tenant, filename, purpose, num_bytes)

    def file(self, file_id: str, tenant: str) -> StoredFile | None:
        row = self._one("SELECT * FROM file WHERE id = ? AND tenant = ?", (file_id, tenant))
        return None if row is None else _file(row)

    def files(self, tenant: str) -> list[StoredFile]:
        """The latest first."""
        rows = self._all("SELECT * FROM file WHERE tenant = ? ORDER BY created_at DESC, id", (tenant,))
        return [_file(row) for row in rows]

    def delete_file(self, file_id: str, tenant: str) -> bool:
        """Whether there was one. Raises InvalidRequestError while a batch reads it."""
        if self.file(file_id, tenant) is None:
            return False
        for batch in self.unfinished():
            if batch.input_file_id == file_id:
                raise InvalidRequestError(f"{file_id} is the input of {batch.id}, which has not ended", param="file_id")
        with self._connection:
            self._connection.execute("DELETE FROM file WHERE id = ?", (file_id,))
        self.path_of(file_id).unlink(missing_ok=True)
        return True

    # batches

    def put(self, batch: Batch) -> Batch:
        """Adds a new one."""
        with self._connection:
            self._put(batch)
            marks = ", ".join("?" for _ in OPEN)
            self._connection.execute(
                "DELETE FROM batch WHERE id IN (SELECT id FROM batch WHERE tenant = ? "
                f"ORDER BY created_at DESC, id LIMIT -1 OFFSET ?) AND status NOT IN ({marks})",
                (batch.tenant, MAX_TENANT_BATCHES, *OPEN),
            )
        return batch

    def batch(self, batch_id: str, tenant: str) -> Batch | None:
        row = self._one("SELECT state FROM batch WHERE id = ? AND tenant = ?", (batch_id, tenant))
        return None if row is None else self._counted(_batch(row))

    def batches(self, tenant: str) -> list[Batch]:
        """The latest first."""
        rows = self._all("SELECT state FROM batch WHERE tenant = ? ORDER BY created_at DESC, id", (tenant,))
        return [self._counted(_batch(row)) for row in rows]

    def unfinished(self) -> list[Batch]:
        """Of all tenants, the oldest first."""
        marks = ", ".join("?" for _ in OPEN)
        rows = self._all(f"SELECT state FROM batch WHERE status IN ({marks}) ORDER BY created_at, id", OPEN)
        return [_batch(row) for row in rows]

    def set_status(self, batch_id: str, status: str, *, ends_as: str | None = None) -> Batch | None:
        """The batch with its new status; None when it has ended already."""
        with self._connection:
            row = self._one("SELECT state FROM batch WHERE id = ?", (batch_id,))
            batch = None if row is None else _batch(row)
            if batch is None or batch.status not in OPEN:
                return None
            times = {**batch.times, status: int(time.time())}
            return self._put(_replace(batch, status=status, times=times, ends_as=ends_as or batch.ends_as))

    def begin(self, batch_id: str, lines: Iterable[Line], errors: list[LineError]) -> Batch | None:
        """After validation: its lines are to be answered, or it has failed. None when it was cancelled meanwhile."""
        with self._connection:
            row = self._one("SELECT state FROM batch WHERE id = ? AND status = 'validating'", (batch_id,))
            if row is None:
                return None
            batch, now = _batch(row), int(time.time())
            if errors:
                told = [error.to_json() for error in errors]
                return self._put(_replace(batch, status="failed", errors=told, times={**batch.times, "failed": now}))
            rows = [(batch_id, line.number, line.custom_id, line.offset, line.size) for line in lines]
            self._connection.executemany("INSERT INTO line VALUES (?, ?, ?, ?, ?, NULL, NULL)", rows)
            times = {**batch.times, "in_progress": now}
            return self._put(_replace(batch, status="in_progress", times=times, total=len(rows)))

    def open_lines(self, batch_id: str, after: int, limit: int) -> list[Line]:
        """Lines without a result, from the number behind `after`."""
        rows = self._all(
            "SELECT number, custom_id, offset, size FROM line WHERE batch_id = ? AND number > ? AND result IS NULL "
            "ORDER BY number LIMIT ?",
            (batch_id, after, limit),
        )
        return [Line(*row) for row in rows]

    def finish_line(self, batch_id: str, number: int, is_ok: bool, result: bytes) -> None:
        """The first result of a line is the one."""
        with self._connection:
            self._connection.execute(
                "UPDATE line SET is_ok = ?, result = ? WHERE batch_id = ? AND number = ? AND result IS NULL",
                (is_ok, result, batch_id, number),
            )

    def finalize(self, batch_id: str, unanswered: Callable[[Line], bytes]) -> Batch:
        """Writes the files of a batch and ends it. unanswered: the result of a line that has none."""
        row = self._one("SELECT state FROM batch WHERE id = ?", (batch_id,))
        assert row is not None  # batches are not deleted
        batch = self._counted(_batch(row))
        stem = f"file-{batch_id.removeprefix('batch_')}"
        names = {True: f"{stem}-output", False: f"{stem}-errors"}
        written = {is_ok: self._write_results(batch_id, is_ok, name, unanswered) for is_ok, name in names.items()}
        ids = {is_ok: names[is_ok] if num_bytes else None for is_ok, num_bytes in written.items()}
        times = {**batch.times, batch.ends_as: int(time.time())}
        state = _replace(
            batch,
            status=batch.ends_as,
            times=times,
            output_file_id=ids[True],
            error_file_id=ids[False],
            failed=batch.total - batch.completed,
        )
        with self._connection:
            for is_ok, file_id in ids.items():
                if file_id is not None:
                    name = f"{batch_id}_{'output' if is_ok else 'error'}.jsonl"
                    self._insert_file(file_id, batch.tenant, name, "batch_output", written[is_ok])
            self._connection.execute("DELETE FROM line WHERE batch_id = ?", (batch_id,))
            return self._put(state)

    def _write_results(self, batch_id: str, is_ok: bool, name: str, unanswered: Callable[[Line], bytes]) -> int:
        """One line each, in the order of the input; how many bytes."""
        rows = self._connection.execute(
            "SELECT number, custom_id, offset, size, result FROM line WHERE batch_id = ? AND coalesce(is_ok, 0) = ? "
            "ORDER BY number",
            (batch_id, is_ok),
        )
        upload, num_bytes = self.new_upload(), 0
        with upload.open("wb") as file:
            for *line, result in rows:
                num_bytes += file.write((unanswered(Line(*line)) if result is None else result) + b"\n")
        if num_bytes:
            _move(upload, self.path_of(name))
        else:
            upload.unlink()
        return num_bytes

    def _sweep(self) -> None:
        """Uploads that were cut off, and results of a batch whose end was."""
        known = {row[0] for row in self._all("SELECT id FROM file", ())}
        for path in self._files.iterdir():
            if path.name not in known:
                path.unlink()

    def _insert_file(self, file_id: str, tenant: str, filename: str, purpose: str, num_bytes: int) -> StoredFile:
        row = (file_id, tenant, filename, purpose, num_bytes, int(time.time()))
        self._connection.execute("INSERT INTO file VALUES (?, ?, ?, ?, ?, ?)", row)
        return _file(row)

    def _put(self, batch: Batch) -> Batch:
        row = (batch.id, batch.tenant, batch.status, batch.created_at, batch.expires_at, msgspec.json.encode(batch))
        self._connection.execute("INSERT OR REPLACE INTO batch VALUES (?, ?, ?, ?, ?, ?)", row)
        return batch

    def _counted(self, batch: Batch) -> Batch:
        if batch.status not in OPEN:
            return batch
        row = self._one(
            "SELECT count(*), total(is_ok), count(is_ok) - total(is_ok) FROM line WHERE batch_id = ?", (batch.id,)
        )
        return batch if row is None else _replace(batch, total=row[0], completed=int(row[1]), failed=int(row[2]))

    def _one(self, statement: str, values: Iterable[Any]) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._connection.execute(statement, tuple(values)).fetchone()
        return row

    def _all(self, statement: str, values: Iterable[Any]) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, tuple(values)).fetchall()


def _file(row: tuple[Any, ...]) -> StoredFile:
    return StoredFile(**dict(zip(StoredFile.__struct_fields__, row, strict=True)))


def _batch(row: tuple[Any, ...]) -> Batch:
    return msgspec.json.decode(row[0], type=Batch)


def _replace(batch: Batch, **values: Any) -> Batch:
    return msgspec.structs.replace(batch, **values)


def _move(upload: Path, target: Path) -> None:
    """On disk under its name when this returns."""
    with upload.open("rb") as file:
        os.fsync(file.fileno())
    upload.rename(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
