"""The end of reasoning that has used up its tokens: its marker is written for the model, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from inferd.types import ThinkingBudget

FORCE = 1e9  # added to a logit: nothing else is drawn


class Encoder(Protocol):
    def encode(self, text: str, *, add_special_tokens: bool = True, parse_special: bool = False) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class EndOfThinking:
    """A function of an output alone, so that it holds after a preemption and for every sibling."""

    num_tokens: int
    begin_ids: tuple[int, ...]
    end_ids: tuple[int, ...]  # the marker, as a model writes it
    forced_ids: tuple[int, ...]  # and as it is written here

    def next_id(self, output_ids: Sequence[int]) -> int | None:
        """The token that must follow; None where the model is free."""
        first = len(self.begin_ids) + self.num_tokens
        at = len(output_ids) - first
        if not 0 <= at < len(self.forced_ids) or tuple(output_ids[: len(self.begin_ids)]) != self.begin_ids:
            return None
        return None if _contains(output_ids[:first], self.end_ids) else self.forced_ids[at]


def end_of_thinking(budget: ThinkingBudget | None, encoder: Encoder) -> EndOfThinking | None:
    if budget is None:
        return None

    def ids(text: str) -> tuple[int, ...]:
        return tuple(encoder.encode(text, add_special_tokens=False, parse_special=True)) if text else ()

    line = "\n" if budget.num_tokens else ""
    return EndOfThinking(budget.num_tokens, ids(budget.begin), ids(budget.end), ids(f"{line}{budget.end}\n\n"))


def _contains(ids: Sequence[int], part: tuple[int, ...]) -> bool:
    size = len(part)
    return any(tuple(ids[at : at + size]) == part for at in range(len(ids) - size + 1))
