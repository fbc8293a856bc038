"""Data sets in local files, checked row by row: an error names file, line and field."""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from inferd.errors import InferdError

_FIELD = re.compile(r"\$\.(\w+)")
_MISSING = re.compile(r"missing required field `(\w+)`")

T = TypeVar("T")


class DataError(InferdError):
    """A data set or results file that cannot be used; names the file, and the line and field where there is one."""

    def __init__(self, path: Path, what: str, *, line: int | None = None, field: str | None = None) -> None:
        where = ":".join(str(part) for part in (path, line, field) if part is not None)
        super().__init__(f"{where}: {what}")
        self.path, self.line, self.field = path, line, field


def read_jsonl(path: Path, kind: type[T]) -> list[T]:
    """One object a line, also from .gz; blank lines are skipped. kind: a msgspec.Struct; unknown keys are ignored."""
    decoder = msgspec.json.Decoder(kind)
    rows: list[T] = []
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            rows.append(_decode(decoder, path, number, line))
    if not rows:
        raise DataError(path, "holds no rows")
    return rows


def read_csv(path: Path, fields: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Rows without a header, each with the line it begins at."""
    rows: list[tuple[int, dict[str, str]]] = []
    reader = csv.reader((line.decode("utf-8", "replace") for line in _lines(path)), strict=True)
    begin = 1
    try:
        for values in reader:
            if values and len(values) != len(fields):
                missing = fields[len(values)] if len(values) < len(fields) else None
                what = f"must have {len(fields)} columns ({', '.join(fields)}), has {len(values)}"
                raise DataError(path, what, line=begin, field=missing)
            if values:
                rows.append((begin, dict(zip(fields, values, strict=True))))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise DataError(path, str(error), line=begin) from error
    if not rows:
        raise DataError(path, "holds no rows")
    return rows


def digest(paths: Iterable[Path]) -> str:
    """SHA-256 of the files' bytes; of several, of their names and digests in the order of the names."""
    ordered = sorted(paths, key=lambda path: path.name)
    sums = [(path.name, _file_digest(path)) for path in ordered]
    if len(sums) == 1:
        return sums[0][1]
    return hashlib.sha256("".join(f"{name} {value}\n" for name, value in sums).encode()).hexdigest()


def model_digest(path: Path) -> str:
    """Of a model file, or of all files of a model directory."""
    return digest([path] if path.is_file() else (file for file in path.iterdir() if file.is_file()))


def _file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _decode(decoder: msgspec.json.Decoder[T], path: Path, number: int, line: bytes) -> T:
    try:
        return decoder.decode(line)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at ")
        found = _FIELD.search(where) or _MISSING.search(what)
        raise DataError(path, what, line=number, field=found.group(1) if found else None) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DataError(path, f"not valid JSON: {error}", line=number) from error


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with _open(path) as file:
            yield from file
    except (gzip.BadGzipFile, EOFError) as error:
        raise DataError(path, f"not valid gzip: {error}") from error


def _open(path: Path) -> IO[bytes] | Any:
    return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")
