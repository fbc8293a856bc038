"""Same request, same bytes: whatever else runs, in whatever chunks, through hits, preemption and aborts, on one thread
or two, a request's tokens, logprobs and text are those it has alone."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import pytest

from inferd.engine.engine import Engine
from inferd.executors.native import NativeExecutor
from inferd.models.loader import load_checkpoint
from inferd.quantization.types import TensorType
from inferd.speculative.ngram import NgramIndex
from inferd.speculative.speculator import Speculator
from inferd.types import GenerateRequest
from support.models import model_path
from support.tiny_engine import Narrowed, Results, collect, engine_on, request, run
from support.tiny_models import tiny_checkpoint

BLOCK = 16
MAX_LEN = 192
NUM_REQUESTS = 48  # different ones per model; traces draw from them
MODELS = {
    "llama": ("llama", TensorType.Q4_1),
    "qwen3": ("qwen3", TensorType.Q8_0),
    "gemma3": ("gemma3", TensorType.BF16),
    "gemma2": ("gemma2", TensorType.Q5_0),
    "mistral": ("mistral", TensorType.Q4_0),
}


@cache
def executor(model: str, num_threads: int) -> NativeExecutor:
    sizes = {"num_blocks": 256, "block_size": BLOCK, "max_num_batched_tokens": 256, "max_num_seqs": 16}
    if model == "smollm2":
        checkpoint = load_checkpoint(model_path("smollm2"))
    else:
        family, kind = MODELS[model]
        checkpoint = tiny_checkpoint(family, kind=kind)
    return NativeExecutor(checkpoint, **sizes, max_model_len=MAX_LEN, num_threads=num_threads)


@cache
def requests_of(model: str) -> tuple[GenerateRequest, ...]:
    """Every sampling feature, prompts of 1 to 120 tokens, many of them with a common beginning."""
    rng = random.Random(f"requests of {model}")
    shared = [rng.randrange(256) for _ in range(160)]
    found = []
    for i in range(NUM_REQUESTS):
        own = [rng.randrange(256) for _ in range(rng.choice((1, 3, 20, 40)))]
        prompt = (shared[: rng.choice((0, 0, 16, 47, 80))] + own)[:120]
        sampling = {"max_tokens": rng.choice((1, 5, 16, 60)), "temperature": rng.choice((0.0, 0.7, 1.3))}
        sampling |= {"seed": rng.randrange(2**63), "ignore_eos": rng.random() < 0.8}
        options = {
            "n": rng.randint(2, 4),
            "logprobs": rng.randint(0, 4),
            "prompt_logprobs": rng.randint(0, 3),
            "top_p": 0.9,
            "top_k": 12,
            "min_p": 0.02,
            "typical_p": 0.9,
            "repetition_penalty": 1.2,
            "frequency_penalty": 0.7,
            "presence_penalty": -0.5,
            "logit_bias": {7: 3.0, 9: -100.0},
            "allowed_token_ids": tuple(range(0, 250, 2)),
            "stop": ("a", "\x00\x01"),
            "stop_token_ids": (11, 200),
            "bad_words": ("bc", "x"),
            "min_tokens": min(3, sampling["max_tokens"]),
        }
        chosen = rng.sample(sorted(options), rng.randint(0, 5))
        found.append(request(f"r{i}", prompt, **sampling, **{name: options[name] for name in chosen}))
    return tuple(found)


@cache
def alone(model: str, index: int) -> Results:
    """One request in an engine of its own: one thread, no prefix cache, no guesses, its prompt in one step."""
    narrowed = Narrowed(executor(model, 1), 256, 256)
    config = {"max_num_seqs": 16, "enable_prefix_caching": False, "speculative": "off"}
    return run(engine_on(narrowed, MAX_LEN, **config), requests_of(model)[index])


class Trace:
    """A random life of an engine: arrivals, aborts, little memory, small steps. `run` checks every result."""

    def __init__(self, model: str, seed: int) -> None:
        self.rng = rng = random.Random(f"{model} {seed}")
        self.model = model
        num_blocks = rng.choice((13, 13, 16, 24, 256))  # 12 hold the longest sequence
        max_num_seqs = rng.choice((4, 7, 16))
        budget = max(max_num_seqs, rng.choice((4, 17, 64, 256)))
        narrowed = Narrowed(executor(model, rng.choice((1, 2))), num_blocks, budget)
        caching = rng.random() < 0.7
        self.engine: Engine = engine_on(narrowed, MAX_LEN, max_num_seqs=max_num_seqs, enable_prefix_caching=caching)
        self.results: Results = {}
        self.started: dict[str, int] = {}
        self.aborted: set[str] = set()

    def run(self) -> int:
        """How many requests ran to their end."""
        rng, todo = self.rng, self.rng.randint(2, 10)
        eagerness = rng.choice((0.2, 1.0))
        while todo or self.engine.has_work:
            while todo and (rng.random() < eagerness or not self.engine.has_work):
                todo -= 1
                self._arrive()
            if self.started and rng.random() < 0.04:
                victim = rng.choice(sorted(self.started))
                self.engine.abort(victim)
                self.aborted.add(victim)
            collect(self.results, self.engine.step())
            self.engine.check()
        self._compare()
        return len(self.started) - len(self.aborted)

    def _arrive(self) -> None:
        index = self.rng.randrange(NUM_REQUESTS)
        request_id = f"{len(self.started)}"
        original = requests_of(self.model)[index]
        whose = {"tenant": self.rng.choice("aab"), "weight": self.rng.choice((1.0, 1.0, 0.3, 5.0))}
        whose |= {"priority": self.rng.choice((0, 0, 1, -1)), "is_background": self.rng.random() < 0.3}
        self.engine.add(replace(original, request_id=request_id, **whose))
        self.started[request_id] = index

    def _compare(self) -> None:
        assert self.engine.stats().num_used_blocks == 0, "blocks are still held"
        for request_id, index in self.started.items():
            for (_, sequence), want in alone(self.model, index).items():
                got = self.results.get((request_id, sequence))
                if request_id not in self.aborted:
                    assert got == want, f"request {index}, sequence {sequence}"
                elif got is not None and got.finish_reason is None:
                    size = len(got.token_ids)
                    assert got.token_ids == want.token_ids[:size]
                    assert got.logprobs == want.logprobs[:size]
                    assert want.text.startswith(got.text)


@pytest.mark.parametrize("model", MODELS)
def test_random_traces(model):
    """5 models x 400 traces."""
    num_finished = sum(Trace(model, seed).run() for seed in range(400))
    assert num_finished > 400


@cache
def continuations(model: str) -> dict[tuple[int, ...], list[int]]:
    """What follows each run of 4 tokens in any request alone."""
    found = {}
    for index, one in enumerate(requests_of(model)):
        for result in alone(model, index).values():
            tokens = [*one.prompt_token_ids, *result.token_ids]
            for end in range(4, len(tokens)):
                found[tuple(tokens[end - 4 : end])] = tokens[end : end + 8]
    return found


@pytest.mark.parametrize("model", ["llama", "gemma3"])
def test_random_traces_with_guesses_right_and_wrong(model, monkeypatch):
    """Speculation on every sequence it may touch: guesses are what comes, spoiled at random places."""
    rng = random.Random(model)
    follows = continuations(model)

    def propose(self, token_ids, count):
        known = follows.get(tuple(token_ids[-4:]), [5])[:count]
        return tuple(token if rng.random() < 0.8 else rng.randrange(256) for token in known)

    monkeypatch.setattr(NgramIndex, "propose", propose)
    monkeypatch.setattr(Speculator, "choose", guess_all)
    num_accepted = num_drafted = 0
    for seed in range(200):
        trace = Trace(model, seed)
        trace.run()
        num_drafted += trace.engine.stats().num_drafted_tokens
        num_accepted += trace.engine.stats().num_accepted_tokens
    assert 0.2 * num_drafted < num_accepted < 0.9 * num_drafted


def guess_all(self, proposals, num_rows):
    room = max(0, self._max_rows - num_rows) // max(1, len(proposals))
    return [min(room, len(drafts)) for _, drafts in proposals]


def test_random_traces_of_a_real_model():
    assert sum(Trace("smollm2", seed).run() for seed in range(25)) > 25
