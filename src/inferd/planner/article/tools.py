"""What the rules share: the model and prices of the article, ratios as text, measured points by id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from inferd.planner.shapes import preset
from inferd.planner.tables import Row, read_table

LLAMA = preset("llama-3-70b")
KV_TOKEN = LLAMA.kv_elements_per_token * 2.0  # bytes, 16 bits
HOURS = 36 / 12 * 8760.0
DAYS = HOURS / 24
UTILIZATION = 0.8
TCO_USD = (580e3, 760e3)  # claimed
EXACT, ROUNDING = 0.01, 0.05  # relative error below which a claim holds, and holds within rounding


@dataclass(frozen=True, slots=True)
class Computed:
    numbers: str
    verdict: str


Rule = Callable[[], Computed]


def judged(claimed: float, actual: float, digits: int = 0) -> str:
    """HOLDS, HOLDS within rounding, or WRONG by a factor of at least 1."""
    error = claimed / actual - 1
    if abs(error) <= EXACT:
        return "HOLDS"
    if abs(error) <= ROUNDING:
        return f"HOLDS within rounding ({error:+.0%})"
    return f"WRONG by x{max(claimed / actual, actual / claimed):.{digits}f}"


def factors(low: float, high: float, digits: int = 0) -> str:
    return f"x{low:.{digits}f}-{high:.{digits}f}"


def point(point_id: str) -> Row:
    """A row of validation_points.csv."""
    return next(row for row in read_table("validation_points") if row["id"] == point_id)


def rate(point_id: str) -> float:
    """Output tokens/s of the whole system; TensorRT-LLM rows give one GPU's share."""
    row = point(point_id)
    return float(row["tok_s"]) if row["tok_s"] else 8 * float(row["tok_s_per_accel"])


def chosen(conditions: tuple[tuple[bool, str], ...]) -> str:
    """The texts whose condition is true, joined by "; "."""
    return "; ".join(text for holds, text in conditions if holds) or "HOLDS"
