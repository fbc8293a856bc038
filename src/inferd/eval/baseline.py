"""Baseline: the distributions of one model over the windows of one text, in a file, to compare others with later.

Layout: magic, length of the header (little-endian u32), header (JSON), zeros up to a multiple of 64, token ids int32
(num_windows, window), logits less the row's largest float16 (num_windows, window, vocab). Half precision moves a KL
divergence by less than 1e-6 nats: what it rounds most, it rounds where the probability is smallest.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inferd.eval.data import DataError
from inferd.eval.quality import LogitsSource, Progress, no_progress
from inferd.executors.base import F32, I32

_MAGIC = b"inferd-baseline\n"
_MAX_HEADER = 1 << 20
_LOWEST = np.float32(-60000.0)  # within half precision; a probability of 0


def write_baseline(
    path: Path, source: LogitsSource, windows: I32, facts: Mapping[str, Any], progress: Progress = no_progress
) -> None:
    """facts: of the model (digest, executor, versions); they come back as BaselineFile.facts."""
    vocab_size = source.vocab_size
    shape = {"num_windows": len(windows), "window": windows.shape[1], "vocab_size": vocab_size}
    header = json.dumps({**shape, "facts": facts}).encode()
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        file.write(_MAGIC + struct.pack("<I", len(header)) + header)
        file.write(bytes(-file.tell() % 64))
        file.write(np.ascontiguousarray(windows, "<i4").tobytes())
        for index, window in enumerate(windows):
            logits = source.logits(index, window)
            shifted = np.maximum(logits - logits.max(axis=1, keepdims=True), _LOWEST)
            file.write(shifted.astype("<f2").tobytes())
            progress(index + 1, len(windows))
    part.replace(path)


class BaselineFile:
    """A LogitsSource. Raises DataError when the file is damaged or of other windows."""

    def __init__(self, path: Path, windows: I32, vocab_size: int) -> None:
        header, offset = _read_header(path)
        want = {"num_windows": len(windows), "window": windows.shape[1], "vocab_size": vocab_size}
        for field, value in want.items():
            if header.get(field) != value:
                raise DataError(path, f"must be {value} as in this run, is {header.get(field)!r}", field=field)
        self.facts: dict[str, Any] = header.get("facts", {})
        begin = offset + 4 * windows.size
        shape = (*windows.shape, vocab_size)
        if path.stat().st_size != begin + 2 * windows.size * vocab_size:
            raise DataError(path, f"must have {begin + 2 * windows.size * vocab_size} bytes: it is cut off or damaged")
        ids = np.memmap(path, "<i4", "r", offset, windows.shape)
        if not np.array_equal(ids, windows):
            raise DataError(path, "is of another text or tokenizer", field="token_ids")
        self._logits = np.memmap(path, "<f2", "r", begin, shape)  # (num_windows, window, vocab)

    @property
    def vocab_size(self) -> int:
        return int(self._logits.shape[-1])

    def logits(self, index: int, window: I32) -> F32:
        logits: F32 = self._logits[index].astype(np.float32)
        return logits

    def close(self) -> None:
        del self._logits


def is_baseline(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header and where the arrays begin."""
    with open(path, "rb") as file:
        start = file.read(len(_MAGIC) + 4)
        if len(start) < len(_MAGIC) + 4 or not start.startswith(_MAGIC):
            raise DataError(path, "is no baseline file")
        (length,) = struct.unpack("<I", start[len(_MAGIC) :])
        if length > _MAX_HEADER:
            raise DataError(path, f"must be at most {_MAX_HEADER} bytes, is {length}", field="header")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise DataError(path, f"not valid JSON: {error}", field="header") from error
        if not isinstance(header, dict):
            raise DataError(path, "must be a JSON object", field="header")
        return header, -(-file.tell() // 64) * 64
