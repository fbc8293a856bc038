"""A budget of reasoning: its end is written for the model, wherever the output stands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inferd.engine.thinking import EndOfThinking
from inferd.types import ThinkingBudget
from support.tiny_engine import Narrowed, engine_on, request, run
from support.tiny_models import tiny_checkpoint


def budget(num_tokens: int, begin: str = "") -> ThinkingBudget:
    return ThinkingBudget(num_tokens=num_tokens, begin=begin, end="</t>")


@pytest.fixture(scope="module")
def executor():
    from inferd.executors.reference import ReferenceExecutor

    return ReferenceExecutor(tiny_checkpoint("llama"), num_blocks=64, block_size=16, max_num_batched_tokens=64)


def text_of(executor, thinking, **sampling):
    options = {"max_tokens": 30, "ignore_eos": True, "temperature": 0}
    engine = engine_on(executor, 128)
    return run(engine, replace(request("a", b"prompt", **{**options, **sampling}), thinking=thinking))


@pytest.mark.parametrize("num_tokens", [0, 1, 7])
def test_the_end_is_written_after_the_budget(executor, num_tokens):
    result = text_of(executor, budget(num_tokens), logit_bias=dict.fromkeys(range(97, 123), 50))["a", 0]
    line = "\n" if num_tokens else ""
    assert result.text[:num_tokens].isalpha() or not num_tokens
    assert result.text[num_tokens:].startswith(f"{line}</t>\n\n")
    assert len(result.token_ids) == 30


def test_every_sibling_and_every_draw_is_held_to_it(executor):
    results = text_of(executor, budget(5), temperature=1.5, n=3, seed=1, max_tokens=20)
    assert len({tuple(result.token_ids[:5]) for result in results.values()}) > 1
    for result in results.values():
        assert bytes(result.token_ids[5:12]) == b"\n</t>\n\n"


def test_it_holds_after_a_preemption(executor):
    """Three outputs in room for two: one is thrown out and computed again."""
    engine = engine_on(Narrowed(executor, 6, 64), 96)
    plain = [request(str(i), b"x" * 20, max_tokens=40, ignore_eos=True, seed=i) for i in range(3)]
    results = run(engine, *(replace(one, thinking=budget(30)) for one in plain))
    assert engine.stats().num_preemptions > 0
    assert all(bytes(result.token_ids[30:37]) == b"\n</t>\n\n" for result in results.values())


def test_what_has_ended_by_itself_is_left_alone():
    end = EndOfThinking(4, (), (9,), (1, 9, 1))
    thought = [2, 2, 2, 2]
    outputs = ([], thought[:3], thought, [*thought, 1], [*thought, 1, 9], [*thought, 1, 9, 1])
    assert [end.next_id(output) for output in outputs] == [None, None, 1, 9, 1, None]
    assert end.next_id([2, 9, 2, 2]) is None
    marked = EndOfThinking(2, (7,), (9,), (9,))
    assert marked.next_id([7, 2, 2]) == 9
    assert marked.next_id([2, 2, 2]) is None, "there was no reasoning"
