"""From the bytes of a JSON body to checked values; whatever is wrong is named by its field."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from inferd.errors import InvalidRequestError

MAX_DEPTH = 64  # of nested lists and objects; the deepest real requests are JSON schemas of about 20
_FIELD = re.compile(r"\$\.(\w+)")
_MISSING = re.compile(r"missing required field `(\w+)`")

T = TypeVar("T")


def decode(raw: bytes) -> dict[str, Any]:
    """The fields of a JSON body; null counts as absent."""
    try:
        fields = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequestError("the body is not valid JSON") from error
    if not isinstance(fields, dict):
        raise InvalidRequestError("the body must be a JSON object")
    for name, value in fields.items():
        if is_deep(value):
            raise InvalidRequestError(f"{name[:80]} is nested more than {MAX_DEPTH} levels deep", param=name[:80])
    return {name: value for name, value in fields.items() if value is not None}


def is_deep(value: Any) -> bool:
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return False
        values = (item for box in level for item in (box.values() if isinstance(box, dict) else box))
        level = [item for item in values if isinstance(item, list | dict)]
    return True


def convert(fields: dict[str, Any], kind: type[T], *, str_keys: bool = False) -> T:
    """Raises InvalidRequestError with the field's name when a type is wrong or a field is missing."""
    try:
        return msgspec.convert(fields, kind, str_keys=str_keys)
    except (msgspec.ValidationError, RecursionError) as error:
        what, _, where = str(error).partition(" - at ")
        found = _FIELD.search(where) or _MISSING.search(what)
        param = found.group(1) if found else None
        raise InvalidRequestError(f"{param or 'body'}: {what}", param=param) from error


def integral(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON has one kind of number: 16.0 is an integer where one is wanted, and fits where a float is."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in fields.items()
    }
