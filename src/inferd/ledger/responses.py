"""Responses that clients may ask for again: kept until they are deleted or their time is over, also over restarts.

One thread owns the only connection, so what was written is what the next read finds. What is deleted is overwritten:
no byte of it stays in the file or its log.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from inferd.config import home_dir
from inferd.errors import InvalidRequestError
from inferd.ledger.database import locked, opened

log = logging.getLogger("inferd.ledger")
PURGE_SECONDS = 60.0  # how long at most something stays after its time
MAX_CHAIN_SIZE = 64 * 2**20  # bytes of the responses that one goes on from
T = TypeVar("T")
_TABLES = (
    "CREATE TABLE IF NOT EXISTS response (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, previous_id TEXT, "
    "expires REAL NOT NULL, is_finished INTEGER NOT NULL, body BLOB NOT NULL, input BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS response_expires ON response (expires)",
    "CREATE TABLE IF NOT EXISTS item (id TEXT PRIMARY KEY, response_id TEXT NOT NULL)",  # of outputs
    "CREATE INDEX IF NOT EXISTS item_response ON item (response_id)",
)


def responses_path() -> Path:
    return home_dir() / "responses.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResponse:
    """body: the response as clients see it, its items under `output`. input: the items it was asked with, without those
    of previous_id."""

    id: str
    tenant: str
    previous_id: str | None
    is_finished: bool
    body: dict[str, Any]
    input: list[dict[str, Any]]


class ResponseStore:
    """Its methods return at once; a Future tells what became of it. Nobody sees what another tenant keeps."""

    def __init__(self, path: Path, retention: float, on_lost: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """retention: seconds. on_lost: the body of an unfinished response -> the one that says its server has ended.

        Raises ConfigError when another server writes there.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = locked(path.with_suffix(".lock"))
        self._retention = retention
        self._connection = opened(path, _TABLES, "secure_delete = ON")
        self._finish_lost(on_lost)
        self._purged_at = 0.0
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="responses", daemon=True)
        self._thread.start()

    def put(self, response: StoredResponse) -> Future[None]:
        """Adds it, or replaces the one of its id; then the time it is kept goes on as it was."""
        return self._submit(lambda: self._put(response))

    def get(self, response_id: str, tenant: str) -> Future[StoredResponse | None]:
        return self._submit(lambda: self._get(response_id, tenant))

    def chain(self, response_id: str, tenant: str) -> Future[list[StoredResponse]]:
        """The response and all it goes on from, the first one first. Raises InvalidRequestError when one is gone."""
        return self._submit(lambda: self._chain(response_id, tenant))

    def items(self, item_ids: Sequence[str], tenant: str) -> Future[dict[str, dict[str, Any]]]:
        """Items of outputs by their ids; those that are not kept are not in it."""
        return self._submit(lambda: self._items(item_ids, tenant))

    def delete(self, response_id: str, tenant: str) -> Future[bool]:
        """Whether there was one. No byte of it is left on disk when this is done."""
        return self._submit(lambda: self._delete("id = ? AND tenant = ?", (response_id, tenant)) > 0)

    def close(self) -> None:
        self._work.put(None)
        self._thread.join()
        self._connection.close()
        self._lock.close()

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except Exception as error:
                if isinstance(error, sqlite3.Error):
                    log.exception("the store of responses failed")
                future.set_exception(error)

        self._work.put(run)
        return future

    def _run(self) -> None:
        """Thread."""
        while True:
            try:
                work = self._work.get(timeout=PURGE_SECONDS)
            except queue.Empty:
                work = _nothing
            if work is None:
                return
            if time.monotonic() - self._purged_at >= PURGE_SECONDS:
                self._purged_at = time.monotonic()
                self._submit(lambda: self._delete("expires <= ?", (time.time(),)))
            work()

    def _put(self, response: StoredResponse) -> None:
        encode = msgspec.json.encode
        state = (response.is_finished, encode(response.body))
        with self._connection:
            done = self._connection.execute(
                "UPDATE response SET is_finished = ?, body = ? WHERE id = ? AND tenant = ?",
                (*state, response.id, response.tenant),
            )
            if done.rowcount == 0:
                head = (response.id, response.tenant, response.previous_id, time.time() + self._retention)
                self._connection.execute(
                    "INSERT INTO response VALUES (?, ?, ?, ?, ?, ?, ?)", (*head, *state, encode(response.input))
                )
            items = [(item["id"], response.id) for item in response.body["output"]]
            self._connection.executemany("INSERT OR IGNORE INTO item VALUES (?, ?)", items)

    def _get(self, response_id: str, tenant: str) -> StoredResponse | None:
        row = self._row(response_id, tenant)
        return None if row is None else _stored(*row)

    def _row(self, response_id: str, tenant: str) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._connection.execute(
            "SELECT id, tenant, previous_id, is_finished, body, input FROM response "
            "WHERE id = ? AND tenant = ? AND expires > ?",
            (response_id, tenant, time.time()),
        ).fetchone()
        return row

    def _chain(self, response_id: str, tenant: str) -> list[StoredResponse]:
        chain: list[StoredResponse] = []
        size = 0
        next_id: str | None = response_id
        while next_id is not None:
            row = self._row(next_id, tenant)
            if row is None:
                what = f"there is no response {next_id[:80]!r}" if not chain else "it goes on from a deleted response"
                raise InvalidRequestError(f"previous_response_id: {what}", param="previous_response_id")
            size += len(row[-1]) + len(row[-2])
            if size > MAX_CHAIN_SIZE:
                raise InvalidRequestError(
                    f"previous_response_id: it goes on from more than {MAX_CHAIN_SIZE} bytes of responses",
                    param="previous_response_id",
                )
            chain.append(_stored(*row))
            next_id = chain[-1].previous_id
        return chain[::-1]

    def _items(self, item_ids: Sequence[str], tenant: str) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for item_id in item_ids:
            if item_id in found:
                continue
            row = self._connection.execute("SELECT response_id FROM item WHERE id = ?", (item_id,)).fetchone()
            response = None if row is None else self._get(row[0], tenant)
            if response is not None:
                found |= {item["id"]: item for item in response.body["output"]}
        return found

    def _delete(self, condition: str, values: tuple[Any, ...]) -> int:
        with self._connection:
            which = f"SELECT id FROM response WHERE {condition}"
            self._connection.execute(f"DELETE FROM item WHERE response_id IN ({which})", values)
            count = self._connection.execute(f"DELETE FROM response WHERE {condition}", values).rowcount
        if count:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return count

    def _finish_lost(self, on_lost: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """What the server before this one did not finish never will be."""
        rows = self._connection.execute("SELECT id, body FROM response WHERE NOT is_finished").fetchall()
        with self._connection:
            for response_id, body in rows:
                lost = msgspec.json.encode(on_lost(msgspec.json.decode(body)))
                self._connection.execute(
                    "UPDATE response SET is_finished = 1, body = ? WHERE id = ?", (lost, response_id)
                )


def _stored(
    response_id: str, tenant: str, previous_id: str | None, is_finished: int, body: bytes, items: bytes
) -> StoredResponse:
    return StoredResponse(
        id=response_id,
        tenant=tenant,
        previous_id=previous_id,
        is_finished=bool(is_finished),
        body=msgspec.json.decode(body),
        input=msgspec.json.decode(items),
    )


def _nothing() -> None:
    pass
