"""What a model file is for: text (generate), vectors and scores (encode), or any tensors (predict)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

Kind = Literal["generate", "encode", "predict"]

_HEAD_BYTES = 64 * 1024  # of a GGUF file; the architecture is among its first keys
_ARCHITECTURE = re.compile(rb"\x14\0{7}general\.architecture\x08\0{3}([\x01-\x40])\0{7}")
_ENCODERS = frozenset({"bert", "roberta", "xlm-roberta", "distilbert", "mpnet", "nomic-bert", "jina-bert-v2"})


def is_predictive(path: Path) -> bool:
    """A .onnx file, or a directory with model.onnx in it or in folders named by version numbers."""
    if path.suffix == ".onnx":
        return path.is_file()
    return (path / "model.onnx").is_file() or any(
        folder.name.isdecimal() and (folder / "model.onnx").is_file() for folder in path.glob("[0-9]*")
    )


def kind_of(path: Path) -> Kind:
    """path: as models.store.resolve returns it. What cannot be read counts as text: its loader says why."""
    if is_predictive(path):
        return "predict"
    return "encode" if _architecture(path) in _ENCODERS else "generate"


def _architecture(path: Path) -> str:
    try:
        if path.is_dir():
            return str(json.loads((path / "config.json").read_text("utf-8")).get("model_type", ""))
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except (OSError, ValueError, AttributeError):
        return ""
    found = _ARCHITECTURE.search(head)  # without reading the tokens behind it, which takes 0.2 s
    return head[found.end() : found.end() + found[1][0]].decode("utf-8", "replace") if found else ""
