"""Speed and memory of one model, in a process of its own, so that nothing before it counts:
`python -m inferd.eval.speed MODEL [NUM_THREADS]` prints one JSON object."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inferd.errors import EngineError
from inferd.llm import LLM, TokensPrompt
from inferd.types import SamplingParams

_ROUNDS = 3  # the best counts
_PROMPT, _SHORT_PROMPT, _OUTPUT = 512, 64, 64  # tokens
BATCHES = (1, 8)


def measure_speed(model: str, num_threads: int | None = None) -> dict[str, Any]:
    """prefill_tok_s, decode_1_tok_s, decode_8_tok_s: tokens per second; resident_bytes: of the process afterwards."""
    command = [sys.executable, "-m", "inferd.eval.speed", model, *([str(num_threads)] if num_threads else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise EngineError(f"measuring {model} ended with {done.returncode}: {last[0]}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def measure_here(model: str, num_threads: int | None) -> dict[str, Any]:
    llm = LLM(
        model, max_num_seqs=max(BATCHES), max_model_len=1024, num_threads=num_threads,
        enable_prefix_caching=False, speculative="off",
    )  # fmt: skip
    draw, vocab_size = random.Random(0), llm.loaded.tokenizer.num_tokens

    def prompts(num: int, size: int) -> list[TokensPrompt]:
        return [TokensPrompt(prompt_token_ids=[draw.randrange(vocab_size) for _ in range(size)]) for _ in range(num)]

    figures: dict[str, Any] = {"num_weight_bytes": llm.loaded.checkpoint.num_weight_bytes}
    _seconds(llm, prompts(1, _SHORT_PROMPT), 1)
    figures["prefill_tok_s"] = round(max(_PROMPT / _seconds(llm, prompts(1, _PROMPT), 1) for _ in range(_ROUNDS)), 1)
    for batch in BATCHES:
        several = prompts(batch, _SHORT_PROMPT)
        speeds = []
        for _ in range(_ROUNDS):
            first = _seconds(llm, several, 1)
            speeds.append(batch * _OUTPUT / (_seconds(llm, several, 1 + _OUTPUT) - first))
        figures[f"decode_{batch}_tok_s"] = round(max(speeds), 1)
    figures["resident_bytes"] = resident_bytes()
    llm.close()
    return figures


def resident_bytes() -> int:
    """Of this process, now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024


def _seconds(llm: LLM, prompts: Sequence[TokensPrompt], num_tokens: int) -> float:
    sampling = SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True)
    begin = time.perf_counter()
    llm.generate(prompts, sampling, use_tqdm=False)
    return time.perf_counter() - begin


if __name__ == "__main__":
    print(json.dumps(measure_here(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None)))
