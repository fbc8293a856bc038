"""Outputs under a grammar: whatever the model says, what is completed satisfies it; the same alone, in a batch, with
guesses and without, and through preemption."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from inferd.engine.engine import Engine
from inferd.errors import InvalidRequestError
from inferd.executors.native import NativeExecutor
from inferd.speculative.speculator import Speculator
from inferd.structured.compiler import GrammarCompiler
from inferd.types import GenerateRequest, StructuredOutputs
from support.schemas import random_schema
from support.tiny_engine import EOS, Narrowed, Results, collect, engine_on, request, run, tiny_tokenizer
from support.tiny_models import tiny_checkpoint

MAX_LEN = 512
# a random model hardly ever closes what it opened
CLOSING = {ord(character): 4.0 for character in '"}]'}
compiler = GrammarCompiler(tiny_tokenizer())


@cache
def executor() -> NativeExecutor:
    sizes = {"num_blocks": 640, "block_size": 16, "max_num_batched_tokens": 256, "max_num_seqs": 16}
    return NativeExecutor(tiny_checkpoint("llama"), **sizes, max_model_len=MAX_LEN, num_threads=1)


def engine(**config: Any) -> Engine:
    num_blocks = config.pop("num_blocks", 640)
    return engine_on(Narrowed(executor(), num_blocks, 256), MAX_LEN, **{"max_num_seqs": 16, **config})


def bound(name: str, kind: str, value: Any, **sampling: Any) -> GenerateRequest:
    text = value if isinstance(value, str) else json.dumps(value)
    grammar = compiler.compile(StructuredOutputs(kind=kind, value=text))  # type: ignore[arg-type]
    options = {"max_tokens": 300, "temperature": 1.0, "seed": 1} | sampling
    return request(name, b"prompt " + name.encode(), structured_outputs=grammar, **options)


def check_schemas(seeds: range) -> tuple[int, int]:
    """(schemas that were refused, outputs that were completed)."""
    schemas, requests, num_refused, num_complete = {}, [], 0, 0
    for seed in seeds:
        schema = random_schema(seed)
        try:
            requests.append(bound(str(seed), "json_schema", schema, seed=seed, logit_bias=CLOSING if seed % 2 else {}))
        except InvalidRequestError:
            num_refused += 1
            continue
        schemas[str(seed)] = schema
    for (name, _), result in run(engine(max_queue_len=2**20), *requests).items():
        assert result.finish_reason in ("stop", "length"), (schemas[name], result)
        if result.finish_reason == "stop":
            Draft202012Validator(schemas[name]).validate(json.loads(result.text))
            num_complete += 1
    return num_refused, num_complete


def test_completed_outputs_of_500_schemas_validate() -> None:
    num_refused, num_complete = check_schemas(range(500))
    assert num_refused <= 10
    assert num_complete >= 400


@pytest.mark.slow
def test_completed_outputs_of_20000_schemas_validate() -> None:
    num_refused, num_complete = check_schemas(range(1000, 21000))
    assert num_refused <= 400
    assert num_complete >= 16_000


MIXED: list[tuple[str, Any]] = [
    ("json_schema", random_schema(3)),
    ("json_schema", {"type": "array", "items": {"enum": ["alpha", "beta"]}, "minItems": 3, "maxItems": 6}),
    ("regex", "(abc[0-9]{3} ){2,8}"),
    ("choice", ["positive", "negative"]),
    ("grammar", 'start: ("let " NAME " = " NUM ";")+\nNAME: /[a-z]{1,4}/\nNUM: /[0-9]{1,3}/'),
    ("lazy", [{"begin": "a", "schema": {"type": "object", "required": ["some_key"]}, "end": "!"}]),
]


def mixed_requests() -> list[GenerateRequest]:
    options: list[dict[str, Any]] = [{}, {"temperature": 0.0}, {"n": 3}, {"logprobs": 2, "ignore_eos": True}]
    options += [{"min_tokens": 20}, {"repetition_penalty": 1.3, "bad_words": ("bc",)}, {"stop": ("t",)}]
    pairs = [(at, how) for at in range(len(MIXED)) for how in range(len(options))]
    return [bound(f"{at}.{how}", *MIXED[at], **{"max_tokens": 40, **options[how]}) for at, how in pairs]


@cache
def alone() -> Results:
    results: Results = {}
    for one in mixed_requests():
        results |= run(engine(speculative="off", enable_prefix_caching=False), one)
    return results


@pytest.mark.parametrize("speculative", ["off", "ngram"])
@pytest.mark.parametrize("num_blocks", [24, 640])  # with 24, sequences leave and are computed again
def test_the_same_tokens_alone_and_in_a_batch(
    speculative: str, num_blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_of(self: Speculator, proposals: list[tuple[Any, tuple[int, ...]]], num_rows: int) -> list[int]:
        return [len(drafts) for _, drafts in proposals]

    monkeypatch.setattr(Speculator, "choose", all_of)
    one = engine(speculative=speculative, num_blocks=num_blocks)
    results = run(one, *mixed_requests())
    assert results == alone()
    stats = one.stats()
    assert (stats.num_preemptions > 0) == (num_blocks == 24)
    assert (stats.num_accepted_tokens > 0) == (speculative == "ngram")


def test_an_end_of_the_grammar_ends_the_output() -> None:
    for options in ({}, {"ignore_eos": True}, {"min_tokens": 30}, {"max_tokens": 8}):
        result = run(engine(), bound("x", "choice", ["positive", "negative"], **options))["x", 0]
        assert result.text in ("positive", "negative")
        assert (result.finish_reason, result.stop_reason) == ("stop", None)


def test_what_may_go_on_goes_on_under_ignore_eos() -> None:
    never = run(engine(), bound("x", "regex", "[ab]*", ignore_eos=True, max_tokens=50))["x", 0]
    assert (len(never.token_ids), never.finish_reason, EOS in never.token_ids) == (50, "length", False)
    early = run(engine(), bound("x", "regex", "[ab]*", min_tokens=20, max_tokens=50, logit_bias={EOS: 100.0}))["x", 0]
    assert len(early.token_ids) == 21
    assert early.finish_reason == "stop"


@pytest.mark.parametrize("options", [{"allowed_token_ids": (ord("x"),)}, {"bad_words": ("a", "b")}])
def test_parameters_that_leave_nothing_are_an_error_of_their_own_request(options: dict[str, Any]) -> None:
    one, events = engine(), []
    one.add(bound("bad", "choice", ["a", "b"], **options))
    one.add(bound("good", "choice", ["a", "b"]))
    while one.has_work:
        events += one.step()
    last = {event.request_id: event for event in events}
    assert last["bad"].finish_reason == "error"
    assert "leave no token" in (last["bad"].error or "")
    assert last["good"].finish_reason == "stop"


def test_a_grammar_that_becomes_too_complex_ends_its_request_with_an_error() -> None:
    one, events = engine(), []
    one.add(bound("x", "regex", "(a{0,65535}){0,65535}b", bad_words=("b",)))
    while one.has_work:
        events += one.step()
    assert events[-1].finish_reason == "error"
    assert "lexer error" in (events[-1].error or "")


def test_an_aborted_request_leaves_its_neighbour_alone() -> None:
    one = engine()
    first, second = (bound(name, *MIXED[2]) for name in ("first", "second"))
    expected = run(engine(), second)
    results: Results = {}
    one.add(first)
    one.add(replace(second))
    for _ in range(5):
        collect(results, one.step())
    one.abort("first")
    while one.has_work:
        collect(results, one.step())
    one.check()
    assert results["second", 0] == expected["second", 0]
