"""How many KV blocks fit: the machine's free memory, the model's bytes per token, and what was asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from inferd.config import EngineConfig
from inferd.errors import ConfigError
from inferd.models.spec import DecoderSpec

_TYPICAL_TOKENS = 2048  # room that "auto" gives each of max_num_seqs sequences
_SHARE_OF_FREE_MEMORY = 0.5
_MAX_AUTO_BYTES = 4 * 2**30
_SCALE_BYTES = 4  # of the int8 cache: one for K and one for V of each token and head


def kv_bytes_per_token(spec: DecoderSpec, dtype: Literal["bf16", "int8"] = "bf16") -> int:
    """K and V of every layer, with their scales."""
    head_bytes = 2 * spec.head_dim if dtype == "bf16" else spec.head_dim + _SCALE_BYTES
    return 2 * spec.num_layers * spec.num_kv_heads * head_bytes


def available_memory() -> int:
    """Bytes this process may still take: the kernel's estimate, and the control group's limit where there is one."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    if limit.isdigit() and used.isdigit():
        free = min(free, max(0, int(limit) - int(used)))
    return free


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def size_kv_cache(spec: DecoderSpec, config: EngineConfig) -> tuple[int, int]:
    """(number of blocks, max_model_len). Raises ConfigError when what was asked for cannot hold one sequence."""
    block_bytes = kv_bytes_per_token(spec, config.resolved_kv_cache_dtype) * config.block_size
    limit = config.max_model_len or spec.max_position
    wanted_blocks = -(-limit // config.block_size)
    if config.kv_cache_memory is not None:
        num_blocks = config.kv_cache_memory // block_bytes
    else:
        typical = config.max_num_seqs * -(-min(limit, _TYPICAL_TOKENS) // config.block_size)
        budget = min(int(available_memory() * _SHARE_OF_FREE_MEMORY), _MAX_AUTO_BYTES)
        num_blocks = min(max(typical, wanted_blocks), budget // block_bytes)
    if config.max_model_len is not None and num_blocks < wanted_blocks:
        raise ConfigError(
            f"max_model_len must be at most {num_blocks * config.block_size} with {num_blocks * block_bytes} bytes of "
            f"KV cache (kv_cache_memory), got {config.max_model_len}"
        )
    if num_blocks < 2:
        raise ConfigError(f"kv_cache_memory must be at least {2 * block_bytes} bytes (two blocks) for this model")
    return num_blocks, min(limit, num_blocks * config.block_size)
