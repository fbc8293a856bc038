"""Configuration: frozen, checked once, "auto" (None) resolved once into a new object."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inferd.errors import ConfigError

ExecutorName = Literal["native", "reference"]


def home_dir() -> Path:
    """Where models and the ledger lie: $INFERD_HOME, else $XDG_DATA_HOME/inferd, else ~/.local/share/inferd."""
    home = os.environ.get("INFERD_HOME")
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) if home else Path(data) / "inferd"


def _require(ok: bool, option: str, value: object, allowed: str) -> None:
    if not ok:
        raise ConfigError(f"{option} must be {allowed}, got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Options of one engine. None means auto; `resolve` replaces every None."""

    max_model_len: int | None = None  # auto: the model's, at most what the KV cache holds
    max_num_seqs: int = 64
    max_num_batched_tokens: int | None = None  # token budget of a step; auto: 512
    kv_cache_memory: int | None = None  # bytes; auto: room for max_num_seqs typical requests within free memory
    block_size: int = 32  # tokens; a multiple of 16
    enable_prefix_caching: bool = True
    kv_cache_dtype: Literal["auto", "bf16", "int8"] = "auto"  # auto: bf16; int8 takes about half the memory
    executor: ExecutorName = "native"
    encoder_dtype: Literal["auto", "f32", "bf16", "q8_0"] = "auto"  # of the products of encoders; auto: bf16
    num_threads: int | None = None  # auto: the cores this process may use
    seed: int = 0  # for requests without a seed of their own
    speculative: Literal["off", "ngram"] = "ngram"  # changes speed only: outputs are the same
    itl_target: float | None = None  # seconds between tokens that prefill beside decodes must leave room for
    max_queue_len: int = 1024  # waiting requests; more are refused

    def __post_init__(self) -> None:
        length = self.max_model_len
        _require(length is None or length >= 1, "max_model_len", length, "at least 1")
        _require(1 <= self.max_num_seqs <= 4096, "max_num_seqs", self.max_num_seqs, "from 1 to 4096")
        budget = self.max_num_batched_tokens
        _require(budget is None or 1 <= budget <= 65536, "max_num_batched_tokens", budget, "from 1 to 65536")
        memory = self.kv_cache_memory
        _require(memory is None or memory > 0, "kv_cache_memory", memory, "above 0 bytes")
        ok = self.block_size % 16 == 0 and 16 <= self.block_size <= 256
        _require(ok, "block_size", self.block_size, "a multiple of 16 from 16 to 256")
        dtype = self.kv_cache_dtype
        _require(dtype in ("auto", "bf16", "int8"), "kv_cache_dtype", dtype, '"auto", "bf16" or "int8"')
        _require(self.executor in ("native", "reference"), "executor", self.executor, '"native" or "reference"')
        kinds = ("auto", "f32", "bf16", "q8_0")
        ok = self.encoder_dtype in kinds
        _require(ok, "encoder_dtype", self.encoder_dtype, '"auto", "f32", "bf16" or "q8_0"')
        ok = dtype != "int8" or self.executor == "native"
        _require(ok, "kv_cache_dtype", dtype, '"auto" or "bf16" with executor "reference"')
        threads = self.num_threads
        _require(threads is None or 1 <= threads <= 256, "num_threads", threads, "from 1 to 256")
        kind = self.speculative
        _require(kind in ("off", "ngram"), "speculative", kind, '"off" or "ngram"')
        target = self.itl_target
        _require(target is None or 0 < target <= 60, "itl_target", target, "above 0 and at most 60 seconds")
        _require(self.max_queue_len >= 1, "max_queue_len", self.max_queue_len, "at least 1")

    @property
    def resolved_num_threads(self) -> int:
        return self.num_threads or len(os.sched_getaffinity(0))

    @property
    def resolved_kv_cache_dtype(self) -> Literal["bf16", "int8"]:
        return "bf16" if self.kv_cache_dtype == "auto" else self.kv_cache_dtype

    @property
    def resolved_token_budget(self) -> int:
        """At least one token per sequence, so that decode never starves."""
        return max(self.max_num_batched_tokens or 512, self.max_num_seqs)
