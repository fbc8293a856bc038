"""Engines on tiny random models, a byte-level tokenizer of their vocabulary, and a runner that collects results."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from inferd.config import EngineConfig
from inferd.engine.engine import Engine
from inferd.executors.base import Executor, StepBatch, StepResult
from inferd.models.checkpoint import TokenizerSource
from inferd.tokenizer import Tokenizer, load_tokenizer
from inferd.types import GenerateRequest, PositionLogprobs, SamplingParams, TokenEvent
from support.tiny_models import VOCAB

NORMAL, CONTROL = 1, 3
EOS = 256


@lru_cache(maxsize=1)
def tiny_tokenizer() -> Tokenizer:
    """Ids 0..255 are bytes, 256 is <eos>, 257 is <bos>; the rest of the vocabulary is unused."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = dict.fromkeys(printable) | {}
    others = iter(range(256, 512))
    alphabet = [chr(b) if b in letters else chr(next(others)) for b in range(256)]
    return load_tokenizer(
        TokenizerSource(
            gguf_metadata={
                "tokenizer.ggml.model": "gpt2",
                "tokenizer.ggml.pre": "gpt-2",
                "tokenizer.ggml.tokens": [*alphabet, "<eos>", "<bos>"],
                "tokenizer.ggml.token_type": [NORMAL] * 256 + [CONTROL] * 2,
                "tokenizer.ggml.merges": [],
                "tokenizer.ggml.eos_token_id": EOS,
                "tokenizer.ggml.bos_token_id": 257,
            }
        ),
        VOCAB,
    )


@dataclass(frozen=True)
class Narrowed:
    """An executor that offers the engine fewer blocks and a smaller step than it has."""

    executor: Executor
    num_blocks: int
    max_num_batched_tokens: int
    on_step: Callable[[StepBatch], None] = lambda batch: None

    @property
    def spec(self) -> Any:
        return self.executor.spec

    @property
    def block_size(self) -> int:
        return self.executor.block_size

    def step(self, batch: StepBatch) -> StepResult:
        self.on_step(batch)
        return self.executor.step(batch)

    def close(self) -> None:
        pass


@dataclass
class Result:
    """What a client sees of one sequence."""

    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    logprobs: list[PositionLogprobs] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    prompt_logprobs: tuple[PositionLogprobs | None, ...] | None = None

    def add(self, event: TokenEvent) -> None:
        self.token_ids += event.token_ids
        self.text += event.text
        self.logprobs += event.logprobs or ()
        assert self.finish_reason is None, "an event after the last one"
        self.finish_reason, self.stop_reason = event.finish_reason, event.stop_reason
        self.prompt_logprobs = event.prompt_logprobs or self.prompt_logprobs


Results = dict[tuple[str, int], Result]


def engine_on(executor: Executor, max_model_len: int, **config: Any) -> Engine:
    return Engine(executor, tiny_tokenizer(), EngineConfig(**config), max_model_len)


def request(request_id: str, prompt: Iterable[int], priority: int = 0, **sampling: Any) -> GenerateRequest:
    return GenerateRequest(
        request_id=request_id, prompt_token_ids=tuple(prompt), priority=priority, sampling=SamplingParams(**sampling)
    )


def run(engine: Engine, *requests: GenerateRequest) -> Results:
    """All of them at once, to the end."""
    for one in requests:
        engine.add(one)
    results: Results = {}
    while engine.has_work:
        collect(results, engine.step())
    return results


def collect(results: Results, events: Iterable[TokenEvent]) -> None:
    for event in events:
        results.setdefault((event.request_id, event.index), Result()).add(event)
