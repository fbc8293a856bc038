"""StepBatch by hand: for tests that drive an executor without the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from inferd.executors.base import SamplingBatch, StepBatch

_SAMPLING_DEFAULTS: dict[str, tuple[Any, float]] = {
    "temperature": (np.float32, 0),
    "top_k": (np.int32, 0),
    "top_p": (np.float32, 1),
    "min_p": (np.float32, 0),
    "typical_p": (np.float32, 1),
    "seed": (np.uint64, 0),
    "draw_index": (np.int64, 0),
    "repetition_penalty": (np.float32, 1),
    "frequency_penalty": (np.float32, 0),
    "presence_penalty": (np.float32, 0),
    "target": (np.int32, -1),
    "num_logprobs": (np.int32, -1),
}


def sampling(
    num_rows: int,
    *,
    bias: Sequence[dict[int, float]] | None = None,
    penalties: Sequence[dict[int, int]] | None = None,
    masks: Sequence[Sequence[int] | None] | None = None,
    vocab_size: int = 32,
    **values: Any,
) -> SamplingBatch:
    """Greedy unless told otherwise; a value may be one number or one per row."""
    arrays: dict[str, Any] = {}
    for name, (dtype, default) in _SAMPLING_DEFAULTS.items():
        arrays[name] = np.ascontiguousarray(np.broadcast_to(np.asarray(values.pop(name, default), dtype), (num_rows,)))
    if values:
        raise TypeError(f"unknown sampling fields {sorted(values)}")
    arrays |= _rows("penalty", penalties or [{}] * num_rows, "counts", np.int32)
    arrays |= _rows("bias", bias or [{}] * num_rows, "values", np.float32)
    words = (vocab_size + 31) // 32
    allowed, index = [], []
    for mask in masks or [None] * num_rows:
        index.append(-1 if mask is None else len(allowed))
        if mask is not None:
            bits = np.zeros(words * 32, np.uint8)
            bits[list(mask)] = 1
            allowed.append(np.packbits(bits, bitorder="little").view(np.uint32))
    arrays["mask_index"] = np.array(index, np.int32)
    arrays["allowed_masks"] = np.array(allowed, np.uint32).reshape(len(allowed), words)
    return SamplingBatch(**arrays)


def _rows(prefix: str, rows: Sequence[dict[int, Any]], column: str, dtype: Any) -> dict[str, Any]:
    starts = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int32)
    ids = np.array([key for row in rows for key in row], np.int32)
    values = np.array([value for row in rows for value in row.values()], dtype)
    return {f"{prefix}_starts": starts, f"{prefix}_ids": ids, f"{prefix}_{column}": values}


def batch(
    sequences: Sequence[tuple[Sequence[int], int, Sequence[int]]],
    *,
    logit_rows: Sequence[int] | None = None,
    copies: Sequence[tuple[int, int]] = (),
    adapter_ids: Sequence[int] | None = None,
    **sampling_values: Any,
) -> StepBatch:
    """sequences: (new token ids, context length, block table). Logits of each sequence's last row unless told."""
    starts = np.cumsum([0, *(len(tokens) for tokens, _, _ in sequences)]).astype(np.int32)
    widest = max(len(table) for _, _, table in sequences)
    tables = np.zeros((len(sequences), widest), np.int32)
    for i, (_, _, table) in enumerate(sequences):
        tables[i, : len(table)] = table
    rows = np.array(logit_rows if logit_rows is not None else starts[1:] - 1, np.int32)
    return StepBatch(
        token_ids=np.array([token for tokens, _, _ in sequences for token in tokens], np.int32),
        query_starts=starts,
        context_lens=np.array([context for _, context, _ in sequences], np.int32),
        adapter_ids=np.full(len(sequences), -1, np.int32) if adapter_ids is None else np.array(adapter_ids, np.int32),
        block_tables=tables,
        block_copies=np.array(copies, np.int32).reshape(-1, 2),
        logit_rows=rows,
        sampling=sampling(len(rows), **sampling_values),
    )
