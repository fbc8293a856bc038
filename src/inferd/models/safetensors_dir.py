"""Reader of model directories: config.json and safetensors, single or sharded. Mapped; checked before use."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inferd.errors import MalformedFileError, ModelNotFoundError, UnsupportedModelError
from inferd.quantization.types import TensorType, Weight

MAX_HEADER = 100_000_000
MAX_JSON = 64 << 20
_DTYPES = {"F32": (TensorType.F32, 4), "F16": (TensorType.F16, 2), "BF16": (TensorType.BF16, 2)}
_OTHER_DTYPES = {"F64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
                 "F8_E4M3": 1, "F8_E5M2": 1}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    path: Path
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any]
    tensors: Mapping[str, Weight]


def read_model_directory(path: Path) -> ModelDirectory:
    """Raises ModelNotFoundError without config.json or weights, ModelLoadError for what is wrong in them."""
    config = read_json(path / "config.json")
    generation = path / "generation_config.json"
    tensors: dict[str, Weight] = {}
    for shard in _shards(path):
        for name, weight in read_safetensors(shard).items():
            if name in tensors:
                raise MalformedFileError(f"{shard.name}: tensor {name} is in another shard too")
            tensors[name] = weight
    return ModelDirectory(path, config, read_json(generation) if generation.exists() else {}, tensors)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the model directory."""
    value = read_json_value(path)
    if not isinstance(value, dict):
        raise MalformedFileError(f"{path.name} must hold an object")
    return value


def read_json_value(path: Path) -> Any:
    """Any JSON value from a file of the model directory."""
    try:
        if path.stat().st_size > MAX_JSON:
            raise MalformedFileError(f"{path.name} is over {MAX_JSON} bytes")
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelNotFoundError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise MalformedFileError(f"{path.name} is not valid JSON") from None


def _shards(path: Path) -> list[Path]:
    index = path / "model.safetensors.index.json"
    if not index.exists():
        return [inside(path, "model.safetensors")]
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise MalformedFileError(f"{index.name}: weight_map must map tensor names to file names")
    shards = []
    for name in sorted(set(weight_map.values())):
        plain = name == Path(name).name and name not in ("", ".", "..") and "\\" not in name and "\0" not in name
        if not plain:
            raise MalformedFileError(f"{index.name}: shard name {name[:80]!r} leaves the directory")
        shards.append(inside(path, name))
    return shards


def inside(path: Path, name: str) -> Path:
    """Where a file of a directory is: in it, or two levels up, where the download cache of Hugging Face links to."""
    root = path.resolve()
    try:
        target = (root / name).resolve()
    except (OSError, RuntimeError):
        raise MalformedFileError(f"{name} is a broken link") from None
    if target.parent not in (root, root.parent.parent / "blobs"):
        raise MalformedFileError(f"{name} is a link that leaves the directory")
    return target


def read_safetensors(path: Path) -> dict[str, Weight]:
    """The tensors of one file. Raises ModelNotFoundError or ModelLoadError."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            if size < 8:
                raise MalformedFileError(f"{path.name}: shorter than its header")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelNotFoundError(f"{path}: {error.strerror}") from None
    return parse_safetensors(mapped, path.name)


def parse_safetensors(buffer: bytes | mmap.mmap, file_name: str) -> dict[str, Weight]:
    """The tensors of one file in memory, as views of it."""
    view = memoryview(buffer)
    if len(view) < 8:
        raise MalformedFileError(f"{file_name}: shorter than its header")
    length = int.from_bytes(view[:8], "little")
    if length > min(MAX_HEADER, len(view) - 8):
        raise MalformedFileError(f"{file_name}: header of {length} bytes does not fit")
    entries = _parse_header(bytes(view[8 : 8 + length]), file_name)
    start, end = 8 + length, 0
    tensors = {}
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != end:
            raise MalformedFileError(f"{file_name}: tensor {name} leaves a gap or overlaps another")
        end = entry.end
        if start + end > len(view):
            raise MalformedFileError(f"{file_name}: tensor {name} ends beyond the file")
        if entry.kind is None and name.endswith("position_ids"):  # 0, 1, 2, ...: a buffer of BERT checkpoints
            continue
        if entry.kind is None:
            supported = ", ".join(_DTYPES)
            raise UnsupportedModelError(f"{file_name}: tensor {name} has an unsupported type (supported: {supported})")
        flat = np.frombuffer(view, np.uint8, entry.end - entry.begin, start + entry.begin)
        data = flat.reshape(entry.num_rows, -1)
        tensors[name] = Weight(name, entry.kind, entry.num_rows, entry.num_cols, data)
    if start + end != len(view):
        raise MalformedFileError(f"{file_name}: {len(view) - start - end} bytes after the last tensor")
    return tensors


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: TensorType | None
    num_rows: int
    num_cols: int
    begin: int
    end: int


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate key")
    return result


def _integer(digits: str) -> int:
    if digits.startswith("-"):
        raise ValueError("negative number")
    return int(digits)


def _parse_header(text: bytes, file_name: str) -> dict[str, _Entry]:
    if not text.startswith(b"{"):
        raise MalformedFileError(f"{file_name}: the header must start with '{{'")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_int=_integer)
    except (ValueError, RecursionError):
        raise MalformedFileError(f"{file_name}: the header is not valid JSON with unique keys") from None
    if any("\ud800" <= letter <= "\udfff" for name in header for letter in name):
        raise MalformedFileError(f"{file_name}: a tensor name is not valid Unicode")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise MalformedFileError(f"{file_name}: __metadata__ must map strings to strings")
    return {name: _parse_entry(name, entry, file_name) for name, entry in header.items()}


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _parse_entry(name: str, entry: Any, file_name: str) -> _Entry:
    def wrong(what: str) -> MalformedFileError:
        return MalformedFileError(f"{file_name}: tensor {name[:200]}: {what}")

    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise wrong("must have dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or not all(_is_size(dim) for dim in shape):
        raise wrong("bad shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(offset) for offset in offsets):
        raise wrong("bad data_offsets")
    if not isinstance(dtype, str) or (dtype not in _DTYPES and dtype not in _OTHER_DTYPES):
        raise wrong(f"unknown dtype {str(dtype)[:40]!r}")
    kind, size = _DTYPES[dtype] if dtype in _DTYPES else (None, _OTHER_DTYPES[dtype])
    num_values = 1
    for dim in shape:
        num_values *= dim
    if num_values == 0 or num_values >= 2**60:
        raise wrong(f"shape {shape} has no values or too many")
    if offsets[1] - offsets[0] != num_values * size:
        raise wrong(f"{offsets[1] - offsets[0]} bytes for {num_values} values of {dtype}")
    num_cols = shape[-1] if shape else 1
    return _Entry(kind, num_values // num_cols, num_cols, offsets[0], offsets[1])
