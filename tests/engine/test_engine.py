"""The engine, feature by feature, on a tiny random model."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from inferd.errors import ContextLengthError, InvalidRequestError, OverloadedError
from inferd.executors.native import NativeExecutor
from inferd.executors.reference import ReferenceExecutor
from support.batches import batch
from support.tiny_engine import EOS, Narrowed, collect, engine_on, request, run
from support.tiny_models import VOCAB, tiny_checkpoint

BLOCK, MAX_LEN = 16, 256
SIZES = {"num_blocks": 64, "block_size": BLOCK, "max_num_batched_tokens": 256}
PROMPT = tuple(range(40, 80))


@lru_cache(maxsize=1)
def native():
    return NativeExecutor(tiny_checkpoint("llama"), **SIZES, max_num_seqs=16, max_model_len=MAX_LEN, num_threads=2)


def engine(num_blocks=64, budget=256, on_step=lambda batch: None, **config):
    narrowed = Narrowed(native(), num_blocks, budget, on_step)
    return engine_on(narrowed, MAX_LEN, **{"max_num_seqs": 16, **config})


def one(prompt=PROMPT, **sampling):
    """The single result of a request, greedy and without end-of-sequence unless told."""
    options = {"temperature": 0, "max_tokens": 12, "ignore_eos": True, **sampling}
    return run(engine(), request("r", prompt, **options))["r", 0]


def test_greedy_equals_a_plain_loop_over_the_reference():
    """No scheduler, no cache, no chunks: each token from the reference's logits over everything before it."""
    reference = ReferenceExecutor(tiny_checkpoint("llama"), **SIZES)
    known = list(PROMPT)
    for _ in range(12):
        logits = reference.logits(batch([(known, 0, range(10))]))[-1]
        known.append(int(logits.argmax()))
    assert one().token_ids == known[len(PROMPT) :]
    same = request("r", PROMPT, temperature=0, max_tokens=12, ignore_eos=True)
    assert run(engine_on(reference, MAX_LEN), same)["r", 0].token_ids == known[len(PROMPT) :]


def test_length_and_tokens_that_end_an_output():
    free = one()
    assert (free.finish_reason, free.stop_reason, len(free.token_ids)) == ("length", None, 12)
    fifth = free.token_ids[4]
    first = free.token_ids.index(fifth)
    stopped = one(stop_token_ids=(fifth,))
    assert (stopped.finish_reason, stopped.stop_reason) == ("stop", fifth)
    assert stopped.token_ids == free.token_ids[: first + 1]
    biased = one(ignore_eos=False, logit_bias={EOS: 100.0})
    assert (biased.finish_reason, biased.stop_reason, biased.token_ids, biased.text) == ("stop", None, [EOS], "")


def test_min_tokens_holds_every_end_back():
    bias = {EOS: 100.0, 5: 90.0}
    result = one(ignore_eos=False, logit_bias=bias, min_tokens=4, stop_token_ids=(9,))
    assert result.token_ids == [5, 5, 5, 5, EOS]
    assert result.finish_reason == "stop"


def test_stop_strings():
    letters = {"logit_bias": {ord("x"): 100.0}, "max_tokens": 6}
    assert one(**letters).text == "xxxxxx"
    for include, text in ((False, ""), (True, "xxx")):
        result = one(stop=("xxx", "zz"), include_stop_str_in_output=include, **letters)
        assert (result.text, result.stop_reason, len(result.token_ids)) == (text, "xxx", 3)
    assert one(stop=("xy",), **letters).text == "xxxxxx"  # held back at the end, then released


def test_constraints():
    allowed = one(allowed_token_ids=(3, 5, 8), temperature=1.0, seed=4, max_tokens=30)
    assert set(allowed.token_ids) <= {3, 5, 8}
    assert len(set(allowed.token_ids)) > 1
    letters = {"allowed_token_ids": tuple(b"ab"), "logit_bias": {ord("a"): 50.0}}
    assert set(one(bad_words=("a",), **letters).text) == {"b"}
    assert "aa" not in one(bad_words=("aa",), **letters).text
    repeated = one(logit_bias={7: 20.0}).token_ids
    assert set(repeated) == {7}
    assert len(set(one(logit_bias={7: 8.0}, frequency_penalty=2.0, max_tokens=24).token_ids)) > 4


def test_logprobs_are_of_the_raw_distribution():
    result = one(logprobs=3, temperature=0.7, seed=1, logit_bias={3: 5.0})
    known = list(PROMPT)
    for token_id, position in zip(result.token_ids, result.logprobs, strict=True):
        logits = native().logits(batch([(known, 0, range(10))]))[-1].astype(np.float64)
        logs = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        assert position.chosen.token_id == token_id
        assert position.chosen.logprob == pytest.approx(logs[token_id], abs=1e-5)
        assert position.chosen.rank == 1 + (logs > logs[token_id]).sum()
        assert [entry.token_id for entry in position.top] == np.argsort(-logs, kind="stable")[:3].tolist()
        known.append(token_id)


def test_prompt_logprobs_do_not_depend_on_chunks():
    whole = one(prompt_logprobs=2).prompt_logprobs
    assert len(whole) == len(PROMPT)
    assert whole[0] is None
    assert [position.chosen.token_id for position in whole[1:]] == list(PROMPT[1:])
    small = engine(budget=16)
    chunked = run(small, request("r", PROMPT, prompt_logprobs=2, max_tokens=1), request("other", PROMPT[:20]))
    assert chunked["r", 0].prompt_logprobs == whole


def test_n_shares_the_prompt_and_differs_by_seed():
    crowd = engine()
    results = run(crowd, request("r", PROMPT, n=4, seed=5, temperature=1.5, max_tokens=10, ignore_eos=True))
    outputs = [tuple(results["r", i].token_ids) for i in range(4)]
    assert len(set(outputs)) == 4
    assert list(outputs[0]) == one(seed=5, temperature=1.5, max_tokens=10).token_ids
    assert crowd.stats().num_prompt_tokens == len(PROMPT)


def test_seeds():
    assert one(temperature=1.0, seed=1) == one(temperature=1.0, seed=1)
    assert one(temperature=1.0, seed=1) != one(temperature=1.0, seed=2)
    by_id = [run(engine(), request(name, PROMPT, max_tokens=12))[name, 0].token_ids for name in ("a", "a", "b")]
    assert by_id[0] == by_id[1] != by_id[2]


def test_a_repeated_prompt_is_found_in_the_cache():
    warm = engine()
    first = run(warm, request("1", PROMPT, temperature=0))
    second = run(warm, request("2", PROMPT, temperature=0))
    assert first["1", 0] == second["2", 0]
    assert warm.stats().num_prefix_hit_tokens == 32  # two whole blocks of the 40 tokens


def test_prefill_in_chunks_beside_decodes():
    sizes: list[list[int]] = []
    busy = engine(budget=20, on_step=lambda b: sizes.append(np.diff(b.query_starts).tolist()))
    busy.add(request("short", PROMPT[:4], max_tokens=8, ignore_eos=True))
    busy.step()
    busy.add(request("long", range(100), max_tokens=2, ignore_eos=True))
    results = {}
    while busy.has_work:
        collect(results, busy.step())
    assert sizes[1:6] == [[1, 19]] * 5  # the decode first, the prompt in what is left of the budget
    assert all(sum(step) <= 20 for step in sizes)


def test_priority_runs_first_and_equal_priorities_by_arrival():
    order: list[int] = []
    narrow = engine(max_num_seqs=1, on_step=lambda b: order.append(int(b.token_ids[0])))
    for name, priority in (("1", 0), ("2", 0), ("3", -1)):
        narrow.add(request(name, [int(name)] * 3, priority=priority, max_tokens=1))
    while narrow.has_work:
        narrow.step()
    assert order == [3, 1, 2]


def test_preemption_recomputes_and_changes_nothing():
    tight = engine(num_blocks=16)
    names = [f"{i}" for i in range(4)]
    options = {"temperature": 1.0, "max_tokens": 80, "ignore_eos": True, "logprobs": 1}
    crowd = run(tight, *(request(name, PROMPT[: 20 + i], seed=i, **options) for i, name in enumerate(names)))
    assert tight.stats().num_preemptions > 0
    for i, name in enumerate(names):
        assert crowd[name, 0] == one(PROMPT[: 20 + i], seed=i, **options)


@pytest.mark.parametrize("num_steps", [0, 1, 2, 3, 6])
def test_an_abort_at_any_stage_frees_everything_before_the_next_step(num_steps):
    busy = engine(budget=16, num_blocks=12)
    for name in "abcd":
        busy.add(request(name, PROMPT, n=2, max_tokens=60, ignore_eos=True))
    for _ in range(num_steps):
        busy.step()
    for name in "abcd":
        busy.abort(name)
        busy.check()
    assert (busy.stats().num_used_blocks, busy.stats().num_waiting, busy.has_work) == (0, 0, False)
    assert busy.step() == []
    busy.abort("never existed")


def test_what_can_never_run_is_refused_with_the_field():
    with pytest.raises(ContextLengthError) as caught:
        engine().add(request("r", range(250), max_tokens=10))
    assert (caught.value.num_prompt_tokens, caught.value.max_model_len) == (250, MAX_LEN)
    assert "256" in str(caught.value)
    assert "260" in str(caught.value)
    refusals = {
        "prompt": request("r", ()),
        "stop_token_ids": request("r", PROMPT, stop_token_ids=(VOCAB,)),
        "logit_bias": request("r", PROMPT, logit_bias={VOCAB: 1.0}),
        "n": request("r", PROMPT, n=17),
    }
    for param, bad in refusals.items():
        with pytest.raises(InvalidRequestError) as error:
            engine().add(bad)
        assert error.value.param == param
    for token_id in (-1, VOCAB):
        with pytest.raises(InvalidRequestError, match="token ids from 0 to 319"):
            engine().add(request("r", [1, token_id]))
    full = engine(max_queue_len=2)
    full.add(request("1", PROMPT))
    with pytest.raises(InvalidRequestError, match="running already"):
        full.add(request("1", PROMPT))
    full.add(request("2", PROMPT))
    with pytest.raises(OverloadedError):
        full.add(request("3", PROMPT))


def test_max_tokens_none_fills_the_context():
    result = one(range(200), max_tokens=None)
    assert (len(result.token_ids), result.finish_reason) == (MAX_LEN - 200, "length")
