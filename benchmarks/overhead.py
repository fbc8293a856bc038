"""Python's share of an engine step: the engine over an executor that computes nothing. overhead.py"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from common import report

from inferd.config import EngineConfig
from inferd.engine.engine import Engine
from inferd.executors.base import StepBatch, StepResult
from inferd.types import GenerateRequest, SamplingParams
from support.tiny_engine import tiny_tokenizer
from support.tiny_models import tiny_checkpoint


class Null:
    """Answers every row with the same token at once."""

    spec = tiny_checkpoint("llama").spec
    num_blocks, block_size, max_num_batched_tokens = 4096, 32, 8192

    def step(self, batch: StepBatch) -> StepResult:
        rows = len(batch.logit_rows)
        ids, floats = np.full(rows, 65, np.int32), np.zeros(rows, np.float32)
        return StepResult(
            token_ids=ids, logprobs=floats, ranks=ids, top_ids=ids[:, None][:, :0], top_logprobs=floats[:, None][:, :0]
        )

    def close(self) -> None: ...


def microseconds_per_step(batch_size: int, num_steps: int = 400, **sampling: object) -> float:
    """Median over steps in which every sequence decodes one token."""
    engine = Engine(Null(), tiny_tokenizer(), EngineConfig(max_num_seqs=64, speculative="off"), 2048)
    for i in range(batch_size):
        params = SamplingParams(max_tokens=num_steps + 10, ignore_eos=True, **sampling)  # type: ignore[arg-type]
        engine.add(GenerateRequest(request_id=str(i), prompt_token_ids=tuple(range(64)), sampling=params))
    for _ in range(5):
        engine.step()
    times = []
    for _ in range(num_steps):
        begin = time.perf_counter()
        engine.step()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e6


def main() -> None:
    one, many = microseconds_per_step(1), microseconds_per_step(64)
    figures = {
        "python_us_per_step_batch_1": round(one, 1),
        "python_us_per_step_batch_64": round(many, 1),
        "python_us_per_sequence_and_step_batch_64": round(many / 64, 2),
        "python_us_per_sequence_and_step_batch_64_with_penalties": round(
            microseconds_per_step(64, repetition_penalty=1.1) / 64, 2
        ),
    }
    report("overhead", figures)


if __name__ == "__main__":
    main()
