"""A model scored on a text file, alone or against a baseline: what `inferd eval quality` runs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferd.config import EngineConfig, ExecutorName
from inferd.errors import ConfigError
from inferd.eval.baseline import BaselineFile, is_baseline, write_baseline
from inferd.eval.data import digest
from inferd.eval.quality import ExecutorLogits, LogitsSource, Progress, measure, no_progress, windows_of
from inferd.eval.results import Results, executor_facts, model_facts, versions
from inferd.executors.base import I32
from inferd.models.checkpoint import Checkpoint
from inferd.models.loader import load_checkpoint
from inferd.models.store import resolve
from inferd.tokenizer import load_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """text: a UTF-8 file, cut into windows of `window` tokens, a multiple of 32. num_windows None: all of it."""

    text: Path
    window: int = 512
    num_windows: int | None = None
    executor: ExecutorName = "native"
    num_threads: int | None = None


def compare(
    model: str,
    scoring: Scoring,
    baseline: str | None = None,
    output: Path | None = None,
    progress: Progress = no_progress,
) -> Results:
    """Perplexity and, with a baseline, KL divergence and agreement. baseline: "reference" (the same model in NumPy), a
    baseline file, or another model of the same tokenizer. Raises ConfigError, DataError and what loading a model does.
    """
    checkpoint, windows = _open(model, scoring)
    facts = _facts(checkpoint, scoring, scoring.executor, windows)
    other: LogitsSource | None = None
    if baseline is not None:
        other, facts["baseline"] = _open_baseline(baseline, checkpoint, scoring, windows)
    results = Results(output, facts)
    if results.summary.get("complete"):
        return results
    begin = time.monotonic()
    source = _logits_of(checkpoint, scoring, scoring.executor)
    results.summary = {"complete": True, **measure(source, windows, other, progress)}
    results.seconds = time.monotonic() - begin
    for one in (source, other):
        if one is not None:
            one.close()
    results.save()
    return results


def record(model: str, scoring: Scoring, path: Path, progress: Progress = no_progress) -> None:
    """Writes the model's distributions as a baseline file: 2 bytes for each token of the text and of the vocabulary."""
    checkpoint, windows = _open(model, scoring)
    source = _logits_of(checkpoint, scoring, scoring.executor)
    write_baseline(path, source, windows, _facts(checkpoint, scoring, scoring.executor, windows), progress)
    source.close()


def _open(model: str, scoring: Scoring) -> tuple[Checkpoint, I32]:
    checkpoint = load_checkpoint(resolve(model))
    try:
        text = scoring.text.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{scoring.text} must be UTF-8: {error}") from error
    tokenizer = load_tokenizer(checkpoint.tokenizer, checkpoint.spec.vocab_size)
    return checkpoint, windows_of(tokenizer, text, scoring.window, scoring.num_windows)


def _facts(checkpoint: Checkpoint, scoring: Scoring, executor: ExecutorName, windows: I32) -> dict[str, Any]:
    data = {"file": scoring.text.name, "sha256": digest([scoring.text]), "num_windows": len(windows)}
    return {
        "task": "quality",
        "model": model_facts(checkpoint),
        "executor": executor_facts(executor),
        "data": {**data, "window": scoring.window},
        "prompt_format": "text",
        "sampling": None,  # every token of the text is scored, none is drawn
        "seed": None,
        "versions": versions(),
    }


def _logits_of(checkpoint: Checkpoint, scoring: Scoring, executor: ExecutorName) -> ExecutorLogits:
    config = EngineConfig(executor=executor, num_threads=scoring.num_threads)
    return ExecutorLogits(checkpoint, executor, scoring.window, config.resolved_num_threads)


def _open_baseline(
    baseline: str, checkpoint: Checkpoint, scoring: Scoring, windows: I32
) -> tuple[LogitsSource, dict[str, Any]]:
    if baseline == "reference":
        facts = _facts(checkpoint, scoring, "reference", windows)
        return _logits_of(checkpoint, scoring, "reference"), facts
    path = Path(baseline)
    if path.is_file() and is_baseline(path):
        file = BaselineFile(path, windows, checkpoint.spec.vocab_size)
        return file, file.facts
    other, same_windows = _open(baseline, scoring)
    if other.spec.vocab_size != checkpoint.spec.vocab_size or not (
        windows.shape == same_windows.shape and (windows == same_windows).all()
    ):
        raise ConfigError(f"baseline {baseline} must have the tokenizer of the model")
    return _logits_of(other, scoring, scoring.executor), _facts(other, scoring, scoring.executor, windows)
