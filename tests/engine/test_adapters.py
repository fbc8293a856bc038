"""Adapters in the engine: who may use one, what the prefix cache shares, and how one leaves while requests run."""

from __future__ import annotations

from functools import lru_cache

import pytest

from inferd.errors import InvalidRequestError, ModelLoadError, ModelNotFoundError
from inferd.executors.native import NativeExecutor
from inferd.types import GenerateRequest, SamplingParams
from support.adapters import random_adapter, write_peft
from support.tiny_engine import Narrowed, collect, engine_on, run
from support.tiny_models import tiny_checkpoint

BLOCK, MAX_LEN = 16, 256
SIZES = {"num_blocks": 64, "block_size": BLOCK, "max_num_batched_tokens": 256}
PROMPT = tuple(range(40, 80))
CHECKPOINT = tiny_checkpoint("llama")


class Watched(Narrowed):
    """Also hands adapters on, and keeps the ids of those that are loaded."""

    def load_adapter(self, adapter):
        adapter_id = self.executor.load_adapter(adapter)
        self.loaded.add(adapter_id)
        return adapter_id

    def unload_adapter(self, adapter_id):
        self.loaded.remove(adapter_id)
        self.executor.unload_adapter(adapter_id)


@lru_cache(maxsize=1)
def native():
    return NativeExecutor(CHECKPOINT, **SIZES, max_num_seqs=16, max_model_len=MAX_LEN, num_threads=2)


@pytest.fixture
def paths(tmp_path):
    """Three PEFT directories, by name."""
    spec = CHECKPOINT.spec
    return {name: write_peft(tmp_path / name, random_adapter(spec, 4 + i, seed=i)) for i, name in enumerate("abc")}


def engine_with(paths, num_blocks=64, budget=256, **config):
    executor = Watched(native(), num_blocks, budget)
    object.__setattr__(executor, "loaded", set())
    engine = engine_on(executor, MAX_LEN, **{"max_num_seqs": 16, **config})
    for name, path in paths.items():
        engine.load_adapter(name, path)
    return engine, executor


def request(request_id, adapter, prompt=PROMPT, **sampling):
    params = {"temperature": 0, "max_tokens": 12, "ignore_eos": True, **sampling}
    return GenerateRequest(
        request_id=request_id, prompt_token_ids=prompt, sampling=SamplingParams(**params), adapter=adapter
    )


def alone(paths, adapter, **options):
    engine, _ = engine_with(paths)
    return run(engine, request("r", adapter, **options))["r", 0].token_ids


def test_neighbours_with_other_adapters_change_nothing(paths):
    want = {name: alone(paths, name) for name in ("", *paths)}
    assert len({tuple(ids) for ids in want.values()}) == 4
    engine, _ = engine_with(paths)
    results = run(engine, *(request(name or "none", name) for name in want))
    assert {name: results[name or "none", 0].token_ids for name in want} == want
    engine.check()


@pytest.mark.parametrize("options", [{"num_blocks": 9}, {"budget": 16}, {"speculative": "off"}])
def test_preemption_chunks_and_guesses_change_nothing(paths, options):
    want = {name: alone(paths, name, max_tokens=40) for name in ("", *paths)}
    engine, _ = engine_with(paths, **options)
    results = run(engine, *(request(name or "none", name, max_tokens=40) for name in want))
    assert {name: results[name or "none", 0].token_ids for name in want} == want
    assert engine.stats().num_preemptions > 0 or "num_blocks" not in options


def test_siblings_have_the_adapter_of_their_request(paths):
    engine, _ = engine_with(paths)
    results = run(engine, request("r", "a", n=3, temperature=1.0, seed=5))
    again = run(engine, request("r", "a", n=3, temperature=1.0, seed=5))
    assert [results["r", i].token_ids for i in range(3)] == [again["r", i].token_ids for i in range(3)]
    assert results["r", 0].token_ids != run(engine, request("r", "b", temperature=1.0, seed=5))["r", 0].token_ids


def test_a_prefix_is_found_under_its_own_adapter_only(paths):
    engine, _ = engine_with(paths)

    def num_cached(adapter):
        before = engine.stats().num_prefix_hit_tokens
        run(engine, request("r", adapter))
        return engine.stats().num_prefix_hit_tokens - before

    assert [num_cached(name) for name in ("a", "b", "", "a", "b", "")] == [0, 0, 0, 32, 32, 32]
    engine.unload_adapter("a")
    engine.load_adapter("a", paths["b"])  # another adapter under an old name
    assert num_cached("a") == 0


def test_an_unknown_adapter_is_refused_and_the_engine_goes_on(paths):
    engine, _ = engine_with(paths)
    with pytest.raises(InvalidRequestError, match="'d' is not loaded") as refused:
        engine.add(request("r", "d"))
    assert refused.value.param == "adapter"
    assert not engine.has_work
    assert run(engine, request("r", "a"))["r", 0].finish_reason == "length"


def test_names_are_unique_and_a_failed_load_leaves_nothing(paths, tmp_path):
    engine, executor = engine_with(paths)
    loaded = set(executor.loaded)
    for name, path, error in (("a", paths["b"], InvalidRequestError), ("", paths["b"], InvalidRequestError),
                              ("d", tmp_path / "nowhere", ModelNotFoundError)):  # fmt: skip
        with pytest.raises(error):
            engine.load_adapter(name, path)
    (paths["c"] / "adapter_config.json").write_text("{")
    with pytest.raises(ModelLoadError):
        engine.load_adapter("d", paths["c"])
    prepared = engine.prepare_adapter(paths["a"])
    with pytest.raises(InvalidRequestError, match="'a' is loaded already"):
        engine.install_adapter("a", prepared)
    assert (executor.loaded, engine.adapters) == (loaded, ("a", "b", "c"))


@pytest.mark.parametrize("end", ["finish", "abort"])
def test_an_adapter_that_is_unloaded_serves_its_requests_to_the_end(paths, end):
    want = alone(paths, "a", max_tokens=30)
    engine, executor = engine_with(paths)
    engine.add(request("running", "a", max_tokens=30))
    engine.add(request("neighbour", "b", max_tokens=30))
    results = {}
    for _ in range(5):
        collect(results, engine.step())
    engine.unload_adapter("a")
    assert engine.adapters == ("b", "c")
    assert len(executor.loaded) == 3
    with pytest.raises(InvalidRequestError, match="not loaded"):
        engine.add(request("late", "a"))
    with pytest.raises(InvalidRequestError, match="not loaded"):
        engine.unload_adapter("a")
    engine.load_adapter("a", paths["c"])  # the name is free at once
    if end == "abort":
        engine.abort("running")
    while engine.has_work:
        collect(results, engine.step())
    assert len(executor.loaded) == 3  # b, c and the new a: the old one is gone
    if end == "finish":
        assert results["running", 0].token_ids == want
    assert run(engine, request("r", "a"))["r", 0].token_ids == alone(paths, "c")
