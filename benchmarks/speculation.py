"""N-gram speculation on and off, in turn: a set of code edits, where it should pay, and a set of chat, where it must
not cost. speculation.py [--model qwen2.5-coder:1.5b] [--max-tokens 256] [--rounds 2]

Greedy, one request at a time; the outputs of both are compared byte for byte.
"""

from __future__ import annotations

import argparse
import inspect
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from common import report

from inferd import LLM, SamplingParams
from inferd.engine import clock, kv_cache, scheduler
from inferd.models import store
from inferd.tokenizer import stop_strings
from support.models import model_path

EDITS = [
    ("Rename the parameter `tokens` to `token_ids` everywhere.", kv_cache.KVCache.match_prefix),
    ("Add a docstring to the method that has none. Change nothing else.", stop_strings.StopStringMatcher),
    ("Rename `below` to `lower` and `above` to `upper`.", clock.StepClock.decode_seconds),
    ("Replace `victim` by `loser`. Change nothing else.", scheduler.Scheduler._grow),
    ("Add type hints where they are missing and keep the rest.", store.list_models),
]
CHAT = [
    "Explain how a hash table works to a beginner.",
    "Write a short story about a lighthouse keeper who finds a letter.",
    "What are the pros and cons of working from home?",
    "Give me a plan for a week of vegetarian dinners.",
    "How does a bicycle stay upright while moving?",
]


def conversations(kind: str) -> list[list[dict[str, str]]]:
    if kind == "chat":
        return [[{"role": "user", "content": text}] for text in CHAT]
    texts = [f"{what} Answer with the whole code.\n```python\n{inspect.getsource(code)}```" for what, code in EDITS]
    return [[{"role": "user", "content": text}] for text in texts]


def generate(llm: LLM, kind: str, max_tokens: int) -> tuple[float, list[list[int]]]:
    """(decode seconds, from the first token to the last; token ids)"""
    total, outputs = 0.0, []
    for conversation in conversations(kind):
        ids, begin, last = [], 0.0, 0.0
        prompt = {"prompt_token_ids": llm.render_chat(conversation)}
        for event in llm.stream(prompt, SamplingParams(temperature=0, max_tokens=max_tokens)):
            last = time.perf_counter()
            begin = begin or last
            ids += event.token_ids
        total += last - begin
        outputs.append(ids)
    return total, outputs


def measure(model: str, max_tokens: int, rounds: int) -> dict[str, Any]:
    engines = {mode: LLM(model, speculative=mode, max_model_len=4096) for mode in ("off", "ngram")}
    figures: dict[str, Any] = {}
    for kind in ("edit", "chat"):
        ratios, speeds = [], {"off": [], "ngram": []}
        for _ in range(rounds):
            times, outputs = {}, {}
            for mode, llm in engines.items():
                times[mode], outputs[mode] = generate(llm, kind, max_tokens)
                speeds[mode].append(sum(map(len, outputs[mode])) / times[mode])
            if outputs["off"] != outputs["ngram"]:
                raise SystemExit(f"{kind}: outputs differ")
            ratios.append(times["off"] / times["ngram"])
        figures[kind] = {
            "off_tok_s": round(statistics.median(speeds["off"]), 1),
            "ngram_tok_s": round(statistics.median(speeds["ngram"]), 1),
            "speed_up": round(statistics.median(ratios), 3),
        }
    stats = engines["ngram"].loaded.engine.stats()
    return figures | {"drafted": stats.num_drafted_tokens, "accepted": stats.num_accepted_tokens}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="qwen2.5-coder:1.5b")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    report("speculation", {args.model: measure(str(model_path(args.model)), args.max_tokens, args.rounds)})


if __name__ == "__main__":
    main()
