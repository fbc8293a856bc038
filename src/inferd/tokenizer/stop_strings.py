"""Stop strings in streamed text: holds back only what may still become one."""

from __future__ import annotations

from collections.abc import Sequence


class StopStringMatcher:
    """Finds the stop string that is complete first; among those complete at the same place, the longest."""

    def __init__(self, stops: Sequence[str], *, include: bool) -> None:
        self._stops = tuple(stops)
        self._include = include
        self._held = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """(text to release, the stop string that matched or None). Nothing may follow a match."""
        if not self._stops:
            return text, None
        self._held += text
        match = self._first_match()
        if match is not None:
            begin, stop = match
            released, self._held = self._held[: begin + (len(stop) if self._include else 0)], ""
            return released, stop
        keep = self._possible_prefix_len()
        cut = len(self._held) - keep
        released, self._held = self._held[:cut], self._held[cut:]
        return released, None

    def flush(self) -> str:
        """The text held back when no more comes."""
        released, self._held = self._held, ""
        return released

    def _first_match(self) -> tuple[int, str] | None:
        found = ((self._held.find(stop), stop) for stop in self._stops)
        ends = [(begin + len(stop), begin, stop) for begin, stop in found if begin >= 0]
        if not ends:
            return None
        _, begin, stop = min(ends)  # the earliest end; then the earliest begin, which is the longest
        return begin, stop

    def _possible_prefix_len(self) -> int:
        """How many of the last characters begin a stop string."""
        longest = max(map(len, self._stops)) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            tail = self._held[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
