"""Figure: a number that says what it is. Nothing leaves the planner as a bare float."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

Label = Literal["measured", "calibrated", "derived", "assumed", "unknown"]
WEAKEST_FIRST: tuple[Label, ...] = ("unknown", "assumed", "derived", "calibrated", "measured")


@dataclass(frozen=True, slots=True)
class Figure:
    """value in `unit`; low and high bound it where the planner knows how far it is off.

    measured: read from a run or a file. calibrated: a model fitted to measured points. derived: arithmetic on data
    sheet values and shapes. assumed: a default that nobody measured here. unknown: value is NaN, `note` says why.
    """

    value: float
    unit: str
    label: Label
    note: str = ""
    low: float | None = None
    high: float | None = None

    def scaled(self, factor: float, unit: str) -> Figure:
        low, high = (None if bound is None else bound * factor for bound in (self.low, self.high))
        return replace(self, value=self.value * factor, unit=unit, low=low, high=high)

    @property
    def is_known(self) -> bool:
        return not math.isnan(self.value)

    def text(self) -> str:
        if not self.is_known:
            return "unknown"
        if math.isinf(self.value):
            return "never"
        is_money = self.unit == "$"
        shown = f"${short(self.value)}" if is_money else f"{short(self.value)} {self.unit}".rstrip()
        if self.low is not None and self.high is not None:
            shown += f" ({short(self.low)} to {short(self.high)})"
        return shown.replace("$-", "-$")


def unknown(unit: str, why: str) -> Figure:
    return Figure(math.nan, unit, "unknown", why)


def weakest(*labels: Label) -> Label:
    """What arithmetic on figures of these labels may call itself."""
    return min(labels, key=WEAKEST_FIRST.index)


def short(value: float) -> str:
    """Four significant digits at most, thousands set apart: 34812.3 -> 34,812; 0.075512 -> 0.07551."""
    if value == 0 or math.isinf(value):
        return str(value) if value else "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
