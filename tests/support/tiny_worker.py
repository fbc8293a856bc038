"""A worker factory: the native engine on a tiny random llama with a byte-level tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from inferd.config import EngineConfig
from inferd.engine.engine import Engine
from inferd.executors.native import NativeExecutor
from inferd.tokenizer.tokenizer import Tokenizer
from support.tiny_engine import tiny_tokenizer
from support.tiny_models import tiny_checkpoint

MAX_MODEL_LEN = 256


@dataclass(frozen=True)
class Checkpoint:
    generation_defaults: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Loaded:
    engine: Engine
    tokenizer: Tokenizer
    chat_template: None = None
    checkpoint: Checkpoint = field(default_factory=Checkpoint)


def build(model: str, config: EngineConfig) -> Loaded:
    executor = NativeExecutor(
        tiny_checkpoint("llama"), num_blocks=64, block_size=16, max_num_batched_tokens=256, max_num_seqs=16,
        max_model_len=MAX_MODEL_LEN, num_threads=1,
    )  # fmt: skip
    return Loaded(Engine(executor, tiny_tokenizer(), config, MAX_MODEL_LEN), tiny_tokenizer())
