"""Rows of a CSV file to the inputs of a model, and its outputs to columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from inferd.errors import ConfigError, InvalidRequestError
from inferd.predictive.model import Version
from inferd.predictive.tensors import DTYPES, Array, TensorSpec

MAX_RECORD = 2**20  # bytes of one row
_FLAGS = {"0": False, "1": True, "false": False, "true": True}


@dataclass(frozen=True, slots=True)
class Record:
    """One row of the file. line: where it begins, from 1. end, next_line: where the next does, in bytes and lines."""

    values: list[str]
    line: int
    end: int
    next_line: int


def read_records(file: IO[bytes], at: int, line: int) -> Iterator[Record]:
    """From the byte `at` on. A quoted value may hold line breaks. Raises InvalidRequestError naming the line."""
    file.seek(at)
    begin, parts, size = line, [], 0
    for raw in file:
        parts.append(raw)
        size += len(raw)
        line += 1
        if size > MAX_RECORD:
            raise InvalidRequestError(f"line {begin}: a row must hold at most {MAX_RECORD} bytes")
        text = b"".join(parts)
        if text.count(b'"') % 2:
            continue  # within quotes
        at += size
        values = _values(text, begin)
        if values:
            yield Record(values, begin, at, line)
        begin, parts, size = line, [], 0
    if parts:
        raise InvalidRequestError(f"line {begin}: a quote is not closed")


def _values(raw: bytes, line: int) -> list[str]:
    try:
        return next(csv.reader([raw.decode("utf-8-sig" if line == 1 else "utf-8")], strict=True), [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"line {line}: {error}") from None


class Columns:
    """Which columns of a table fill which input."""

    def __init__(
        self, version: Version, header: Sequence[str], features: Mapping[str, list[str]], keep: Sequence[str]
    ) -> None:
        """features: by input, its columns in order. keep: columns that are copied. Raises ConfigError."""
        if len(set(header)) != len(header):
            raise ConfigError("the header must name each column once")
        if not version.session.has_rows:
            raise ConfigError("the model takes no rows: not every tensor has a first dimension of any size")
        self._places = {name: place for place, name in enumerate(header)}
        self._num_columns = len(header)
        self.keep = list(keep)
        self._inputs = [(spec, _columns_of(spec, version, header, features, keep)) for spec in version.session.inputs]
        for name in (*self.keep, *(name for _, names in self._inputs for name in names)):
            if name not in self._places:
                raise ConfigError(f"the table has no column '{name}', only {', '.join(header)[:500]}")

    def kept(self, record: Record) -> list[str]:
        return [record.values[self._places[name]] for name in self.keep]

    def arrays(self, records: Sequence[Record]) -> dict[str, Array]:
        """The inputs, (num_records, ...). Raises InvalidRequestError naming line and column."""
        for record in records:
            if len(record.values) != self._num_columns:
                found = f"got {len(record.values)}"
                raise InvalidRequestError(f"line {record.line}: must hold {self._num_columns} values, {found}")
        return {spec.name: self._array(spec, names, records) for spec, names in self._inputs}

    def _array(self, spec: TensorSpec, names: Sequence[str], records: Sequence[Record]) -> Array:
        dtype = DTYPES[spec.datatype]
        table = np.empty((len(records), len(names)), dtype)
        for column, name in enumerate(names):
            place = self._places[name]
            try:
                table[:, column] = _converted([record.values[place] for record in records], spec.datatype)
            except (ValueError, OverflowError, KeyError):
                raise _bad_value(spec, name, [(record.line, record.values[place]) for record in records]) from None
        return table.reshape(len(records), *_row_shape(spec, len(names)))


def _converted(texts: list[str], datatype: str) -> Any:
    """An empty text is NaN where there is one."""
    if datatype == "BYTES":
        return texts
    if datatype == "BOOL":
        return [_FLAGS[text.strip().lower()] for text in texts]
    if datatype.startswith("FP"):
        return [float(text) if text.strip() else np.nan for text in texts]
    return np.array([int(text) for text in texts], DTYPES[datatype])


def _bad_value(spec: TensorSpec, column: str, cells: Sequence[tuple[int, str]]) -> InvalidRequestError:
    for line, text in cells:
        try:
            _converted([text], spec.datatype)
        except (ValueError, OverflowError, KeyError):
            message = f"line {line}, column '{column}': '{text[:40]}' is no value of {spec.datatype}"
            return InvalidRequestError(message, param=column)
    raise AssertionError("no value is bad")


def _columns_of(
    spec: TensorSpec, version: Version, header: Sequence[str], features: Mapping[str, list[str]], keep: Sequence[str]
) -> list[str]:
    if spec.name in features:
        names = features[spec.name]
    elif spec.name in header:
        names = [spec.name]
    elif len(version.session.inputs) == 1:
        names = [name for name in header if name not in keep]
    else:
        raise ConfigError(
            f"no column is named '{spec.name}', as this input is: say features.{spec.name} in its settings"
        )
    row = (spec.shape or ())[1:]
    if len(row) > 1 and any(size != 1 for size in row[1:]):
        raise ConfigError(f"input '{spec.name}' has more than one dimension in a row; a table cannot fill it")
    width = row[0] if row else 1
    if width not in (-1, len(names)):
        raise ConfigError(f"input '{spec.name}' takes {width} columns, got {len(names)}: {', '.join(names)[:300]}")
    return names


def _row_shape(spec: TensorSpec, num_columns: int) -> tuple[int, ...]:
    shape = (spec.shape or ())[1:]
    return (num_columns, *shape[1:]) if shape else ()


def output_names(specs: Sequence[TensorSpec], arrays: Sequence[Array], labels: Mapping[str, list[str]]) -> list[str]:
    """A column for each value of a row: the output's name, with the label or the number of its place behind it."""
    names = []
    for spec, array in zip(specs, arrays, strict=True):
        width = int(np.prod(array.shape[1:]))
        known = labels.get(spec.name, [])
        if width == 1 and not known:
            names.append(spec.name)
        else:
            names += [f"{spec.name}_{known[i] if len(known) == width else i}" for i in range(width)]
    return names


def to_csv(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def output_rows(kept: Sequence[list[str]], arrays: Sequence[Array]) -> list[list[Any]]:
    """Floats as their shortest text that reads back to the same value."""
    flat = [array.reshape(len(kept), -1) for array in arrays]
    return [[*own, *(str(value) for array in flat for value in array[row])] for row, own in enumerate(kept)]
