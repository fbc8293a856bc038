"""StepClock: what a step costs on this machine, learned from the steps themselves."""

from __future__ import annotations

_MAX_ROWS = 64  # decode rows with a figure of their own
_WEIGHT = 0.15  # of a new measurement
_MAX_JUMP = 1.5  # a measurement counts as at most this much more than the figure: a stall is not a cost
_MIN_PREFILL = 16  # rows of a prompt; fewer cost about as much as rows of decodes, and say little about long chunks
_LINE_WEIGHT = 0.03  # of the latest step
_MIN_VARIANCE = 0.02
_MIN_SHARE_OF_MEAN = 0.5  # a row of 0.42 ms among 4 of 0.83 on average; a slope far below is noise
_FIRST_GUESS_PER_ROW = 0.04  # of a one-row step, for each further row, until measured


class StepClock:
    """Seconds per step: by number of decode rows, and per prefill row on top. Figures follow the machine's speed."""

    def __init__(self) -> None:
        self._decode: list[float] = [0.0] * (_MAX_ROWS + 1)  # seconds by rows; 0 = never seen
        self._per_prefill_row = 0.0
        self._line = RowLine()

    def observe(self, num_decode_rows: int, num_prefill_rows: int, seconds: float) -> None:
        if num_prefill_rows < _MIN_PREFILL:
            self._line.observe(num_decode_rows + num_prefill_rows, seconds)
        if num_prefill_rows == 0:
            at = min(num_decode_rows, _MAX_ROWS)
            self._decode[at] = _blend(self._decode[at], seconds)
        elif num_prefill_rows >= _MIN_PREFILL:
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

    def step_seconds(self, num_decode_rows: int, num_prefill_rows: int) -> float:
        """Of a step with both; 0 = no idea."""
        if num_prefill_rows < _MIN_PREFILL:
            return self._line.seconds(num_decode_rows + num_prefill_rows)
        return self._line.seconds(num_decode_rows) + num_prefill_rows * self._per_prefill_row

    def row_seconds(self, num_prefill_rows: int) -> tuple[float, float]:
        """What one more row costs a step with so many of prompts: (of a decode, of a prompt); 0 = no idea."""
        is_small = num_prefill_rows < _MIN_PREFILL
        return self._line.per_row, self._line.per_row if is_small else self._per_prefill_row

    def prefill_rows_within(self, seconds: float, num_decode_rows: int) -> int | None:
        """How many prefill rows fit beside the decodes in so much time; None before one was measured."""
        if not self._per_prefill_row:
            return None
        return int(max(0.0, seconds - self.decode_seconds(num_decode_rows)) / self._per_prefill_row)


class RowLine:
    """Seconds of a small step as a line over its rows, through the latest steps: what one more row costs.

    The table of decode rows is too rough for that: its neighbours were measured at other times, and two figures of 3.4
    and 3.5 ms differ by as much as a row costs.
    """

    def __init__(self) -> None:
        self._num_steps = 0
        self._rows = self._seconds = 0.0  # means
        self._variance = self._covariance = 0.0  # of rows; of rows and seconds
        self._slope = 0.0

    def observe(self, num_rows: int, seconds: float) -> None:
        self._num_steps += 1
        if self._num_steps == 1:
            self._rows, self._seconds = num_rows, seconds
            return
        weight = max(_LINE_WEIGHT, 1 / self._num_steps)
        off_rows = num_rows - self._rows
        off_seconds = min(seconds, self.seconds(num_rows) * _MAX_JUMP) - self._seconds
        self._rows += weight * off_rows
        self._seconds += weight * off_seconds
        self._variance = (1 - weight) * (self._variance + weight * off_rows * off_rows)
        self._covariance = (1 - weight) * (self._covariance + weight * off_rows * off_seconds)
        if self._variance > _MIN_VARIANCE:  # else steps are all alike, and the slope stays what it was
            self._slope = self._covariance / self._variance

    @property
    def per_row(self) -> float:
        """At most the mean of all rows, and that before anything better is known; 0 = no idea."""
        if not self._seconds:
            return 0.0
        mean = self._seconds / self._rows
        return min(mean, max(self._slope, _MIN_SHARE_OF_MEAN * mean)) if self._slope else mean

    def seconds(self, num_rows: int) -> float:
        return max(0.0, self._seconds + self.per_row * (num_rows - self._rows))


class Room:
    """What steps may take on beyond their own rows: as much as makes them MAX_STRETCH times as long on average.

    What a step leaves of it is there for the next, up to the cost of one row: where a row takes a fifth of a step,
    three of four steps have room for one.
    """

    MAX_STRETCH = 1.15

    def __init__(self, clock: StepClock) -> None:
        self._clock = clock
        self._left = 0.0  # seconds
        self._is_endless = False
        self._last_seconds = 0.0  # of the last step with rows of its own, without more
        self._own = 0, 0
        self._per_row = 0.0, 0.0

    def open(self, num_decode_rows: int, num_prefill_rows: int, *, is_pause: bool = False) -> None:
        """For a step with so many rows of its own. One without any has room for everything, but in a pause of those
        that come first only for as much as makes it as long as their last one."""
        self._own = num_decode_rows, num_prefill_rows
        self._is_endless = self._own == (0, 0) and not is_pause
        self._per_row = self._clock.row_seconds(num_prefill_rows)
        seconds = self._clock.step_seconds(num_decode_rows, num_prefill_rows)
        if self._own != (0, 0):
            self._last_seconds = seconds
            self._left = min(self._left, self._per_row[0]) + (self.MAX_STRETCH - 1) * seconds
        else:
            self._left = self._last_seconds - seconds

    def rows(self, wanted: int, num_decode_rows: int, num_prefill_rows: int) -> int:
        """How many of the wanted rows fit when the step has so many by now: 1 is of a decode, more are of a prompt."""
        if self._is_endless:
            return wanted
        per_row = self._per_row[wanted > 1]
        left = self._left - self._taken(num_decode_rows, num_prefill_rows)
        return max(0, min(wanted, int(left / per_row + 1e-6))) if per_row else 0

    def close(self, num_decode_rows: int, num_prefill_rows: int) -> None:
        """The step is planned, with so many rows."""
        self._left = max(0.0, self._left - self._taken(num_decode_rows, num_prefill_rows))

    def _taken(self, num_decode_rows: int, num_prefill_rows: int) -> float:
        more_decodes, more_prefills = num_decode_rows - self._own[0], num_prefill_rows - self._own[1]
        return more_decodes * self._per_row[0] + more_prefills * self._per_row[1]


def _blend(old: float, new: float) -> float:
    if not old:
        return new
    return old + _WEIGHT * (min(new, old * _MAX_JUMP) - old)
