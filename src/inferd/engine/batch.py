"""BatchBuilder: a plan becomes the arrays of one executor step. It remembers, per slot, what does not change."""

from __future__ import annotations

from collections.abc import Sequence as ListLike
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inferd.engine.scheduler import Scheduled
from inferd.engine.sequence import Sequence
from inferd.executors.base import F32, I32, U32, SamplingBatch, StepBatch

# SamplingParams field -> dtype of its column; these are the same on every step of a sequence
_COLUMNS: dict[str, Any] = {
    "temperature": np.float32,
    "top_k": np.int32,
    "top_p": np.float32,
    "min_p": np.float32,
    "typical_p": np.float32,
    "repetition_penalty": np.float32,
    "frequency_penalty": np.float32,
    "presence_penalty": np.float32,
}
_NO_IDS: I32 = np.empty(0, np.int32)


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the logits rows of one scheduled sequence are in the result."""

    prompt_position: int  # of the token whose successor the first row of `prompt` scores
    prompt: range
    draws: range


class _Lists:
    """The per-row values of one step, as they are collected."""

    def __init__(self) -> None:
        self.logit_rows: list[int] = []
        self.slots: list[int] = []
        self.seeds: list[int] = []
        self.draw_indices: list[int] = []
        self.targets: list[int] = []
        self.num_logprobs: list[int] = []
        self.owners: list[Sequence | None] = []  # None: nothing but the columns
        self.masks: list[U32 | None] = []  # (ceil(vocab / 32),) of the owner's grammar
        self.is_free = True


class BatchBuilder:
    def __init__(self, *, vocab_size: int, max_num_seqs: int, max_blocks_per_seq: int) -> None:
        self._mask_size = -(-vocab_size // 32)
        self._tables = np.zeros((max_num_seqs, max_blocks_per_seq), np.int32)
        self._num_known = [0] * max_num_seqs  # blocks of the slot's row that are filled
        self._owners: list[tuple[Sequence, int] | None] = [None] * max_num_seqs
        self._columns: dict[str, npt.NDArray[Any]] = {
            name: np.zeros(max_num_seqs, dtype) for name, dtype in _COLUMNS.items()
        }

    def build(self, plan: ListLike[Scheduled], copies: list[tuple[int, int]]) -> tuple[StepBatch, list[Rows]]:
        """plan: at least one entry; copies: (source, target) blocks."""
        token_ids: list[int] = []
        starts, contexts, adapters, slots = [0], [], [], []
        lists, rows = _Lists(), []
        widest = 0
        for scheduled in plan:
            sequence = scheduled.sequence
            self._refresh(sequence)
            begin = sequence.num_computed_tokens
            rows.append(self._add_rows(lists, scheduled, len(token_ids)))
            token_ids += sequence.token_ids[begin : begin + scheduled.num_tokens]
            token_ids += scheduled.drafts
            starts.append(len(token_ids))
            contexts.append(begin)
            adapters.append(sequence.state.adapter_id)
            slots.append(sequence.slot)
            widest = max(widest, len(sequence.block_ids))
        batch = StepBatch(
            token_ids=np.array(token_ids, np.int32),
            query_starts=np.array(starts, np.int32),
            context_lens=np.array(contexts, np.int32),
            adapter_ids=np.array(adapters, np.int32),
            block_tables=self._tables[slots, :widest],
            block_copies=np.array(copies, np.int32).reshape(-1, 2),
            logit_rows=np.array(lists.logit_rows, np.int32),
            sampling=self._sampling(lists),
        )
        return batch, rows

    def _refresh(self, sequence: Sequence) -> None:
        """The slot's row and columns; all of them when the sequence is new there, else only its new blocks."""
        slot = sequence.slot
        owner = self._owners[slot]
        if owner is None or owner[0] is not sequence or owner[1] != sequence.num_preemptions:
            self._owners[slot] = (sequence, sequence.num_preemptions)
            self._num_known[slot] = 0
            sampling = sequence.state.sampling
            for name, column in self._columns.items():
                column[slot] = getattr(sampling, name)
            self._columns["top_k"][slot] = max(0, sampling.top_k)
        known, size = self._num_known[slot], len(sequence.block_ids)
        if known < size:
            self._tables[slot, known:size] = sequence.block_ids[known:]
            self._num_known[slot] = size

    def _add_rows(self, lists: _Lists, scheduled: Scheduled, first_token: int) -> Rows:
        prompt_position, prompt = 0, range(0)
        if scheduled.sequence.state.wants_prompt_rows:
            prompt_position, prompt = self._add_prompt_rows(lists, scheduled, first_token)
        begin = len(lists.slots)
        if scheduled.samples:
            self._add_draws(lists, scheduled, first_token + scheduled.num_tokens - 1)
        return Rows(prompt_position, prompt, range(begin, len(lists.slots)))

    def _add_prompt_rows(self, lists: _Lists, scheduled: Scheduled, first_token: int) -> tuple[int, range]:
        """One row per prompt token of the step whose successor is a prompt token that is not scored yet."""
        sequence = scheduled.sequence
        scored = sequence.state.prompt_logprobs or []
        begin = sequence.num_computed_tokens
        end = min(begin + scheduled.num_tokens, sequence.num_prompt_tokens - 1)
        positions = range(max(begin, len(scored) - 1), end)
        first = len(lists.slots)
        for position in positions:
            lists.logit_rows.append(first_token + position - begin)
            lists.slots.append(sequence.slot)
            lists.seeds.append(0)
            lists.draw_indices.append(0)
            lists.targets.append(sequence.token_ids[position + 1])
            lists.num_logprobs.append(sequence.state.sampling.prompt_logprobs or 0)
            lists.owners.append(None)
            lists.masks.append(None)
        return positions.start, range(first, len(lists.slots))

    def _add_draws(self, lists: _Lists, scheduled: Scheduled, row: int) -> None:
        sequence = scheduled.sequence
        num_logprobs = sequence.state.sampling.logprobs
        is_free = sequence.state.constraints.is_free and sequence.matcher is None
        masks = _grammar_masks(sequence, scheduled.drafts)
        lists.is_free &= is_free
        num_drafts, num_forks = len(scheduled.drafts), sequence.pending_forks  # never both
        first_sibling = sequence.state.sampling.n - num_forks
        for draw in range(1 + num_drafts + num_forks):
            lists.logit_rows.append(row + min(draw, num_drafts))
            lists.slots.append(sequence.slot)
            lists.seeds.append(sequence.seed(first_sibling + draw - 1 if draw and num_forks else 0))
            lists.draw_indices.append(sequence.num_output_tokens + min(draw, num_drafts))
            lists.targets.append(-1)
            lists.num_logprobs.append(-1 if num_logprobs is None else num_logprobs)
            lists.owners.append(None if is_free else sequence)
            lists.masks.append(None if masks is None else masks[min(draw, num_drafts)])

    def _sampling(self, lists: _Lists) -> SamplingBatch:
        num_rows = len(lists.slots)
        slots = np.array(lists.slots, np.intp)
        return SamplingBatch(
            **{name: column[slots] for name, column in self._columns.items()},
            seed=np.array(lists.seeds, np.uint64),
            draw_index=np.array(lists.draw_indices, np.int64),
            target=np.array(lists.targets, np.int32),
            num_logprobs=np.array(lists.num_logprobs, np.int32),
            **(self._no_constraints(num_rows) if lists.is_free else self._constraints(lists)),
        )

    def _no_constraints(self, num_rows: int) -> dict[str, Any]:
        starts = np.zeros(num_rows + 1, np.int32)
        return {
            "penalty_starts": starts,
            "penalty_ids": _NO_IDS,
            "penalty_counts": _NO_IDS,
            "bias_starts": starts,
            "bias_ids": _NO_IDS,
            "bias_values": np.empty(0, np.float32),
            "mask_index": np.full(num_rows, -1, np.int32),
            "allowed_masks": np.empty((0, self._mask_size), np.uint32),
        }

    def _constraints(self, lists: _Lists) -> dict[str, Any]:
        nothing = (_NO_IDS, _NO_IDS)
        penalties: list[tuple[I32, I32]] = []
        biases: list[tuple[I32, F32]] = []
        masks: list[U32] = []
        mask_index: list[int] = []
        for sequence, grammar_mask in zip(lists.owners, lists.masks, strict=True):
            constraints = sequence.state.constraints if sequence is not None else None
            if sequence is None or constraints is None:
                penalties.append(nothing)
                biases.append((_NO_IDS, np.empty(0, np.float32)))
                mask_index.append(-1)
                continue
            penalties.append(sequence.counts.arrays() if sequence.counts is not None else nothing)
            biases.append(constraints.row_bias(sequence.token_ids, sequence.num_output_tokens))
            mask = constraints.mask if grammar_mask is None else grammar_mask
            mask_index.append(-1 if mask is None else len(masks))
            if mask is not None:
                masks.append(mask)
        return {
            **_ragged("penalty", penalties, "counts", np.int32),
            **_ragged("bias", biases, "values", np.float32),
            "mask_index": np.array(mask_index, np.int32),
            "allowed_masks": np.array(masks, np.uint32).reshape(len(masks), self._mask_size),
        }


def _grammar_masks(sequence: Sequence, drafts: ListLike[int]) -> U32 | None:
    """(1 + len(drafts), ceil(vocab / 32)): of the next token and of those after each guess."""
    if sequence.matcher is None:
        return None
    masks, constraints = sequence.matcher.masks(drafts), sequence.state.constraints
    if constraints.is_free and not len(constraints.unwanted_ends):
        return masks
    for at, mask in enumerate(masks):
        is_left = constraints.narrow(mask, sequence.token_ids, sequence.num_output_tokens + at)
        if at == 0 and not is_left:  # guesses are made only where nothing else narrows
            sequence.matcher.fail("allowed_token_ids, bad_words or logit_bias leave no token that may follow")
    return masks


def _ragged(prefix: str, rows: ListLike[tuple[Any, Any]], column: str, dtype: Any) -> dict[str, Any]:
    """(ids, values) per row, one after the other, and where each row starts: (R + 1,)."""
    return {
        f"{prefix}_starts": np.cumsum([0, *(len(ids) for ids, _ in rows)], dtype=np.int32),
        f"{prefix}_ids": np.concatenate([ids for ids, _ in rows] or [_NO_IDS]).astype(np.int32, copy=False),
        f"{prefix}_{column}": np.concatenate([values for _, values in rows] or [_NO_IDS]).astype(dtype, copy=False),
    }
