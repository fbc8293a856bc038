"""A pipeline's file, read and checked: a name and its steps, each one key with its settings.

name: digits
steps:
  - image: {size: [8, 8], mode: L}
  - scale: {divide: 16}
  - reshape: {shape: [1, 64]}
  - infer: {model: digits, output: probabilities}
  - labels: {top: 3}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from inferd.errors import ConfigError
from inferd.yaml_file import read_yaml

MAX_FILE_BYTES = 2**18
MAX_STEPS = 64
Numbers = float | list[float]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all steps."""


class Image(Settings, frozen=True):
    """An image file as base64 -> (height, width) for mode L, (height, width, 3) for RGB; values 0 to 255."""

    size: tuple[int, int] | None = None  # width, height
    mode: Literal["L", "RGB"] = "RGB"


class Columns(Settings, frozen=True):
    """A list of objects -> (rows, columns), by the names of their fields."""

    names: list[str]


class Array(Settings, frozen=True):
    """Nested lists of numbers -> an array."""


class Scale(Settings, frozen=True):
    """(x - subtract) / divide; lists go along the last axis."""

    subtract: Numbers = 0.0
    divide: Numbers = 1.0


class Reshape(Settings, frozen=True):
    """-1 once, for what is left."""

    shape: list[int]


class Transpose(Settings, frozen=True):
    axes: list[int]


class Infer(Settings, frozen=True):
    """input, output: names of tensors; the model's only or first one by default."""

    model: str
    input: str = ""
    output: str = ""
    version: str = ""


class Embed(Settings, frozen=True):
    """A text or texts -> (texts, dimensions)."""

    model: str


class Softmax(Settings, frozen=True):
    """Along the last axis."""


class Sigmoid(Settings, frozen=True):
    pass


class Argmax(Settings, frozen=True):
    """The place of the largest value along the last axis."""


class Labels(Settings, frozen=True):
    """Scores along the last axis -> the best `top` as objects with a label and a score."""

    names: list[str] = []  # empty: those of the last model
    top: int = 1


class Threshold(Settings, frozen=True):
    """Each value -> `above` from `at` on, else `below`."""

    at: float
    above: str = "yes"
    below: str = "no"


class Column(Settings, frozen=True):
    """One column of (rows, columns)."""

    index: int


KINDS: dict[str, type[Settings]] = {
    kind.__name__.lower(): kind
    for kind in (Image, Columns, Array, Scale, Reshape, Transpose, Infer, Embed, Softmax, Sigmoid, Argmax, Labels,
                 Threshold, Column)
}  # fmt: skip


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """steps: (name of the kind, settings)."""

    name: str
    steps: tuple[tuple[str, Settings], ...]

    @property
    def models(self) -> list[str]:
        """That it calls."""
        return [settings.model for _, settings in self.steps if isinstance(settings, Infer | Embed)]


def read_pipeline(path: Path) -> Pipeline:
    """Raises ConfigError naming the step and the key."""
    values = read_yaml(path, MAX_FILE_BYTES)
    if not isinstance(values, dict) or not isinstance(values.get("steps"), list):
        raise ConfigError(f"{path.name} must have a name and a list of steps")
    if unknown := sorted(map(str, values.keys() - {"name", "steps"})):
        raise ConfigError(f"{path.name}: {unknown[0][:80]!r} is no key; there are name and steps")
    steps = values["steps"]
    if not 1 <= len(steps) <= MAX_STEPS:
        raise ConfigError(f"{path.name}: steps must be from 1 to {MAX_STEPS}, got {len(steps)}")
    name = values.get("name", path.stem)
    if not isinstance(name, str) or not name or "/" in name:
        raise ConfigError(f"{path.name}: name must be a text without slashes")
    return Pipeline(name=name, steps=tuple(_step(step, f"{path.name}: steps[{at}]") for at, step in enumerate(steps)))


def _step(value: Any, where: str) -> tuple[str, Settings]:
    if isinstance(value, str):
        value = {value: {}}
    if not isinstance(value, dict) or len(value) != 1:
        raise ConfigError(f"{where} must be one kind of step with its settings")
    [(kind, settings)] = value.items()
    if kind not in KINDS:
        raise ConfigError(f"{where}: {str(kind)[:80]!r} is no step; there are {', '.join(sorted(KINDS))}")
    try:
        return kind, msgspec.convert(settings or {}, KINDS[kind])
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {kind}: {error}") from None
