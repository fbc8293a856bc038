"""Greedy continuations by transformers, fp32 on the dequantized weights, batch 1 with a KV cache.

    python tests/oracle/make_greedy.py MODEL_FOLDER [ALIAS ...]      (transformers 5.24; minutes for 1.5B)

Writes tests/golden/greedy-<model>.npz: prompt ids, the 64 ids that follow, and at each the gap between the two best
logits, so that a difference can be told from a tie.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from hf_models import load_model

GOLDEN = Path(__file__).parent.parent / "golden"
NUM_NEW = 64
MODELS = {
    "smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "gemma3-270m": "gemma-3-270m-q4_k_m.gguf",
    "qwen2.5-coder-1.5b": "qwen2.5-coder-1.5b.gguf",
}
_LONG = " ".join(
    f"On day {i} the ship sailed {i * 7 % 31} miles and the crew saw {i * 5 % 13} whales." for i in range(30)
)
PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def quicksort(items):\n    ",
    "import numpy as np\n\nclass Matrix:\n    def __init__(self, rows, cols):\n",
    "Q: What is 17 * 23?\nA:",
    "The three laws of thermodynamics are:\n1.",
    "Der schnellste Weg von Berlin nach München ist",
    "日本の首都は",
    "Les avantages de l'énergie solaire sont",
    "SELECT name, COUNT(*) FROM orders",
    "#include <stdio.h>\n\nint main(void) {\n",
    "To make a good cup of coffee you need to",
    '{"name": "Ada", "age": 36, "languages": [',
    "A list of prime numbers below 50: 2, 3, 5, 7, 11,",
    "Why is the sky blue? 🌍 Explain it simply.",
    "In 1969 humans first walked on",
    "<html>\n<head>\n<title>",
    "The quick brown fox jumps over the lazy dog. The quick brown fox",
    "a",
    _LONG + " On day 30 the ship",  # longer than Gemma's window of 512
)


def generate(model: Any, prompt: list[int]) -> tuple[list[int], list[float]]:
    """64 ids and gaps; the end-of-text id does not stop it."""
    ids, gaps, cache = [], [], None
    feed = torch.tensor([prompt])
    for _ in range(NUM_NEW):
        with torch.no_grad():
            output = model(input_ids=feed, cache=cache, use_cache=True, logits_to_keep=1)
        cache = output.cache
        best = output.logits[0, -1].topk(2)
        ids.append(int(best.indices[0]))
        gaps.append(float(best.values[0] - best.values[1]))
        feed = torch.tensor([ids[-1:]])
    return ids, gaps


def greedy(path: Path, num_prompts: int = len(PROMPTS)) -> dict[str, np.ndarray]:
    model = load_model(path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS[:num_prompts]]
    results = [generate(model, prompt) for prompt in prompts]
    return {
        "prompt_ids": np.concatenate(prompts).astype(np.int32),
        "prompt_lens": np.array([len(prompt) for prompt in prompts], np.int32),
        "ids": np.array([ids for ids, _ in results], np.int32),  # (num_prompts, 64)
        "gaps": np.array([gaps for _, gaps in results], np.float32),  # (num_prompts, 64)
    }


def main(folder: str, *names: str) -> None:
    torch.set_num_threads(2)
    GOLDEN.mkdir(exist_ok=True)
    for name in names or MODELS:
        begin = time.perf_counter()
        arrays = greedy(Path(folder) / MODELS[name])
        np.savez_compressed(GOLDEN / f"greedy-{name}.npz", **arrays)
        seconds, smallest = time.perf_counter() - begin, arrays["gaps"].min()
        print(f"{name}: {arrays['ids'].shape} in {seconds:.0f} s, smallest gap {smallest:.2g}")


if __name__ == "__main__":
    main(*sys.argv[1:])
