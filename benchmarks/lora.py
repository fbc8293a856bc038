"""What adapters cost in a step: none, one for all sequences, a different one for each; in turn, on the same executor.

lora.py [--model smollm2] [--rank 16] [--batch 8] [--steps 60] [--rounds 5]

A decode step has one new token of each sequence after --context tokens, a prefill step 512 of one sequence. The
adapters change all seven linears of every layer; their values are random. Medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from common import report

from inferd.config import EngineConfig
from inferd.executors.base import StepBatch
from inferd.executors.native import NativeExecutor
from inferd.models.loader import load_checkpoint
from support.adapters import random_adapter
from support.batches import batch
from support.models import model_path

BLOCK, PREFILL = 32, 512


def executor_of(checkpoint: Any, arguments: argparse.Namespace) -> NativeExecutor:
    num_blocks = arguments.batch * (arguments.context // BLOCK + 1) + PREFILL // BLOCK
    return NativeExecutor(
        checkpoint, num_blocks=num_blocks, block_size=BLOCK, max_num_batched_tokens=PREFILL,
        max_num_seqs=arguments.batch, max_model_len=max(PREFILL, arguments.context + BLOCK),
        num_threads=EngineConfig().resolved_num_threads,
    )  # fmt: skip


def decode_step(arguments: argparse.Namespace, used: list[int]) -> StepBatch:
    per_seq = arguments.context // BLOCK + 1
    sequences = [([100 + i], arguments.context, range(i * per_seq, (i + 1) * per_seq)) for i in range(arguments.batch)]
    return batch(sequences, adapter_ids=used)


def prefill_step(used: list[int]) -> StepBatch:
    return batch([([100 + i % 900 for i in range(PREFILL)], 0, range(PREFILL // BLOCK))], adapter_ids=used)


def median_ms(executor: NativeExecutor, step: StepBatch, num_steps: int) -> float:
    times = []
    for _ in range(num_steps):
        begin = time.perf_counter()
        executor.step(step)
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    for name, default in (("rank", 16), ("batch", 8), ("context", 256), ("steps", 60), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--print-only", action="store_true")
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(model_path(arguments.model))
    executor = executor_of(checkpoint, arguments)
    adapters = [random_adapter(checkpoint.spec, arguments.rank, seed, scale=0.1) for seed in range(arguments.batch)]
    begin = time.perf_counter()
    ids = [executor.load_adapter(adapter) for adapter in adapters]
    load_ms = (time.perf_counter() - begin) / len(ids) * 1e3
    num_values = sum(weight.a.size + weight.b.size for weight in adapters[0].weights.values())
    steps = {
        "decode_none_ms": decode_step(arguments, [-1] * arguments.batch),
        "decode_one_adapter_ms": decode_step(arguments, [ids[0]] * arguments.batch),
        "decode_one_of_the_batch_ms": decode_step(arguments, [ids[0]] + [-1] * (arguments.batch - 1)),
        "decode_all_different_ms": decode_step(arguments, ids),
        "prefill_none_ms": prefill_step([-1]),
        "prefill_one_adapter_ms": prefill_step([ids[0]]),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            count = arguments.steps if name.startswith("decode") else max(3, arguments.steps // 20)
            times[name].append(median_ms(executor, step, count))
    figures: dict[str, Any] = {name: round(statistics.median(values), 3) for name, values in times.items()}
    figures |= {"adapter_mb": round(2 * num_values / 1e6, 1), "pack_ms": round(load_ms, 1)}
    options = {name: value for name, value in vars(arguments).items() if name != "print_only"}
    report("lora", options | figures, print_only=arguments.print_only)


if __name__ == "__main__":
    main()
