"""Variants of a model side by side: accuracy, distance from the first, speed and memory, measured on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inferd.config import EngineConfig
from inferd.errors import ConfigError
from inferd.eval.compare import Scoring, compare, record
from inferd.eval.results import Results, executor_facts, model_facts, versions
from inferd.eval.speed import BATCHES, measure_speed
from inferd.eval.task import Task, run_facts, run_task
from inferd.llm import LLM
from inferd.machine import cpu_model
from inferd.models.loader import load_checkpoint
from inferd.models.store import resolve

TaskOf = Callable[[bool], Task]  # whether the model has a chat template -> the task
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """variants: name -> model; the first is what the others are compared with. folder: results files, one for each
    variant and task, so that a run that was stopped goes on. tasks: by name."""

    variants: Mapping[str, str]
    folder: Path
    tasks: Mapping[str, TaskOf]
    scoring: Scoring | None = None
    engine: EngineConfig = field(default_factory=lambda: EngineConfig(max_num_seqs=32))

    def __post_init__(self) -> None:
        for name in self.variants:
            if not name or not all(c.isalnum() or c in "._-" for c in name):
                raise ConfigError(f"a variant's name must be of letters, digits, '.', '_' and '-', got {name!r}")


def run_table(plan: Plan, time_limit: float | None = None, say: Say = lambda line: None) -> list[dict[str, Any]] | None:
    """One row for each variant: the figures of each task by its name, the facts of their runs, and the gain over the
    first row. None when the time was up before the table was whole."""
    deadline = None if time_limit is None else time.monotonic() + time_limit
    plan.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, model in plan.variants.items():
        row: dict[str, Any] = {"variant": name, "runs": {}}
        for stage, results in _stages(plan, name, model, deadline):
            say(f"{name}: {stage}")
            if results is None or not results.summary.get("complete"):
                return None
            row[stage] = results.summary
            row["runs"][stage] = results.run
        rows.append(row)
    return [with_gains(row, rows[0]) for row in rows]


def with_gains(row: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    """gain: speeds over those of the first row, and its memory over this one's."""
    speed, base = row["speed"], first["speed"]
    names = ("prefill_tok_s", *(f"decode_{batch}_tok_s" for batch in BATCHES))
    gain = {name.removesuffix("_tok_s"): round(speed[name] / base[name], 2) for name in names}
    return {**row, "gain": {**gain, "memory": round(base["resident_bytes"] / speed["resident_bytes"], 2)}}


def _stages(plan: Plan, name: str, model: str, deadline: float | None) -> Iterator[tuple[str, Results | None]]:
    """By name; None for one that the deadline kept from beginning."""

    def is_late() -> bool:
        return deadline is not None and time.monotonic() >= deadline

    yield "speed", None if is_late() else _speed(plan, name, model)
    if plan.scoring is not None:
        yield "quality", None if is_late() else _quality(plan, plan.scoring, name, model)
    with _model_when_needed(model, plan.engine) as load:
        for task_name, task_of in plan.tasks.items():
            yield task_name, None if is_late() else _task(plan, name, task_name, task_of, load(), deadline)


def _speed(plan: Plan, name: str, model: str) -> Results:
    facts = {
        "task": "speed",
        "model": model_facts(load_checkpoint(resolve(model))),
        "executor": executor_facts("native"),
        "machine": {"cpu": cpu_model(), "num_threads": plan.engine.resolved_num_threads},
        "prompt_format": "random tokens",
        "sampling": {"temperature": 0.0},
        "seed": 0,
        "versions": versions(),
    }
    results = Results(plan.folder / f"{name}.speed.json", facts)
    if not results.summary.get("complete"):
        begin = time.monotonic()
        results.summary = {"complete": True, **measure_speed(model, plan.engine.num_threads)}
        results.seconds = time.monotonic() - begin
        results.save()
    return results


def _quality(plan: Plan, scoring: Scoring, name: str, model: str) -> Results:
    output = plan.folder / f"{name}.quality.json"
    first = next(iter(plan.variants.values()))
    if model == first and len(plan.variants) == 1:
        return compare(model, scoring, output=output)
    baseline = plan.folder / "baseline.bin"
    if not baseline.exists():
        record(first, scoring, baseline)
    return compare(model, scoring, str(baseline), output)


def _task(
    plan: Plan, name: str, task_name: str, task_of: TaskOf, llm: LLM, deadline: float | None
) -> Results:
    task = task_of(llm.loaded.chat_template is not None)
    facts = run_facts(llm, task, executor=plan.engine.executor, seed=plan.engine.seed)
    results = Results(plan.folder / f"{name}.{task_name}.json", facts)
    if not results.summary.get("complete"):
        run_task(llm, task, results, time_limit=None if deadline is None else deadline - time.monotonic())
    return results


@contextmanager
def _model_when_needed(model: str, config: EngineConfig) -> Iterator[Callable[[], LLM]]:
    loaded: list[LLM] = []

    def load() -> LLM:
        if not loaded:
            loaded.append(llm_of(model, config))
        return loaded[0]

    try:
        yield load
    finally:
        for llm in loaded:
            llm.close()


def llm_of(model: str, config: EngineConfig) -> LLM:
    names = ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "kv_cache_memory", "enable_prefix_caching")
    more = ("executor", "num_threads", "seed", "speculative")
    return LLM(model, **{name: getattr(config, name) for name in (*names, *more)})
