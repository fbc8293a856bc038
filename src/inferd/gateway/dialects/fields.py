"""Every request field by what becomes of it: honoured, harmless, refused unless it changes nothing, or unknown.

Nothing is dropped in silence: what is not used is named in the answer's `warnings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
            unknown.append(f"unknown field {name[:MAX_NAME_LEN]!r} was ignored")
    if len(unknown) > MAX_WARNINGS:
        unknown[MAX_WARNINGS:] = [f"{len(unknown) - MAX_WARNINGS} more unknown fields were ignored"]
    return tuple(unknown)


def _refuse(name: str, value: Any, neutral: tuple[Any, ...], reason: str) -> None:
    # type and value: False is not 0 here
    if not any(value == allowed and type(value) is type(allowed) for allowed in neutral):
        raise InvalidRequestError(f"{name}: {reason}", param=name)
