"""Many prompts through one engine: answers as they finish, and an end to it when the time is up."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from inferd.errors import EngineError, InvalidRequestError
from inferd.llm import LLM
from inferd.types import GenerateRequest, SamplingParams, TokenEvent

_IN_FLIGHT = 96  # more than any batch, so that the next prompt is there when a sequence ends


@dataclass(slots=True)
class Answer:
    text: str = ""
    num_tokens: int = 0
    finish_reason: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One question. key: its name within the data set."""

    key: str
    token_ids: Sequence[int]


@dataclass(slots=True)
class _Open:
    answers: list[Answer] = field(default_factory=list)
    num_unfinished: int = 0

    def add(self, event: TokenEvent) -> bool:
        """Whether this was the last event of all."""
        answer = self.answers[event.index]
        answer.text += event.text
        answer.num_tokens += len(event.token_ids)
        if event.finish_reason is not None:
            answer.finish_reason = event.finish_reason
            self.num_unfinished -= 1
        return self.num_unfinished == 0


def generate(
    llm: LLM, items: Iterator[Item], sampling: SamplingParams, deadline: float | None = None
) -> Iterator[tuple[str, list[Answer]]]:
    """(key, sampling.n answers) of each item, in the order they finish. deadline: time.monotonic() at which what is
    not finished is dropped. Raises InvalidRequestError naming the item that cannot be served."""
    engine = llm.loaded.engine
    unfinished: dict[str, _Open] = {}
    try:
        while deadline is None or time.monotonic() < deadline:
            while len(unfinished) < _IN_FLIGHT and (item := next(items, None)) is not None:
                _add(llm, item, sampling)
                unfinished[item.key] = _Open([Answer() for _ in range(sampling.n)], sampling.n)
            if not unfinished:
                return
            for event in engine.step():
                if event.finish_reason == "error":
                    raise EngineError(event.error or "the engine failed")
                if unfinished[event.request_id].add(event):
                    yield event.request_id, unfinished.pop(event.request_id).answers
    finally:
        for key in unfinished:
            engine.abort(key)


def _add(llm: LLM, item: Item, sampling: SamplingParams) -> None:
    request = GenerateRequest(request_id=item.key, prompt_token_ids=tuple(item.token_ids), sampling=sampling)
    try:
        llm.loaded.engine.add(request)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{item.key}: {error.message}", param=error.param) from error
