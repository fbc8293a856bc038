"""Every request field by what becomes of it: honoured, harmless, refused unless it changes nothing, or unknown.

Nothing is dropped in silence: what is not used is named in the answer's `warnings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from inferd.errors import InvalidRequestError

# field -> (values that change nothing, why any other is refused)
Refusals = Mapping[str, tuple[tuple[Any, ...], str]]
MAX_WARNINGS = 16
MAX_NAME_LEN = 80


def check_fields(
    fields: Mapping[str, Any], *, honoured: frozenset[str], harmless: frozenset[str], refused: Refusals
) -> tuple[str, ...]:
    """Warnings, one for each field nobody knows. Raises InvalidRequestError with the name of a refused one."""
    unknown = []
    for name, value in fields.items():
        if name in refused:
            _refuse(name, value, *refused[name])
        elif name not in honoured and name not in harmless:
            unknown.append(_ignored(name))
    return tuple(_shortened(unknown))


def unknown_inside(value: Any, read: Any, path: str = "") -> list[str]:
    """Warnings, one for each field that an object inside of a body has and the Struct it was read into has not."""
    if not isinstance(read, msgspec.Struct) or not isinstance(value, Mapping):
        return []
    found = []
    for name, inner in value.items():
        if name in read.__struct_fields__:
            found += unknown_inside(inner, getattr(read, name), f"{path}{name}.")
        elif path:  # those of the body itself are for check_fields
            found.append(_ignored(path + name))
    return _shortened(found)


def unknown_keys(value: Mapping[str, Any], known: frozenset[str], path: str) -> list[str]:
    """Warnings, one for each key of an object inside of a body that is not known."""
    return _shortened([_ignored(path + name) for name in value if name not in known])


def _ignored(name: str) -> str:
    return f"unknown field {name[:MAX_NAME_LEN]!r} was ignored"


def _shortened(warnings: list[str]) -> list[str]:
    if len(warnings) > MAX_WARNINGS:
        warnings[MAX_WARNINGS:] = [f"{len(warnings) - MAX_WARNINGS} more unknown fields were ignored"]
    return warnings


def _refuse(name: str, value: Any, neutral: tuple[Any, ...], reason: str) -> None:
    # type and value: False is not 0 here
    if not any(value == allowed and type(value) is type(allowed) for allowed in neutral):
        raise InvalidRequestError(f"{name}: {reason}", param=name)
