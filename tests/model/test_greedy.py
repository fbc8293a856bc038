"""Greedy tokens of `reference` against transformers' in fp32 (tests/oracle/make_greedy.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inferd.executors.reference import ReferenceExecutor
from inferd.models.loader import load_checkpoint
from support.batches import batch
from support.models import model_path

GOLDEN = Path(__file__).parent.parent / "golden"
BLOCK = 32
ALIASES = {"smollm2": "smollm2", "gemma3-270m": "gemma3:270m", "qwen2.5-coder-1.5b": "qwen2.5-coder:1.5b"}
TIE = 1e-3  # a smaller gap between the two best logits may fall either way


class Greedy:
    """One golden file: prompts and what transformers said."""

    def __init__(self, name: str) -> None:
        arrays = np.load(GOLDEN / f"greedy-{name}.npz")
        self.ids, self.gaps = arrays["ids"], arrays["gaps"]  # (num_prompts, 64)
        self.prompts = [part.tolist() for part in np.split(arrays["prompt_ids"], np.cumsum(arrays["prompt_lens"])[:-1])]


def executor_of(name: str) -> ReferenceExecutor:
    return ReferenceExecutor(load_checkpoint(model_path(ALIASES[name])), num_blocks=64, block_size=BLOCK)


def check_prompts(name: str, which: range) -> None:
    """Every prefix at once: if each row of one prefill picks the golden id, so does decoding one by one."""
    golden, executor = Greedy(name), executor_of(name)
    for i in which:
        prompt, ids, gaps = golden.prompts[i], golden.ids[i], golden.gaps[i]
        tokens = [*prompt, *ids[:-1].tolist()]
        rows = range(len(prompt) - 1, len(tokens))
        logits = executor.logits(batch([(tokens, 0, range(-(-len(tokens) // BLOCK)))], logit_rows=rows))
        best = np.sort(logits, axis=1)[:, -2:]  # (64, 2)
        np.testing.assert_allclose(best[:, 1] - best[:, 0], gaps, atol=TIE, err_msg=f"prompt {i}")
        wrong = [at for at in np.flatnonzero(logits.argmax(1) != ids) if gaps[at] >= TIE]
        assert not wrong, f"prompt {i}: positions {wrong}"


def test_smollm2() -> None:
    check_prompts("smollm2", range(4))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ALIASES)
def test_every_prompt(name: str) -> None:
    check_prompts(name, range(20))


def test_steps_with_cache_and_chunks_and_neighbours() -> None:
    """Two prompts decode side by side, one of them prefilled in chunks of 7: the same ids as alone."""
    golden, executor = Greedy("smollm2"), executor_of("smollm2")
    prompts, tables = golden.prompts[3:5], ([9, 4, 1, 30], [8, 3, 2, 31])
    for begin in range(0, len(prompts[0]) - 1, 7):
        executor.logits(batch([(prompts[0][:-1][begin : begin + 7], begin, tables[0])]))
    executor.logits(batch([(prompts[1][:-1], 0, tables[1])]))
    feed, outputs = [prompt[-1] for prompt in prompts], [[], []]
    for step in range(8):
        contexts = [len(prompt) - 1 + step for prompt in prompts]
        result = executor.step(batch([([feed[s]], contexts[s], tables[s]) for s in range(2)]))
        feed = result.token_ids.tolist()
        for s in range(2):
            outputs[s].append(feed[s])
    np.testing.assert_array_equal(outputs, golden.ids[3:5, :8])
