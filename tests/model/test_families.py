"""Tiny models of every family: `reference` against the logits of transformers (tests/oracle/make_families.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferd.executors.reference import ReferenceExecutor
from inferd.models.checkpoint import Checkpoint
from inferd.models.loader import load_checkpoint
from model.tiny_hf import token_ids, weight
from support.batches import batch

GOLDEN = Path(__file__).parent.parent / "golden"
DESCRIBED: dict[str, Any] = json.loads((GOLDEN / "families.json").read_text())
LOGITS = np.load(GOLDEN / "families.npz")
TOLERANCE = 1e-4
BLOCK = 16

save_file = pytest.importorskip("safetensors.numpy").save_file


def tensors_of(name: str) -> dict[str, np.ndarray]:
    offset = 0.0 if name.startswith("gemma") else 1.0
    shapes = DESCRIBED[name]["tensors"]
    return {key: weight(key, tuple(shape), norm_offset=offset) for key, shape in shapes.items()}


def write_directory(path: Path, config: dict[str, Any], tensors: dict[str, np.ndarray], num_shards: int = 1) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if num_shards == 1:
        save_file(tensors, path / "model.safetensors")
        return path
    files = [f"model-{i + 1:05}-of-{num_shards:05}.safetensors" for i in range(num_shards)]
    weight_map = {name: files[i % num_shards] for i, name in enumerate(tensors)}
    for file in files:
        save_file({name: tensors[name] for name in tensors if weight_map[name] == file}, path / file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path


def reference_logits(checkpoint: Checkpoint, chunk: int | None = None) -> np.ndarray:
    """(num_tokens, vocab)"""
    ids = token_ids(checkpoint.spec.vocab_size).tolist()
    blocks = range(-(-len(ids) // BLOCK))
    executor = ReferenceExecutor(checkpoint, num_blocks=len(blocks), block_size=BLOCK)
    chunk = chunk or len(ids)
    parts = [ids[begin : begin + chunk] for begin in range(0, len(ids), chunk)]
    steps = [batch([(part, i * chunk, blocks)], logit_rows=range(len(part))) for i, part in enumerate(parts)]
    return np.concatenate([executor.logits(step) for step in steps])


def check(name: str, checkpoint: Checkpoint, chunk: int | None = None) -> None:
    error = np.abs(reference_logits(checkpoint, chunk) - LOGITS[name]).max()
    assert error <= TOLERANCE, f"{name}: {error:.2g}"


@pytest.mark.parametrize("num_shards", [1, 3])
@pytest.mark.parametrize("name", DESCRIBED)
def test_directory_equals_transformers(name: str, num_shards: int, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(write_directory(tmp_path, DESCRIBED[name]["config"], tensors_of(name), num_shards))
    windows = [layer.window for layer in checkpoint.spec.layers if layer.window]
    assert all(len(LOGITS[name]) >= window + 100 for window in windows)  # 100 tokens and more beyond the window
    check(name, checkpoint, None if num_shards == 1 else 33)


def test_logits_are_large_enough_to_tell() -> None:
    for name in DESCRIBED:
        assert LOGITS[name].std() > 0.3, name
        assert (np.abs(np.diff(LOGITS[name], axis=0)).max(axis=1) > 0.01).all(), name
