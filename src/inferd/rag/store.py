"""Documents, chunks and vectors in one SQLite file; exact search over the vectors of a collection.

One connection, used by one thread at a time. The vectors of a collection are kept as one matrix from its first search
to its next change: 10,000 chunks of 384 dimensions are 15 MB.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferd.errors import InvalidRequestError, ModelNotFoundError
from inferd.ledger.database import opened
from inferd.rag.chunks import Chunk

_TABLES = (
    """CREATE TABLE IF NOT EXISTS collections (
        id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, model TEXT NOT NULL, width INTEGER NOT NULL,
        created REAL NOT NULL, UNIQUE (tenant, name))""",
    """CREATE TABLE IF NOT EXISTS documents (
        id INTEGER PRIMARY KEY, collection INTEGER NOT NULL REFERENCES collections ON DELETE CASCADE,
        name TEXT NOT NULL, digest TEXT NOT NULL, num_chars INTEGER NOT NULL, UNIQUE (collection, name))""",
    """CREATE TABLE IF NOT EXISTS chunks (
        id INTEGER PRIMARY KEY, document INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
        first INTEGER NOT NULL, last INTEGER NOT NULL, text TEXT NOT NULL, vector BLOB NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS chunks_of ON chunks (document)",
)


MAX_TENANT_COLLECTIONS = 1000
MAX_TENANT_CHUNKS = 200_000  # 300 MB of vectors with 384 dimensions, which a search keeps in memory


@dataclass(frozen=True, slots=True)
class Collection:
    id: int
    name: str
    model: str  # that made its vectors
    width: int
    num_documents: int
    num_chunks: int
    created: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that fits. score: the cosine."""

    document: str
    begin: int
    end: int
    text: str
    score: float


class RagStore:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = opened(path, _TABLES, "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON")
        self._lock = threading.Lock()
        self._matrices: dict[int, tuple[list[int], Any]] = {}  # collection -> (chunk ids, float32 (num_chunks, width))

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def collections(self, tenant: str) -> list[Collection]:
        with self._lock:
            rows = self._connection.execute("SELECT name FROM collections WHERE tenant = ? ORDER BY name", (tenant,))
            names = [str(name) for (name,) in rows]
        return [self.collection(tenant, name) for name in names]

    def collection(self, tenant: str, name: str) -> Collection:
        """Raises ModelNotFoundError: another tenant's collection does not exist either."""
        with self._lock:
            row = self._connection.execute(
                """SELECT c.id, c.name, c.model, c.width, (SELECT count(*) FROM documents WHERE collection = c.id),
                   (SELECT count(*) FROM chunks JOIN documents d ON d.id = document WHERE d.collection = c.id),
                   c.created FROM collections c WHERE tenant = ? AND name = ?""",
                (tenant, name),
            ).fetchone()
        if row is None:
            raise ModelNotFoundError(f"There is no collection '{name[:200]}'.")
        return Collection(*row)

    def documents(self, collection: Collection) -> list[dict[str, Any]]:
        query = """SELECT name, num_chars, (SELECT count(*) FROM chunks WHERE document = d.id)
                   FROM documents d WHERE collection = ? ORDER BY name"""
        with self._lock:
            rows = self._connection.execute(query, (collection.id,)).fetchall()
        return [{"name": name, "num_chars": chars, "num_chunks": chunks} for name, chars, chunks in rows]

    def has(self, tenant: str, name: str, document: str, text: str) -> bool:
        """Whether the document is there with this very text."""
        query = """SELECT 1 FROM documents d JOIN collections c ON c.id = d.collection
                   WHERE tenant = ? AND c.name = ? AND d.name = ? AND digest = ?"""
        with self._lock:
            return self._connection.execute(query, (tenant, name, document, _digest(text))).fetchone() is not None

    def put(
        self,
        tenant: str,
        name: str,
        model: str,
        document: str,
        text: str,
        chunks: Sequence[Chunk],
        vectors: Sequence[Any],
    ) -> None:
        """Adds a document, in place of one of the same name. vectors: a float32 buffer for each chunk, normalized.

        Raises InvalidRequestError when the collection was made by another model, or the tenant has too much already.
        """
        width = len(memoryview(vectors[0]).cast("B")) // 4
        with self._lock, self._connection:
            insert = "INSERT OR IGNORE INTO collections (tenant, name, model, width, created) VALUES (?, ?, ?, ?, ?)"
            self._connection.execute(insert, (tenant, name, model, width, time.time()))
            query = "SELECT id, model, width FROM collections WHERE tenant = ? AND name = ?"
            collection, made_by, made_width = self._connection.execute(query, (tenant, name)).fetchone()
            if (made_by, made_width) != (model, width):
                message = f"embed_model: this collection has vectors of {made_by} ({made_width} dimensions)"
                raise InvalidRequestError(message, param="embed_model")
            self._connection.execute("DELETE FROM documents WHERE collection = ? AND name = ?", (collection, document))
            row = self._connection.execute(
                "INSERT INTO documents (collection, name, digest, num_chars) VALUES (?, ?, ?, ?)",
                (collection, document, _digest(text), len(text)),
            )
            self._connection.executemany(
                "INSERT INTO chunks (document, first, last, text, vector) VALUES (?, ?, ?, ?, ?)",
                [(row.lastrowid, c.begin, c.end, c.text, bytes(v)) for c, v in zip(chunks, vectors, strict=True)],
            )
            self._check_room(tenant)
            self._matrices.pop(collection, None)

    def _check_room(self, tenant: str) -> None:
        """Within the transaction: what raises is undone."""
        count = "SELECT count(*) FROM collections WHERE tenant = ?"
        if self._connection.execute(count, (tenant,)).fetchone()[0] > MAX_TENANT_COLLECTIONS:
            raise InvalidRequestError(f"there may be at most {MAX_TENANT_COLLECTIONS} collections", param="name")
        count = """SELECT count(*) FROM chunks JOIN documents d ON d.id = document
                   JOIN collections c ON c.id = d.collection WHERE tenant = ?"""
        if self._connection.execute(count, (tenant,)).fetchone()[0] > MAX_TENANT_CHUNKS:
            message = f"documents: all collections together may have at most {MAX_TENANT_CHUNKS} chunks"
            raise InvalidRequestError(message, param="documents")

    def delete(self, collection: Collection, document: str | None = None) -> None:
        """A document, or the whole collection. Raises ModelNotFoundError."""
        with self._lock, self._connection:
            if document is None:
                self._connection.execute("DELETE FROM collections WHERE id = ?", (collection.id,))
            else:
                delete = "DELETE FROM documents WHERE collection = ? AND name = ?"
                if self._connection.execute(delete, (collection.id, document)).rowcount == 0:
                    raise ModelNotFoundError(f"There is no document '{document[:200]}' in '{collection.name}'.")
            self._matrices.pop(collection.id, None)

    def search(self, collection: Collection, vector: Any, count: int) -> list[Hit]:
        """The `count` chunks with the highest cosine, best first. vector: a float32 buffer, normalized."""
        import numpy as np

        with self._lock:
            ids, matrix = self._matrix(collection)
            query = np.frombuffer(vector, np.float32)  # (width,)
            scores = matrix @ query  # (num_chunks,)
            count = min(count, len(ids))
            best = np.argpartition(-scores, count - 1)[:count] if count else np.empty(0, np.intp)
            best = best[np.lexsort((best, -scores[best]))]  # equal ones in the order they were added
            return [self._hit(ids[i], float(scores[i])) for i in best]

    def _matrix(self, collection: Collection) -> tuple[list[int], Any]:
        import numpy as np

        if collection.id not in self._matrices:
            query = """SELECT k.id, vector FROM chunks k JOIN documents d ON d.id = document
                       WHERE d.collection = ? ORDER BY k.id"""
            with closing(self._connection.execute(query, (collection.id,))) as rows:
                found = rows.fetchall()
            matrix = np.frombuffer(b"".join(blob for _, blob in found), np.float32).reshape(-1, collection.width)
            self._matrices[collection.id] = [int(i) for i, _ in found], matrix
        return self._matrices[collection.id]

    def _hit(self, chunk_id: int, score: float) -> Hit:
        query = "SELECT d.name, first, last, text FROM chunks k JOIN documents d ON d.id = document WHERE k.id = ?"
        document, first, last, text = self._connection.execute(query, (chunk_id,)).fetchone()
        return Hit(document, first, last, text, score)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
