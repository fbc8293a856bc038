"""Results: one JSON file that says what was run, holds a sample for each item, and lets an ended run go on."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import inferd
from inferd.eval.data import DataError, model_digest
from inferd.models.checkpoint import Checkpoint

SAVE_SECONDS = 2.0  # a run that is killed loses at most this much

Sample = dict[str, Any]


def versions() -> dict[str, str]:
    """Of everything that can move a bit of a result."""
    packages = {name: metadata.version(name) for name in ("numpy", "tokenizers", "jinja2")}
    return {"inferd": inferd.__version__, "python": platform.python_version(), **packages}


def model_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    path = checkpoint.path
    return {"name": checkpoint.name, "file": path.name, "sha256": model_digest(path)}


def executor_facts(executor: str) -> dict[str, str]:
    """isa: of the native kernels; their results differ in the last bits from one to the next."""
    if executor != "native":
        return {"name": executor}
    from inferd.executors.native import cpu_info

    return {"name": executor, "isa": cpu_info()["isa"]}


class Results:
    """run: the facts of the run; a file that has other ones is not continued. Samples are keyed by the item's name.

    Raises DataError when the file is damaged or of another run.
    """

    def __init__(self, path: Path | None, run: Mapping[str, Any]) -> None:
        self.path = path
        self.run: dict[str, Any] = json.loads(json.dumps(run))  # as it will be read back
        self.samples: dict[str, Sample] = {}
        self.summary: dict[str, Any] = {}
        self.seconds = 0.0  # of all pieces together
        self._saved_at = time.monotonic()
        if path is not None and path.exists():
            self._read(path)

    def add(self, key: str, sample: Sample) -> None:
        self.samples[key] = sample
        if time.monotonic() - self._saved_at > SAVE_SECONDS:
            self.save()

    def to_json(self) -> dict[str, Any]:
        return {"run": self.run, "summary": self.summary, "seconds": round(self.seconds, 1), "samples": self.samples}

    def save(self) -> None:
        """Whole or not at all: the old file stays until the new one is on the disk."""
        self._saved_at = time.monotonic()
        if self.path is None:
            return
        part = self.path.with_name(self.path.name + ".part")
        part.write_text(json.dumps(self.to_json(), indent=1) + "\n")
        os.replace(part, self.path)

    def _read(self, path: Path) -> None:
        try:
            body = json.loads(path.read_bytes())
        except ValueError as error:
            raise DataError(path, f"not valid JSON: {error}") from error
        for field, kind in (("run", dict), ("summary", dict), ("seconds", int | float), ("samples", dict)):
            if not isinstance(body, dict) or not isinstance(body.get(field), kind):
                raise DataError(path, "missing or of a wrong type: this is no results file", field=field)
        difference = _first_difference(self.run, body["run"])
        if difference:
            raise DataError(path, f"{difference}; it belongs to another run: name another file", field="run")
        self.samples, self.summary, self.seconds = body["samples"], body["summary"], float(body["seconds"])


def _first_difference(want: Any, got: Any, at: str = "") -> str:
    """The first field where two facts differ, as text; "" when none does."""
    if not (isinstance(want, dict) and isinstance(got, dict)):
        return "" if want == got else f"{at} was {_brief(got)}, and is {_brief(want)} now"
    for name in {**want, **got}:
        found = _first_difference(want.get(name), got.get(name), f"{at}.{name}" if at else name)
        if found:
            return found
    return ""


def _brief(value: Any) -> str:
    return json.dumps(value)[:80]
