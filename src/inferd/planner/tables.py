"""The data files beside the code, and names looked up with near matches in the error."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import TypeVar

from inferd.errors import ConfigError

T = TypeVar("T")
Row = Mapping[str, str]


@cache
def read_table(name: str) -> tuple[Row, ...]:
    """Rows of data/<name>.csv, column -> text."""
    text = files("inferd.planner").joinpath("data", f"{name}.csv").read_text("utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def number(row: Row, column: str) -> float | None:
    """The cell as a number; None when it is empty or says n/a."""
    try:
        return float(row[column])
    except ValueError:
        return None


def choose(option: str, name: str, choices: Mapping[str, T]) -> T:
    """choices[name]; raises ConfigError with the nearest names, or all of them when they are few."""
    if name in choices:
        return choices[name]
    near = difflib.get_close_matches(name.lower(), list(choices), n=4, cutoff=0.5)
    names = near if near and len(choices) > 12 else sorted(choices)
    lead = "did you mean " if near and len(choices) > 12 else "one of "
    raise ConfigError(f"{option}: {name!r} is not known; {lead}{', '.join(names)}")


def require(option: str, value: float, low: float, high: float, unit: str = "") -> None:
    """Raises ConfigError unless low <= value <= high; a NaN is refused too."""
    if not low <= value <= high:
        unit = f" {unit}" if unit else ""
        raise ConfigError(f"{option} must be from {low:g} to {high:g}{unit}, got {value:g}")


def joined(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
