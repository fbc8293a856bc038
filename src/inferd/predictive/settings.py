"""What the operator says of a predictive model, in inferd.yaml or inferd.json beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from inferd.errors import ConfigError

_Count = Annotated[int, Meta(ge=1, le=1_000_000)]
_Seconds = Annotated[float, Meta(gt=0, le=3600)]
MAX_BYTES = 128 * 2**20  # of one call's tensors: two of them, with their names, fit into a frame to the worker


class _Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Batching(_Settings, frozen=True):
    """How calls are computed together, along the first dimension of every tensor."""

    enabled: bool | None = None  # None: where the model's shapes allow it and a trial gives the same answers
    max_batch_size: Annotated[int, Meta(ge=1, le=65536)] = 32  # rows computed together; a call of more goes alone
    max_delay: Annotated[float, Meta(ge=0, le=10)] = 0.0  # seconds that a call waits for others
    max_queue: _Count = 1024  # calls that wait; more are refused
    default_priority: Annotated[int, Meta(ge=1, le=2**31 - 1)] = 10  # of a call that names none; lower runs first
    default_timeout: _Seconds | None = None  # seconds in the queue, of a call that names none


class Limits(_Settings, frozen=True):
    """Of one call."""

    max_rows: _Count = 65536
    max_bytes: Annotated[int, Meta(ge=1, le=MAX_BYTES)] = 64 * 2**20  # of all its inputs, and of all its outputs


class Settings(_Settings, frozen=True):
    name: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")] | None = None  # what clients call it
    batching: Batching = Batching()
    limits: Limits = Limits()
    versions: Literal["all", "latest"] | list[_Count] = "all"  # of a directory with numbered folders
    instances: Annotated[int, Meta(ge=1, le=64)] = 1  # calls, or batches of calls, computed at the same time
    threads: Annotated[int, Meta(ge=1, le=256)] | None = None  # of each instance; None: the cores over the instances
    warm_up: list[dict[str, Any]] = []  # samples: the values of each input, nested as its shape says
    labels: dict[str, list[str]] = {}  # of an output: what each of its last dimension's places means
    features: dict[str, list[str]] = {}  # of an input: the columns of a table that fill its last dimension


def load_settings(model: Path) -> Settings:
    """model: a .onnx file or a model directory. Raises ConfigError, which names the file and the key."""
    path = _settings_path(model)
    if path is None:
        return Settings()
    try:
        raw = path.read_bytes()
        if path.suffix == ".json":
            return msgspec.json.decode(raw, type=Settings)
        return msgspec.yaml.decode(raw or b"{}", type=Settings)
    except (msgspec.MsgspecError, UnicodeDecodeError, OSError) as error:
        what, _, where = str(error).partition(" - at ")
        key = where.strip("`").removeprefix("$.")
        raise ConfigError(f"{path.name}: {key + ': ' if where else ''}{what}") from error


def _settings_path(model: Path) -> Path | None:
    """Of the file itself (fraud.inferd.yaml for fraud.onnx), else of its folder."""
    folder = model if model.is_dir() else model.parent
    stems = ["inferd"] if model.is_dir() else [f"{model.stem}.inferd", "inferd"]
    for stem in stems:
        found = [path for suffix in (".yaml", ".json") if (path := folder / f"{stem}{suffix}").is_file()]
        if len(found) > 1:
            raise ConfigError(f"{found[0].name} and {found[1].name}: there may be one of them")
        if found:
            return found[0]
    return None
