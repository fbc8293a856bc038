"""What the blocks of the KV cache hold, coarse enough to draw."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from inferd.engine.kv_cache import KVCache
from inferd.executors.base import I32

NUM_CELLS = 256
SAMPLE_SECONDS = 1.0  # a sample of 4,096 blocks costs 0.2 ms


class KVMap:
    """At most NUM_CELLS cells, each over an equal run of blocks."""

    def __init__(self, kv_cache: KVCache) -> None:
        self._kv_cache = kv_cache
        self._sampled_at = 0.0
        num_cells = min(NUM_CELLS, kv_cache.num_blocks)
        # the blocks of cell i: [starts[i], starts[i + 1])
        self._starts: I32 = (np.arange(num_cells) * kv_cache.num_blocks // num_cells).astype(np.int32)  # (num_cells,)
        self._sizes = np.diff(self._starts, append=kv_cache.num_blocks)  # (num_cells,)
        self._used = self._cached = self._nothing = bytes(num_cells)
        self._num_cached = 0

    def figures(self, *, is_idle: bool) -> dict[str, Any]:
        """Fields of EngineStats."""
        now = time.perf_counter()
        if now - self._sampled_at >= SAMPLE_SECONDS:
            self._sampled_at = now
            self._sample()
        return {
            "kv_used_map": self._nothing if is_idle else self._used,  # an idle engine takes no further sample
            "kv_cached_map": self._cached,
            "num_cached_blocks": self._num_cached,
        }

    def _sample(self) -> None:
        used, cached = self._kv_cache.block_states()
        self._used, self._cached = self._cells(used), self._cells(cached)
        self._num_cached = sum(cached)

    def _cells(self, states: list[bool]) -> bytes:
        """The share of True in each cell, 255 = all; a cell with any at all is not 0."""
        counts = np.add.reduceat(np.array(states, np.int32), self._starts)
        return np.ceil(255 * counts / self._sizes).astype(np.uint8).tobytes()
