"""Task: a benchmark as data, and the one way every benchmark is run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from inferd.eval.generate import Answer, Item, generate
from inferd.eval.results import Results, Sample, executor_facts, model_facts, versions
from inferd.llm import LLM
from inferd.types import SamplingParams

Progress = Callable[[int, int], None]  # items done, items in all


class Task(Protocol):
    """name, facts and sampling go into the results file: what they do not say must not change a result."""

    @property
    def name(self) -> str: ...

    @property
    def keys(self) -> list[str]: ...

    def facts(self) -> dict[str, Any]:
        """data (digest and counts), prompt format, and what else decides the result."""
        ...

    def sampling(self, llm: LLM) -> SamplingParams:
        """The same for every item."""
        ...

    def prompt(self, llm: LLM, key: str) -> list[int]:
        """Token ids of one item."""
        ...

    def judge(self, key: str, answers: list[Answer]) -> Sample:
        """The answers (sampling.n of them) become what is kept of the item."""
        ...

    def summarize(self, samples: Mapping[str, Sample]) -> dict[str, Any]:
        """The figures over at least one sample."""
        ...


def run_facts(llm: LLM, task: Task, *, executor: str, seed: int) -> dict[str, Any]:
    sampling = task.sampling(llm)
    names = ("n", "temperature", "top_p", "top_k", "max_tokens", "stop")
    return {
        "task": task.name,
        "model": model_facts(llm.loaded.checkpoint),
        "executor": executor_facts(executor),
        **task.facts(),
        "sampling": {name: getattr(sampling, name) for name in names},
        "seed": seed,
        "versions": versions(),
    }


def run_task(
    llm: LLM, task: Task, results: Results, *, time_limit: float | None, progress: Progress = lambda done, total: None
) -> bool:
    """Answers what the results do not hold yet; True when nothing is left. time_limit: seconds, after which the run
    stops between two steps. The results are saved in any case."""
    begin = time.monotonic()
    before = results.seconds
    keys = task.keys
    deadline = None if time_limit is None else begin + time_limit
    progress(len(results.samples), len(keys))
    try:
        todo = _items(llm, task, [key for key in keys if key not in results.samples])
        for key, answers in generate(llm, todo, task.sampling(llm), deadline):
            results.seconds = before + time.monotonic() - begin
            results.add(key, task.judge(key, answers))
            progress(len(results.samples), len(keys))
        is_complete = len(results.samples) == len(keys)
        if results.samples:
            results.summary = {"complete": is_complete, **task.summarize(results.samples)}
        return is_complete
    finally:
        results.samples = {key: results.samples[key] for key in keys if key in results.samples}
        results.seconds = before + time.monotonic() - begin
        results.save()


def _items(llm: LLM, task: Task, keys: Iterable[str]) -> Iterator[Item]:
    return (Item(key, task.prompt(llm, key)) for key in keys)


def share(num: float, total: int) -> dict[str, float]:
    """An accuracy and its standard error, as of independent draws."""
    value = num / total
    return {"value": round(value, 4), "standard_error": round(math.sqrt(value * (1 - value) / total), 4)}
