"""SQLite files: one connection writes, any number of others read; and the ledger, whose writer has a thread of its own.

Write-ahead logging lets readers go on while it writes. A lock beside the file keeps a second writer out, also one in
another process.
"""

from __future__ import annotations

import fcntl
import logging
import queue
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

from inferd.config import home_dir
from inferd.errors import ConfigError

log = logging.getLogger("inferd.ledger")
MAX_WAITING = 100_000  # rows that wait to be written, 60 s of 1,500 a second; more are dropped, and the log says so
BUSY_SECONDS = 10.0

Values = Sequence[Any]


def ledger_path() -> Path:
    return home_dir() / "ledger.db"


class Ledger:
    """The writer. `write` returns at once; `close` returns when all is on disk."""

    def __init__(self, path: Path, tables: Sequence[str]) -> None:
        """tables: statements that make what is not there yet. Raises ConfigError when another process writes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = locked(path.with_suffix(".lock"))
        self._connection = opened(path, tables)
        self._rows: queue.Queue[tuple[str, Values] | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def write(self, statement: str, values: Values) -> None:
        try:
            self._rows.put_nowait((statement, values))
        except queue.Full:
            log.error("the ledger is too slow; a row was dropped")

    def close(self) -> None:
        self._rows.put(None)
        self._thread.join()
        self._connection.close()
        self._lock.close()

    def _run(self) -> None:
        """Thread: all that waits becomes one transaction."""
        is_open = True
        while is_open:
            rows = [self._rows.get()]
            while not self._rows.empty():
                rows.append(self._rows.get())
            is_open = rows[-1] is not None
            try:
                with self._connection:
                    for row in rows:
                        if row is not None:
                            self._connection.execute(*row)
            except sqlite3.Error:
                log.exception("%d rows could not be written to the ledger", len(rows))


def opened(path: Path, tables: Sequence[str], *pragmas: str) -> sqlite3.Connection:
    """The connection that writes; any one thread may use it. tables: statements that make what is not there yet.

    pragmas go over write-ahead logging, whose commits a power cut may undo, but not damage.
    """
    path.touch(mode=0o600)  # for its owner alone: prompts, answers, documents; its log gets the same mode
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", *pragmas):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    with connection:
        for statement in tables:
            connection.execute(statement)
    return connection


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write. Raises ConfigError when there is no ledger."""
    if not path.exists():
        raise ConfigError(f"there is no ledger at {path}: no server has kept usage there yet")
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as connection:
        yield connection


def locked(path: Path) -> IO[str]:
    """The lock's file; it is free again when that is closed, or when the process ends."""
    file = path.open("w", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ConfigError(
            f"another server writes the ledger in {path.parent}: set INFERD_HOME to another folder, or keep no usage"
        ) from None
    return file
