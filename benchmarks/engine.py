"""The engine alone, one process: prefill, decode at several batch sizes, prefix reuse; with shares of the machine's
limits. engine.py [--models smollm2,gemma3:270m,qwen2.5-coder:1.5b] [--batches 1,8,16,32] [--repeat 3]

Prefill: one prompt of 512 random tokens, one token out. Decode: B prompts of 64 random tokens, 33 tokens out less the
time of 1. No prefix cache, no speculation, end-of-sequence ignored; the best of the repeats, as the peers are measured.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from common import MODELS, report, weight_bytes
from limits import limits

from inferd import LLM, SamplingParams
from support.models import model_path


def prompts(rng: random.Random, count: int, length: int, vocab: int) -> list[Any]:
    return [{"prompt_token_ids": [rng.randrange(100, vocab - 100) for _ in range(length)]} for _ in range(count)]


def seconds(llm: LLM, batch: list[Any], max_tokens: int) -> float:
    params = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)
    begin = time.perf_counter()
    llm.generate(batch, params, use_tqdm=False)
    return time.perf_counter() - begin


def measure(name: str, batches: list[int], repeat: int, most: dict[str, float]) -> dict[str, Any]:
    begin = time.perf_counter()
    options = {"max_num_batched_tokens": 2048, "max_model_len": 2048}
    llm = LLM(str(model_path(name)), enable_prefix_caching=False, speculative="off", **options)
    figures: dict[str, Any] = {"load_s": round(time.perf_counter() - begin, 2)}
    spec, rng = llm.loaded.checkpoint.spec, random.Random(0)
    vocab = llm.loaded.tokenizer.num_tokens
    seconds(llm, prompts(rng, 1, 64, vocab), 8)
    best = min(seconds(llm, prompts(rng, 1, 512, vocab), 1) for _ in range(repeat + 2))
    head = spec.vocab_size * spec.hidden_size
    body = spec.num_parameters - head * (1 if spec.tied_head else 2)
    figures["prefill_512_tok_s"] = round(512 / best, 1)
    figures["prefill_share_of_int8_peak"] = round(2 * (512 * body + head) / best / most["int8_tops"] / 1e12, 3)
    for size in batches:
        batch = prompts(rng, size, 64, vocab)
        step = min(seconds(llm, batch, 33) - seconds(llm, batch, 1) for _ in range(repeat)) / 32
        figures[f"decode_{size}_tok_s"] = round(size / step, 1)
        if size == 1:
            rate = weight_bytes(llm.loaded.checkpoint) / step / 1e9
            figures["decode_1_share_of_read_bandwidth"] = round(rate / most["read_gb_s"], 3)
    if {1, 16} <= set(batches):
        figures["16_over_1"] = round(figures["decode_16_tok_s"] / figures["decode_1_tok_s"], 2)
    llm.close()
    return figures | prefix_reuse(name)


def prefix_reuse(name: str) -> dict[str, Any]:
    """Time to the first token of a 1,000-token prompt with 20 tokens of its own: first, and with its prefix cached."""
    llm = LLM(str(model_path(name)), speculative="off", max_model_len=2048)
    rng, vocab = random.Random(1), llm.loaded.tokenizer.num_tokens
    seconds(llm, prompts(rng, 1, 64, vocab), 2)
    ratios = []
    for _ in range(3):
        shared = prompts(rng, 1, 1000, vocab)[0]["prompt_token_ids"]
        first, second = (
            seconds(llm, [{"prompt_token_ids": shared + prompts(rng, 1, 20, vocab)[0]["prompt_token_ids"]}], 1)
            for _ in range(2)
        )
        ratios.append((second / first, first, second))
    llm.close()
    ratio, first, second = sorted(ratios)[1]
    return {
        "shared_prefix_first_ms": round(first * 1000, 1),
        "shared_prefix_second_ms": round(second * 1000, 1),
        "shared_prefix_second_over_first": round(ratio, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--batches", default="1,8,16,32")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--print-only", action="store_true", help="leave benchmarks/results as it is")
    args = parser.parse_args()
    most = limits()
    batches = [int(size) for size in args.batches.split(",")]
    models = {name: measure(name, batches, args.repeat, most) for name in args.models.split(",")}
    report("engine", {"limits": most, "models": models}, print_only=args.print_only)


if __name__ == "__main__":
    main()
