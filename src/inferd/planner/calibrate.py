"""Fits: two anchors for one deployment, a non-negative basis fit for a family of runs, and a machine's own timer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from inferd.errors import ConfigError

SWEEPS = 4000
EXTRAPOLATION = 2.0  # how far beyond the largest measured batch or context a prediction may reach


def nonnegative_fit(
    rows: Sequence[Sequence[float]], targets: Sequence[float], prior: Sequence[float], ridge: float = 1e-3
) -> tuple[float, ...]:
    """Coefficients >= 0, of least squared relative error, pulled to `prior`; coordinate descent on the Gram matrix.

    rows (n, k): terms of each observation; targets (n,): seconds, > 0; prior (k,) also scales each column.
    """
    k = len(prior)
    scaled = [[x * p / t for x, p in zip(row, prior, strict=True)] for row, t in zip(rows, targets, strict=True)]
    weight = ridge * len(rows)
    gram = [[sum(r[i] * r[j] for r in scaled) + (weight if i == j else 0) for j in range(k)] for i in range(k)]
    right = [sum(r[i] for r in scaled) + weight for i in range(k)]
    solution = [1.0] * k
    for _ in range(SWEEPS):
        moved = 0.0
        for i in range(k):
            rest = sum(g * s for g, s in zip(gram[i], solution, strict=True)) - gram[i][i] * solution[i]
            new = max(0.0, (right[i] - rest) / gram[i][i])
            moved = max(moved, abs(new - solution[i]))
            solution[i] = new
        if moved < 1e-9:
            break
    return tuple(s * p for s, p in zip(solution, prior, strict=True))


def line_through(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """(a, b), both >= 0, of y = a + b x: exact on two points where the signs allow, least squares otherwise."""
    n, mean_x, mean_y = len(x), sum(x) / len(x), sum(y) / len(y)
    spread = sum((v - mean_x) ** 2 for v in x)
    if n < 2 or spread == 0:
        raise ConfigError("calibration needs two anchors of different predicted time, as batch 1 and the largest batch")
    slope = sum((u - mean_x) * (v - mean_y) for u, v in zip(x, y, strict=True)) / spread
    if slope < 0:
        return mean_y, 0.0
    if mean_y - slope * mean_x < 0:
        return 0.0, sum(u * v for u, v in zip(x, y, strict=True)) / sum(v * v for v in x)
    return mean_y - slope * mean_x, slope


@dataclass(frozen=True, slots=True)
class Anchor:
    """One measured decode step: sequences, mean tokens that each holds, seconds."""

    batch: float
    context: float
    seconds: float


@dataclass(frozen=True, slots=True)
class PromptAnchor:
    """`count` measured prompts of `tokens` each, computed in one step with nothing cached and nothing decoded."""

    tokens: int
    seconds: float
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Measured steps of one model on one machine by one engine, and what they were measured with."""

    model: str
    host: str
    engine: str
    date: str
    prompts: str  # what was run
    decode: tuple[Anchor, ...]
    prefill: tuple[PromptAnchor, ...]

    def __post_init__(self) -> None:
        if len({anchor.batch for anchor in self.decode}) < 2 or not self.prefill:
            raise ConfigError("calibration: needs decode steps at two batches at least, and one prompt")
        if any(anchor.seconds <= 0 or anchor.batch < 1 for anchor in self.decode):
            raise ConfigError("calibration: decode: batch must be at least 1 and seconds above 0")
        if any(prompt.seconds <= 0 or prompt.tokens < 1 or prompt.count < 1 for prompt in self.prefill):
            raise ConfigError("calibration: prefill: tokens and count must be at least 1 and seconds above 0")

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @property
    def largest_batch(self) -> float:
        return max(anchor.batch for anchor in self.decode)

    @property
    def largest_context(self) -> float:
        return max(max(a.context for a in self.decode), max(p.tokens for p in self.prefill))

    def out_of_range(self, batch: float, context: float) -> list[str]:
        """What lies beyond EXTRAPOLATION times the largest measured value."""
        pairs = (("batch", batch, self.largest_batch), ("context", context, self.largest_context))
        return [
            f"{name} {value:.0f} is more than {EXTRAPOLATION:g} times the largest measured ({most:.0f})"
            for name, value, most in pairs
            if value > EXTRAPOLATION * most
        ]


def calibration_from_json(text: str, name: str) -> Calibration:
    """Raises ConfigError that names the file and the key."""
    try:
        values: dict[str, Any] = json.loads(text)
        values["decode"] = tuple(Anchor(**anchor) for anchor in values["decode"])
        values["prefill"] = tuple(PromptAnchor(**prompt) for prompt in values["prefill"])
        return Calibration(**values)
    except KeyError as error:
        raise ConfigError(f"calibration: {name} lacks {error}") from None
    except (ValueError, TypeError) as error:
        raise ConfigError(f"calibration: {name}: {error}") from None


class CalibratedTimer:
    """StepTimer between measured points: lines over the batch, one slope for the context, prompts quadratic."""

    def __init__(self, calibration: Calibration) -> None:
        self._slope = _context_slope(calibration.decode)  # seconds for each sequence and cached token
        self._base = _base_by_batch(calibration.decode, self._slope)
        self._prompt = _prompt_fit(calibration.prefill)

    def decode(self, batch: float, context: float) -> float:
        return _on_lines(self._base, batch) + self._slope * batch * context

    def prefill(self, tokens: float, cached: float) -> float:
        _, linear, square = self._prompt
        return tokens * (linear + square * (cached + tokens / 2))

    @property
    def empty_step(self) -> float:
        return self._prompt[0]


def _prompt_fit(prompts: Sequence[PromptAnchor]) -> tuple[float, ...]:
    """Seconds of a step, of each token, and of each pair of tokens that see each other."""
    rows = [(1.0, float(p.count * p.tokens), p.count * p.tokens**2 / 2) for p in prompts]
    rate = min(p.seconds / (p.count * p.tokens) for p in prompts)
    prior = (0.1 * min(p.seconds for p in prompts), rate, 0.1 * rate / max(p.tokens for p in prompts))
    return nonnegative_fit(rows, [p.seconds for p in prompts], prior, ridge=1e-6)


def _context_slope(anchors: Sequence[Anchor]) -> float:
    """From pairs of one batch at different contexts: the median slope, 0 when there is none."""
    slopes = [
        (b.seconds - a.seconds) / (a.batch * (b.context - a.context))
        for a in anchors
        for b in anchors
        if a.batch == b.batch and b.context > 1.5 * a.context
    ]
    return max(0.0, median(slopes)) if slopes else 0.0


def _base_by_batch(anchors: Sequence[Anchor], slope: float) -> list[tuple[float, float]]:
    """(batch, seconds at context 0), batches rising."""
    by_batch: dict[float, list[float]] = {}
    for anchor in anchors:
        by_batch.setdefault(anchor.batch, []).append(anchor.seconds - slope * anchor.batch * anchor.context)
    return [(batch, sum(values) / len(values)) for batch, values in sorted(by_batch.items())]


def _on_lines(points: Sequence[tuple[float, float]], at: float) -> float:
    """Linear between neighbours, and on with the last two beyond them; below the first batch its own value."""
    if at <= points[0][0]:
        return points[0][1]
    pairs = list(pairwise(points))
    (x0, y0), (x1, y1) = next((pair for pair in pairs if at <= pair[1][0]), pairs[-1])
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0)
