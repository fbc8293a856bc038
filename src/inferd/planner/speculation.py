"""Speculative decoding: tokens of a verify step, and what that is worth."""

from __future__ import annotations

from inferd.planner.tables import require


def tokens_per_verify(acceptance: float, guesses: int) -> float:
    """Mean tokens of one verify step: (1 - a^(g+1)) / (1 - a)."""
    require("acceptance", acceptance, 0, 1)
    require("guesses", guesses, 1, 64)
    return guesses + 1.0 if acceptance == 1 else (1 - acceptance ** (guesses + 1)) / (1 - acceptance)


def speedup(acceptance: float, guesses: int, draft_cost: float, verify_cost: float) -> float:
    """Over plain decoding. draft_cost: one draft step in target steps; verify_cost: a step over guesses + 1 tokens for
    each sequence in plain steps: 1 while bound by memory, guesses + 1 when bound by arithmetic."""
    require("draft_cost", draft_cost, 0, 10)
    require("verify_cost", verify_cost, 1, 65)
    return tokens_per_verify(acceptance, guesses) / (guesses * draft_cost + verify_cost)
