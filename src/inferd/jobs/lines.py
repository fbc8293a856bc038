"""The lines of a batch's input: one request each. What is wrong is told with its line number; nothing is left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

ENDPOINTS = (
    "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/score", "/v1/rerank",
)  # fmt: skip
MAX_LINES = 50_000
MAX_LINE_SIZE = 8 * 2**20
MAX_CUSTOM_ID_LEN = 512
MAX_LISTED = 100  # errors of a batch that are told one by one
_LINE_FEEDS = re.compile(rb"[\r\n]+$")


@dataclass(frozen=True, slots=True)
class Line:
    """A request of the input file. number counts from 1; offset and size: where its bytes are."""

    number: int
    custom_id: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class LineError:
    """line: None where it is the file's."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {"code": self.code, "line": self.line, "message": self.message, "param": self.param}


def read_lines(path: Path, endpoint: str) -> tuple[list[Line], list[LineError]]:
    """All lines but empty ones. With any error the batch must not run."""
    lines: list[Line] = []
    errors: list[LineError] = []
    first_use: dict[str, int] = {}
    for number, offset, raw in _raw_lines(path):
        if len(lines) == MAX_LINES:
            errors.append(LineError("too_many_requests", f"A batch has at most {MAX_LINES} requests.", number))
            break
        read = _read(number, raw, endpoint)
        if isinstance(read, LineError):
            errors.append(read)
            continue
        earlier = first_use.setdefault(read, number)
        if earlier != number:
            message = f"custom_id {read[:80]!r} is that of line {earlier} too."
            errors.append(LineError("duplicate_custom_id", message, number, "custom_id"))
        else:
            lines.append(Line(number, read, offset, len(raw)))
    if not lines and not errors:
        errors.append(LineError("empty_file", "The input file has no requests."))
    return lines, _listed(errors)


def body_at(path: Path, line: Line) -> dict[str, Any]:
    """The body of a request that read_lines let pass."""
    with path.open("rb") as file:
        file.seek(line.offset)
        body: dict[str, Any] = msgspec.json.decode(file.read(line.size))["body"]
    return body


def _raw_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(number, offset, bytes without the line feed) of lines that are not blank; of too long ones the beginning."""
    with path.open("rb") as file:
        number = offset = 0
        while raw := file.readline(MAX_LINE_SIZE + 2):
            number += 1
            begin, offset = offset, offset + len(raw)
            while not raw.endswith(b"\n") and (more := file.readline(MAX_LINE_SIZE)):
                offset += len(more)
                if more.endswith(b"\n"):
                    break
            content = _LINE_FEEDS.sub(b"", raw)
            if content.strip():
                yield number, begin, content


def _read(number: int, raw: bytes, endpoint: str) -> str | LineError:
    """The custom_id, when the line is a request of this endpoint."""
    if len(raw) > MAX_LINE_SIZE:
        return LineError("line_too_long", f"A line has at most {MAX_LINE_SIZE} bytes.", number)
    try:
        fields = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return LineError("invalid_json_line", "This line is not valid JSON.", number)
    if not isinstance(fields, dict):
        return LineError("invalid_json_line", "This line is not a JSON object.", number)
    custom_id = fields.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID_LEN:
        message = f"custom_id must be a text of 1 to {MAX_CUSTOM_ID_LEN} characters."
        return LineError("missing_required_parameter", message, number, "custom_id")
    if fields.get("method") != "POST":
        return LineError("invalid_method", 'method must be "POST".', number, "method")
    if fields.get("url") != endpoint:
        return LineError("mismatched_endpoint", f"url must be the batch's endpoint, {endpoint}.", number, "url")
    if not isinstance(fields.get("body"), dict):
        return LineError("missing_required_parameter", "body must be a JSON object.", number, "body")
    unknown = sorted(fields.keys() - {"custom_id", "method", "url", "body"})
    if unknown:
        message = f"There is no field {unknown[0][:80]!r} in a batch line."
        return LineError("unknown_parameter", message, number, unknown[0][:80])
    return custom_id


def _listed(errors: list[LineError]) -> list[LineError]:
    more = len(errors) - MAX_LISTED
    if more <= 0:
        return errors
    return [*errors[:MAX_LISTED], LineError("more_errors", f"{more} more lines have errors.")]
