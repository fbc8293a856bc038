"""Long contexts, the executor alone: decode behind 8,000 tokens, 16 sequences that share a prefix of 2,000, and a
prefill of 8,000. longcontext.py [--models smollm2,gemma3:270m,qwen2.5-coder:1.5b] [--dtypes bf16,int8] [--print-only]

Decode reads all weights and all keys and values within the windows: bytes over time, as a share of the read bandwidth
measured in the same run. The share of attention in the prefill is by difference: what the pieces of a prefill take more
than the first, whose context is empty.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from common import MODELS, report, weight_bytes
from limits import limits

from inferd.engine.memory import kv_bytes_per_token
from inferd.executors.base import StepBatch
from inferd.executors.native import NativeExecutor
from inferd.models.checkpoint import Checkpoint
from inferd.models.loader import load_checkpoint
from support.batches import batch
from support.models import model_path

BLOCK, PIECE, LONG, SHARED, NUM_SHARING, OWN = 32, 512, 8192, 2048, 16, 96


class Run:
    """One executor with a prompt of `length` random tokens in its first blocks."""

    def __init__(self, checkpoint: Checkpoint, dtype: str) -> None:
        self.vocab, self.rng = checkpoint.spec.vocab_size, random.Random(0)
        blocks = (LONG + OWN + NUM_SHARING * OWN) // BLOCK
        limits = {"max_num_batched_tokens": PIECE, "max_num_seqs": NUM_SHARING, "max_model_len": LONG + OWN}
        sizes = {"num_blocks": blocks, "block_size": BLOCK, "num_threads": 2}
        self.executor = NativeExecutor(checkpoint, **sizes, **limits, kv_cache_dtype=dtype)

    def tokens(self, count: int) -> list[int]:
        return [self.rng.randrange(100, self.vocab - 100) for _ in range(count)]

    def seconds(self, step: StepBatch) -> float:
        begin = time.perf_counter()
        self.executor.step(step)
        return time.perf_counter() - begin

    def prefill(self) -> list[float]:
        """Seconds of each piece of the long prompt."""
        table = range((LONG + OWN) // BLOCK)
        return [self.seconds(batch([(self.tokens(PIECE), done, table)])) for done in range(0, LONG, PIECE)]

    def decode(self, context: int, num_seqs: int, steps: int) -> float:
        """Median seconds of a step of sequences that share their first `context` tokens."""
        shared, own = list(range(context // BLOCK)), OWN // BLOCK
        first = (LONG + OWN) // BLOCK if num_seqs > 1 else context // BLOCK
        tables = [shared + list(range(first + i * own, first + (i + 1) * own)) for i in range(num_seqs)]
        times = []
        for i in range(steps):
            sequences = [(self.tokens(1), context + i, table) for table in tables]
            times.append(self.seconds(batch(sequences)))
        return statistics.median(times)


def kv_bytes(checkpoint: Checkpoint, dtype: str, context: int) -> int:
    """Keys and values that one sequence's decode step behind `context` tokens must read."""
    spec = checkpoint.spec
    per_layer = kv_bytes_per_token(spec, dtype) // spec.num_layers  # type: ignore[arg-type]
    return sum(per_layer * (min(context, layer.window) if layer.window else context) for layer in spec.layers)


def measure(name: str, dtype: str, most: dict[str, float], steps: int) -> dict[str, Any]:
    checkpoint = load_checkpoint(model_path(name))
    run = Run(checkpoint, dtype)
    pieces = run.prefill()
    alone, shared = run.decode(LONG, 1, steps), run.decode(SHARED, NUM_SHARING, steps)
    short = run.decode(0, 1, steps)
    run.executor.close()
    bytes_read = weight_bytes(checkpoint) + kv_bytes(checkpoint, dtype, LONG)
    return {
        "prefill_8k_tok_s": round(LONG / sum(pieces), 1),
        "prefill_8k_share_of_attention": round(1 - min(pieces) * len(pieces) / sum(pieces), 3),
        "decode_8k_tok_s": round(1 / alone, 1),
        "decode_8k_mb": round(bytes_read / 1e6, 1),
        "decode_8k_share_of_read_bandwidth": round(bytes_read / alone / 1e9 / most["read_gb_s"], 3),
        "decode_0_tok_s": round(1 / short, 1),
        "decode_16_shared_2k_tok_s": round(NUM_SHARING / shared, 1),
        "decode_16_shared_2k_mb_if_read_apart": round(NUM_SHARING * kv_bytes(checkpoint, dtype, SHARED) / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--dtypes", default="bf16,int8")
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--print-only", action="store_true", help="leave benchmarks/results as it is")
    args = parser.parse_args()
    most = limits()
    models = {
        name: {dtype: measure(name, dtype, most, args.steps) for dtype in args.dtypes.split(",")}
        for name in args.models.split(",")
    }
    report("longcontext", {"limits": most, "models": models}, print_only=args.print_only)


if __name__ == "__main__":
    main()
