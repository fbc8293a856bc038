"""The real engine over an executor that sleeps instead of computing: times are known, and the processor stays free."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from inferd.config import EngineConfig
from inferd.engine.engine import Engine
from inferd.executors.base import StepBatch, StepResult
from inferd.models.checkpoint import Checkpoint
from inferd.tokenizer.tokenizer import Tokenizer
from support.tiny_engine import tiny_tokenizer
from support.tiny_models import tiny_checkpoint

STEP_SECONDS = 0.002
MAX_MODEL_LEN = 256


@dataclass
class Sleeper:
    """Answers every row with the same token."""

    num_blocks: int = 64
    block_size: int = 16
    max_num_batched_tokens: int = 64
    step_seconds: float = STEP_SECONDS
    spec = tiny_checkpoint("llama").spec

    def step(self, batch: StepBatch) -> StepResult:
        time.sleep(self.step_seconds)
        rows = len(batch.logit_rows)
        ids, floats = np.full(rows, 65, np.int32), np.zeros(rows, np.float32)
        return StepResult(
            token_ids=ids, logprobs=floats, ranks=ids, top_ids=ids[:, None][:, :0], top_logprobs=floats[:, None][:, :0]
        )

    def close(self) -> None: ...


@dataclass(frozen=True)
class Loaded:
    engine: Engine
    tokenizer: Tokenizer
    chat_template: None = None
    checkpoint: Checkpoint = field(default_factory=lambda: tiny_checkpoint("llama"))


def build(model: str, config: EngineConfig) -> Loaded:
    """A worker factory."""
    tokenizer = tiny_tokenizer()
    return Loaded(Engine(Sleeper(), tokenizer, config, MAX_MODEL_LEN), tokenizer)
