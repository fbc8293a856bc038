"""Quality: perplexity on a text, and how far a model's distributions are from those of a baseline."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from inferd.config import ExecutorName
from inferd.errors import ConfigError
from inferd.executors.base import F32, I32, SamplingBatch, StepBatch
from inferd.models.checkpoint import Checkpoint
from inferd.tokenizer import Tokenizer

F64 = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]  # windows done, windows in all

_BLOCK_SIZE = 32
_ROWS = 32  # distributions at a time: 40 MB in fp64 for a vocabulary of 152,000


class LogitsSource(Protocol):
    """What windows are scored with: an executor, or a file of an earlier run."""

    @property
    def vocab_size(self) -> int: ...

    def logits(self, index: int, window: I32) -> F32:
        """Logits of window number `index`, (window, vocab): row p foretells token p + 1. A constant per row is free."""
        ...

    def close(self) -> None: ...


def windows_of(tokenizer: Tokenizer, text: str, size: int, limit: int | None = None) -> I32:
    """The text cut into pieces, each behind the model's first token where it wants one: (num_windows, size).

    Raises ConfigError when the text is shorter than one window.
    """
    if size % _BLOCK_SIZE or size < _BLOCK_SIZE:
        raise ConfigError(f"window must be a multiple of {_BLOCK_SIZE}, got {size}")
    ids = tokenizer.encode(text, add_special_tokens=False)
    bos = [tokenizer.bos_token_id] if tokenizer.add_bos and tokenizer.bos_token_id is not None else []
    num_windows = min(len(ids) // size, limit or len(ids))
    if num_windows == 0:
        raise ConfigError(f"window must be at most the {len(ids)} tokens of the text, got {size}")
    rows = [[*bos, *ids[i * size : (i + 1) * size]][:size] for i in range(num_windows)]
    return np.array(rows, np.int32)


class ExecutorLogits:
    """Runs whole windows as prompts, one after the other, on an executor of its own."""

    def __init__(self, checkpoint: Checkpoint, executor: ExecutorName, window: int, num_threads: int) -> None:
        blocks = {"num_blocks": window // _BLOCK_SIZE, "block_size": _BLOCK_SIZE}
        sizes: dict[str, Any] = blocks | {"max_num_batched_tokens": window}
        self._vocab_size = checkpoint.spec.vocab_size
        if executor == "reference":
            from inferd.executors.reference import ReferenceExecutor

            self._executor: Any = ReferenceExecutor(checkpoint, **sizes)
        else:
            from inferd.executors.native import NativeExecutor

            limits: dict[str, Any] = {"max_num_seqs": 1, "max_model_len": window, "num_threads": num_threads}
            self._executor = NativeExecutor(checkpoint, **sizes, **limits, progress=None)

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    def logits(self, index: int, window: I32) -> F32:
        logits: F32 = self._executor.logits(_prompt(window, self._vocab_size))
        return logits

    def close(self) -> None:
        self._executor.close()


def _prompt(window: I32, vocab_size: int) -> StepBatch:
    """One sequence from its start, with logits of every row."""
    size = len(window)

    def rows(value: float, dtype: npt.DTypeLike) -> Any:
        return np.full(size, value, dtype)  # (size,)

    starts, nothing = np.zeros(size + 1, np.int32), np.empty(0, np.int32)
    sampling = SamplingBatch(
        temperature=rows(0, np.float32), top_k=rows(0, np.int32), top_p=rows(1, np.float32),
        min_p=rows(0, np.float32), typical_p=rows(1, np.float32), seed=rows(0, np.uint64),
        draw_index=rows(0, np.int64), repetition_penalty=rows(1, np.float32),
        frequency_penalty=rows(0, np.float32), presence_penalty=rows(0, np.float32),
        target=rows(0, np.int32), num_logprobs=rows(-1, np.int32),
        penalty_starts=starts, penalty_ids=nothing, penalty_counts=nothing,
        bias_starts=starts, bias_ids=nothing, bias_values=np.empty(0, np.float32),
        mask_index=rows(-1, np.int32), allowed_masks=np.empty((0, (vocab_size + 31) // 32), np.uint32),
    )  # fmt: skip
    return StepBatch(
        token_ids=np.ascontiguousarray(window, np.int32),
        query_starts=np.array([0, size], np.int32),
        context_lens=np.zeros(1, np.int32),
        adapter_ids=np.full(1, -1, np.int32),
        block_tables=np.arange(size // _BLOCK_SIZE, dtype=np.int32).reshape(1, -1),
        block_copies=np.empty((0, 2), np.int32),
        logit_rows=np.arange(size, dtype=np.int32),
        sampling=sampling,
    )


@dataclass(frozen=True, slots=True)
class WindowScore:
    """Of one window of size S. Natural logarithms."""

    nll: F64  # (S - 1,) of the next token; the last row foretells none that is known
    baseline_nll: F64  # the same of the baseline; empty without one
    kl: F64  # (S,) KL(baseline || model); empty without a baseline
    same_top: npt.NDArray[np.bool_]  # (S,) ties go to the lower id; empty without a baseline


def score(window: I32, logits: F32, baseline: F32 | None) -> WindowScore:
    """logits, baseline: (S, vocab)."""
    nll, baseline_nll, kl, same_top = [], [], [], []
    targets = np.append(window[1:], window[-1])  # the last one is dropped below
    for begin in range(0, len(window), _ROWS):
        rows = slice(begin, begin + _ROWS)
        q = log_softmax(logits[rows])
        nll.append(-_pick(q, targets[rows]))
        if baseline is not None:
            p = log_softmax(baseline[rows])
            baseline_nll.append(-_pick(p, targets[rows]))
            kl.append((np.exp(p) * (p - q)).sum(axis=1))
            same_top.append(p.argmax(axis=1) == q.argmax(axis=1))
    return WindowScore(_join(nll)[:-1], _join(baseline_nll)[:-1], _join(kl), _join(same_top).astype(bool))


def log_softmax(logits: F32) -> F64:
    """(rows, vocab), in fp64: the differences of interest are of the order 1e-3."""
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
    return x


def _pick(x: F64, columns: I32) -> F64:
    picked: F64 = np.take_along_axis(x, columns.astype(np.int64)[:, None], axis=1)[:, 0]
    return picked


def _join(parts: list[Any]) -> F64:
    return np.concatenate(parts) if parts else np.empty(0)


def no_progress(done: int, total: int) -> None:
    pass


def measure(
    model: LogitsSource, windows: I32, baseline: LogitsSource | None = None, progress: Progress = no_progress
) -> dict[str, Any]:
    """Figures over all windows, and their second halves, which is what other tools report. KL in nats per token."""
    scores = list(_scores(model, windows, baseline, progress))
    half = windows.shape[1] // 2
    facts: dict[str, Any] = {"tokens": int(windows.size), "window": int(windows.shape[1])}
    facts["perplexity"] = _perplexity([s.nll for s in scores])
    facts["perplexity_of_second_halves"] = _perplexity([s.nll[half:] for s in scores])
    if baseline is not None:
        kl, same = _join([s.kl for s in scores]), _join([s.same_top for s in scores])
        facts |= {
            "baseline_perplexity": _perplexity([s.baseline_nll for s in scores]),
            "kl_nats_per_token": round(float(kl.mean()), 5),
            "kl_of_second_halves": round(float(_join([s.kl[half:] for s in scores]).mean()), 5),
            "kl_99th_percentile": round(float(np.percentile(kl, 99)), 5),
            "same_top_token": round(float(same.mean()), 4),
        }
    return facts


def _scores(
    model: LogitsSource, windows: I32, baseline: LogitsSource | None, progress: Progress
) -> Iterator[WindowScore]:
    for index, window in enumerate(windows):
        logits = model.logits(index, window)
        yield score(window, logits, None if baseline is None else baseline.logits(index, window))
        progress(index + 1, len(windows))


def _perplexity(nll: list[F64]) -> dict[str, float]:
    values = _join(nll)
    perplexity = math.exp(values.mean())
    error = perplexity * float(values.std(ddof=1)) / math.sqrt(len(values))
    return {"value": round(perplexity, 4), "standard_error": round(error, 4)}
