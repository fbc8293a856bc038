"""Glue between the plan and speculation: which entries may carry guesses, and what their outcome teaches."""

from __future__ import annotations

from dataclasses import replace

from inferd.engine.scheduler import Scheduled, Scheduler
from inferd.speculative.speculator import MAX_DRAFTS, DraftState, Speculator


def with_drafts(plan: list[Scheduled], scheduler: Scheduler, speculator: Speculator) -> list[Scheduled]:
    """The same plan with guesses on decoding sequences. A step that prefills keeps its rows for that."""
    if not all(_decodes(scheduled) for scheduled in plan):
        return plan
    found: dict[int, tuple[DraftState, tuple[int, ...]]] = {}
    for at, scheduled in enumerate(plan):
        drafts = _propose(scheduled)
        if drafts:
            found[at] = scheduled.sequence.draft_state, drafts
    counts = speculator.choose(list(found.values()), len(plan))
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
    room = sequence.state.max_tokens - sequence.num_output_tokens - 1
    return sequence.draft_state.index.propose(sequence.token_ids, min(room, MAX_DRAFTS)) if room > 0 else ()
