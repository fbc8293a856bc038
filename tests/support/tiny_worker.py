"""A worker factory: the native engine on a tiny random llama with a byte-level tokenizer."""

from __future__ import annotations

from inferd.config import EngineConfig
from inferd.engine.build import LoadedEngine
from inferd.engine.engine import Engine
from inferd.executors.native import NativeExecutor
from support.tiny_engine import tiny_tokenizer
from support.tiny_models import tiny_checkpoint

MAX_MODEL_LEN = 256


def build(model: str, config: EngineConfig) -> LoadedEngine:
    checkpoint, tokenizer = tiny_checkpoint("llama"), tiny_tokenizer()
    executor = NativeExecutor(
        checkpoint, num_blocks=64, block_size=16, max_num_batched_tokens=256, max_num_seqs=16,
        max_model_len=MAX_MODEL_LEN, num_threads=1,
    )  # fmt: skip
    return LoadedEngine(Engine(executor, tokenizer, config, MAX_MODEL_LEN), tokenizer, None, checkpoint)
