"""StepClock: what a step costs on this machine, learned from the steps themselves."""

from __future__ import annotations

_MAX_ROWS = 64  # decode rows with a figure of their own
_WEIGHT = 0.15  # of a new measurement
_MAX_JUMP = 1.5  # a measurement counts as at most this much more than the figure: a stall is not a cost
_FIRST_GUESS_PER_ROW = 0.04  # of a one-row step, for each further row, until measured


class StepClock:
    """Seconds per step: by number of decode rows, and per prefill row on top. Figures follow the machine's speed."""

    def __init__(self) -> None:
        self._decode: list[float] = [0.0] * (_MAX_ROWS + 1)  # seconds by rows; 0 = never seen
        self._per_prefill_row = 0.0

    def observe(self, num_decode_rows: int, num_prefill_rows: int, seconds: float) -> None:
        if num_prefill_rows == 0:
            at = min(num_decode_rows, _MAX_ROWS)
            self._decode[at] = _blend(self._decode[at], seconds)
        elif num_prefill_rows >= 16:  # smaller chunks say little about the cost of one row
            extra = seconds - (self.decode_seconds(num_decode_rows) if num_decode_rows else 0.0)
            if extra > 0:
                self._per_prefill_row = _blend(self._per_prefill_row, extra / num_prefill_rows)

    def decode_seconds(self, num_rows: int) -> float:
        """Of a step with so many decode rows: measured, or a line through the nearest measured ones; 0 = no idea."""
        at = min(num_rows, _MAX_ROWS)
        if self._decode[at]:
            return self._decode[at]
        below = next((r for r in range(at - 1, 0, -1) if self._decode[r]), None)
        above = next((r for r in range(at + 1, _MAX_ROWS + 1) if self._decode[r]), None)
        if below is None:
            return self._decode[above] if above is not None else 0.0
        low = self._decode[below]
        if above is None:
            return low * (1 + _FIRST_GUESS_PER_ROW * (at - below))
        return low + (self._decode[above] - low) * (at - below) / (above - below)

    def prefill_rows_within(self, seconds: float, num_decode_rows: int) -> int | None:
        """How many prefill rows fit beside the decodes in so much time; None before one was measured."""
        if not self._per_prefill_row:
            return None
        return int(max(0.0, seconds - self.decode_seconds(num_decode_rows)) / self._per_prefill_row)


def _blend(old: float, new: float) -> float:
    if not old:
        return new
    return old + _WEIGHT * (min(new, old * _MAX_JUMP) - old)
