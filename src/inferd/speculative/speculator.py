"""Speculator: how many guesses each decoding sequence gets, so that a step's tokens per second are the most.

More rows make a step slower, by what the clock has measured; a guess adds a token with the probability that the
sequence's past guesses were right. Where that loses, nothing is guessed but for a rare probe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from inferd.speculative.ngram import NgramIndex

MAX_DRAFTS = 8  # rows beside the sequence's own: 9 rows are still one GEMM tile
MAX_ROWS = 16  # of one step with guesses; beyond, the batch itself fills the tiles
_CHOICES = (2, 4, MAX_DRAFTS)
_LEARNING_RATE = 0.12
_PRIOR, _FORGETTING = 0.5, 0.02  # each chance not taken moves the belief back, so that it is tried again
_PROBE_EVERY = 128  # chances: keeps the clock's figure for these rows fresh when speculation is off


class Clock(Protocol):
    def decode_seconds(self, num_rows: int) -> float:
        """What a step of so many rows takes; 0 before anything was measured."""
        ...


@dataclass(slots=True)
class DraftState:
    """Of one sequence."""

    index: NgramIndex = field(default_factory=NgramIndex)
    acceptance: float = _PRIOR  # belief that the next guess is right, when those before it were

    def learn(self, num_drafts: int, num_accepted: int) -> None:
        for _ in range(num_accepted):
            self.acceptance += _LEARNING_RATE * (1 - self.acceptance)
        if num_accepted < num_drafts:
            self.acceptance -= _LEARNING_RATE * self.acceptance

    def forget(self) -> None:
        self.acceptance += _FORGETTING * (_PRIOR - self.acceptance)


def expected_tokens(acceptance: float, num_drafts: int) -> float:
    """Accepted of num_drafts guesses in a row."""
    total, chance = 0.0, 1.0
    for _ in range(num_drafts):
        chance *= acceptance
        total += chance
    return total


class Speculator:
    """max_rows: of one step, where the executor takes fewer than MAX_ROWS."""

    def __init__(self, clock: Clock, max_rows: int = MAX_ROWS) -> None:
        self._clock = clock
        self._max_rows = min(max_rows, MAX_ROWS)
        self._num_chances = 0

    def choose(self, proposals: list[tuple[DraftState, tuple[int, ...]]], num_rows: int) -> list[int]:
        """How many of each proposal's guesses to check, in a step that has num_rows rows without any."""
        if not proposals:
            return []
        self._num_chances += 1
        room = (self._max_rows - num_rows) // len(proposals)
        choices = [k for k in _CHOICES if k <= room]
        if not choices:
            return [0] * len(proposals)
        if self._num_chances % _PROBE_EVERY == 0:
            count = choices[min(1, len(choices) - 1)]
        else:
            count = max([0, *choices], key=lambda k: self._speed(proposals, num_rows, k))
        if count == 0:
            for state, _ in proposals:
                state.forget()
        return [min(count, len(drafts)) for _, drafts in proposals]

    def _speed(self, proposals: list[tuple[DraftState, tuple[int, ...]]], num_rows: int, count: int) -> float:
        """Tokens per second of a step with `count` guesses per proposal."""
        seconds = self._clock.decode_seconds(num_rows + count * len(proposals))
        tokens = num_rows + sum(expected_tokens(state.acceptance, count) for state, _ in proposals)
        return tokens / max(seconds, 1e-9)
