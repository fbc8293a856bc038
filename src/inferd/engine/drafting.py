"""Glue between the plan and speculation: which entries may carry guesses, and what their outcome teaches."""

from __future__ import annotations

from dataclasses import replace

from inferd.engine.scheduler import Scheduled, Scheduler
from inferd.speculative.speculator import MAX_DRAFTS, MAX_ROWS, DraftState, Speculator


def with_drafts(plan: list[Scheduled], scheduler: Scheduler, speculator: Speculator) -> list[Scheduled]:
    """The same plan with guesses on decoding sequences, on those of the foreground when it has any.

    A step that computes much of a prompt keeps its rows for that; the few rows that fill its room change nothing.
    """
    num_rows = sum(scheduled.num_tokens for scheduled in plan)
    if num_rows > MAX_ROWS:
        return plan
    is_background = all(scheduled.sequence.state.request.is_background for scheduled in plan)
    found: dict[int, tuple[DraftState, tuple[int, ...]]] = {}
    for at, scheduled in enumerate(plan):
        is_first = scheduled.sequence.state.request.is_background == is_background
        drafts = _propose(scheduled) if is_first and _decodes(scheduled) else ()
        if drafts:
            found[at] = scheduled.sequence.draft_state, drafts
    counts = speculator.choose(list(found.values()), num_rows)
    result = list(plan)
    for (at, (_, drafts)), count in zip(found.items(), counts, strict=True):
        if count and scheduler.extend(plan[at], count):
            result[at] = replace(plan[at], drafts=drafts[:count])
    return result


def _decodes(scheduled: Scheduled) -> bool:
    return scheduled.num_tokens == 1 and scheduled.samples and scheduled.sequence.pending_forks == 0


def _propose(scheduled: Scheduled) -> tuple[int, ...]:
    """Guesses for one sequence: only where a row needs no more than its numbers, and as many as it may still emit."""
    sequence = scheduled.sequence
    if not sequence.state.constraints.is_free:
        return ()
    room = min(sequence.state.max_tokens - sequence.num_output_tokens - 1, MAX_DRAFTS)
    if room <= 0:
        return ()
    matcher, guesses = sequence.matcher, sequence.draft_state.index.propose(sequence.token_ids, room)
    return guesses if matcher is None else matcher.forced()[:room] or matcher.cut(guesses)
