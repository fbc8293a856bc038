"""What a step's result means for a sequence: its logprobs, its text, whether it ends, and the event that says so."""

from __future__ import annotations

from inferd.engine.batch import Rows
from inferd.engine.scheduler import Scheduled
from inferd.engine.sequence import Sequence
from inferd.executors.base import StepResult
from inferd.types import FinishReason, PositionLogprobs, TokenEvent, TokenLogprob


class StepOutputs:
    """One step's result, read row by row."""

    def __init__(self, result: StepResult) -> None:
        self._result = result
        self.token_ids: list[int] = result.token_ids.tolist()

    def logprobs(self, row: int, count: int) -> PositionLogprobs:
        """count: how many of the best tokens to report beside the chosen one."""
        r = self._result
        chosen = TokenLogprob(self.token_ids[row], float(r.logprobs[row]), int(r.ranks[row]))
        ids, values = r.top_ids[row, :count].tolist(), r.top_logprobs[row, :count].tolist()
        best = enumerate(zip(ids, values, strict=True), start=1)
        return PositionLogprobs(chosen, tuple(TokenLogprob(i, value, rank) for rank, (i, value) in best if i >= 0))


def take_prompt_logprobs(outputs: StepOutputs, scheduled: Scheduled, rows: Rows) -> None:
    """Appends what this step scored of the prompt."""
    state = scheduled.sequence.state
    scored = state.prompt_logprobs
    if scored is None:
        return
    if not scored:
        scored.append(None)
    for row in rows.prompt:
        scored.append(outputs.logprobs(row, state.sampling.prompt_logprobs or 0))


def accept(
    sequence: Sequence, token_id: int, logprobs: PositionLogprobs | None, eos_token_ids: frozenset[int]
) -> TokenEvent:
    """The event of a token that was just appended to its sequence."""
    matcher = sequence.matcher
    if matcher is not None and matcher.error:
        return _failure(sequence, matcher.error)
    state, sampling = sequence.state, sequence.state.sampling
    may_stop = sequence.num_output_tokens >= sampling.min_tokens
    reason: FinishReason | None = None
    stop_reason: int | str | None = None
    if token_id in sampling.stop_token_ids and may_stop:
        reason, stop_reason = "stop", token_id
    elif token_id in eos_token_ids and not sampling.ignore_eos and may_stop:
        reason = "stop"
    text, stop_string = "", None
    if reason is None or sampling.include_stop_str_in_output:
        text, stop_string = sequence.text.push(token_id, may_stop=may_stop)
        if stop_string is not None:
            reason, stop_reason = "stop", stop_string
    if reason is None and matcher is not None and matcher.is_complete:
        reason = "stop"
    if reason is None and sequence.num_output_tokens >= state.max_tokens:
        reason = "length"
    if reason is not None and stop_string is None:
        text += sequence.text.finish()
    is_first = sequence.index == 0 and sequence.num_output_tokens == 1
    return TokenEvent(
        request_id=state.request.request_id,
        index=sequence.index,
        token_ids=(token_id,),
        text=text,
        logprobs=None if logprobs is None else (logprobs,),
        finish_reason=reason,
        stop_reason=stop_reason,
        num_cached_tokens=state.num_cached_tokens,
        prompt_logprobs=tuple(state.prompt_logprobs) if is_first and state.prompt_logprobs is not None else None,
    )


def _failure(sequence: Sequence, error: str) -> TokenEvent:
    return TokenEvent(
        request_id=sequence.state.request.request_id,
        index=sequence.index,
        token_ids=(),
        text=sequence.text.finish(),
        finish_reason="error",
        error=error,
    )
