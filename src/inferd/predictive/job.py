"""A table through a model, row by row into a file, with a journal: what was interrupted goes on where it was.

While it runs the rows are in OUT.part and the progress in OUT.journal: a line of what the job is, then one for each
chunk that is on the disk. A kill at any moment loses at most the chunk it was in.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import msgspec

from inferd.errors import ConfigError, EngineError
from inferd.predictive.model import PredictiveModel, Version
from inferd.predictive.table import Columns, Record, output_names, output_rows, read_records, to_csv

Progress = Callable[[int, int, int], None]  # rows, bytes of the input read, bytes of it in all


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What must be the same for a job to go on."""

    source: str  # digests
    model: str
    version: str
    columns: dict[str, list[str]]
    keep: list[str]
    chunk_rows: int


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """All before it is on the disk."""

    num_rows: int = 0
    source_at: int = 0  # bytes
    line: int = 1
    target_at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    num_rows: int
    num_resumed: int  # rows that an earlier run had done


class TableJob:
    def __init__(
        self, model: PredictiveModel, files: Sequence[Path], source: Path, target: Path, *,
        version: str = "", features: Mapping[str, list[str]] | None = None, keep: Sequence[str] = (),
        chunk_rows: int = 4096,
    ) -> None:  # fmt: skip
        """files: those of the model, which tell it from another. features: over those of its settings."""
        self._model, self._version = model, model.version(version)
        self._source, self._target = source, target
        self._part, self._journal = (target.with_name(target.name + end) for end in (".part", ".journal"))
        self._features = {**model.settings.features, **(features or {})}
        self._keep, self._chunk_rows = list(keep), chunk_rows
        self._files = files

    def run(self, progress: Progress) -> Done:
        """Raises ConfigError when the job cannot begin or go on, InvalidRequestError for a row that cannot be read."""
        if self._target.exists() and (self._part.exists() or not self._journal.exists()):
            raise ConfigError(f"{self._target.name} is there already: remove it, or name another")
        with open(self._journal, "a+b") as journal, open(self._source, "rb") as source:
            _lock(journal, self._journal.name)
            mark = self._last_mark(journal)
            if self._target.exists():  # killed between its last two steps
                self._journal.unlink()
                return Done(num_rows=mark.num_rows, num_resumed=mark.num_rows)
            header = next(read_records(source, 0, 1), None)
            if header is None:
                raise ConfigError(f"{self._source.name} has no header")
            columns = Columns(self._version, header.values, self._features, self._keep)
            if mark.source_at == 0:
                mark = Mark(source_at=header.end, line=header.next_line)
            num_rows = self._write_all(journal, source, columns, mark, progress)
            os.replace(self._part, self._target)
            self._journal.unlink()
        return Done(num_rows=num_rows, num_resumed=mark.num_rows)

    def _write_all(
        self, journal: IO[bytes], source: IO[bytes], columns: Columns, mark: Mark, progress: Progress
    ) -> int:
        size = self._source.stat().st_size
        with open(self._part, "r+b" if mark.num_rows else "wb") as part:
            part.truncate(mark.target_at)
            part.seek(mark.target_at)
            progress(mark.num_rows, mark.source_at, size)
            for records in _chunks(read_records(source, mark.source_at, mark.line), self._chunk_rows):
                part.write(self._computed(columns, records, with_header=mark.target_at == 0))
                _to_disk(part)
                mark = Mark(
                    num_rows=mark.num_rows + len(records),
                    source_at=records[-1].end,
                    line=records[-1].next_line,
                    target_at=part.tell(),
                )
                journal.write(msgspec.json.encode(mark) + b"\n")
                _to_disk(journal)
                progress(mark.num_rows, mark.source_at, size)
        return mark.num_rows

    def _computed(self, columns: Columns, records: Sequence[Record], *, with_header: bool) -> bytes:
        specs = self._version.session.outputs
        inputs = columns.arrays(records)
        arrays = self._version.run_rows(inputs, [spec.name for spec in specs])
        if any(array.shape[:1] != (len(records),) for array in arrays):
            raise EngineError("the model does not give one row of output for each row of input")
        rows = output_rows([columns.kept(record) for record in records], arrays)
        names = [*columns.keep, *output_names(specs, arrays, self._model.settings.labels)]
        return to_csv([names, *rows] if with_header else rows)

    def _last_mark(self, journal: IO[bytes]) -> Mark:
        """Of the chunk that was written last; a journal without one begins anew."""
        identity = Identity(
            source=_digest([self._source]), model=_digest(self._files), version=self._version.number,
            columns=self._features, keep=self._keep, chunk_rows=self._chunk_rows,
        )  # fmt: skip
        journal.seek(0)
        lines = [line for line in journal.read().splitlines(keepends=True) if line.endswith(b"\n")]
        if len(lines) < 2:
            journal.truncate(0)
            journal.write(msgspec.json.encode(identity) + b"\n")
            _to_disk(journal)
            return Mark()
        try:
            known, mark = msgspec.json.decode(lines[0], type=Identity), msgspec.json.decode(lines[-1], type=Mark)
        except msgspec.MsgspecError:
            raise ConfigError(f"{self._journal.name} is damaged: remove it to begin anew") from None
        for name in Identity.__struct_fields__:
            if getattr(known, name) != getattr(identity, name):
                raise ConfigError(f"{self._journal.name} is of another {name}: remove it to begin anew")
        if not self._target.exists() and (not self._part.is_file() or self._part.stat().st_size < mark.target_at):
            raise ConfigError(f"{self._part.name} is shorter than the journal says: remove the journal to begin anew")
        journal.truncate(sum(map(len, lines)))  # a line that a kill cut off
        return mark


def version_files(path: Path, version: Version) -> list[Path]:
    """The model's file and the data beside it, in a fixed order."""
    if path.is_file():
        return [path]
    folder = path / version.number if (path / version.number).is_dir() else path
    return sorted(file for file in folder.iterdir() if file.is_file())


def _chunks(records: Iterator[Record], num_rows: int) -> Iterator[list[Record]]:
    while chunk := list(islice(records, num_rows)):
        yield chunk


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _lock(journal: IO[bytes], name: str) -> None:
    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)  # freed when the process ends, however it ends
    except BlockingIOError:
        raise ConfigError(f"{name} is in use: another process works on this table") from None


def _to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
