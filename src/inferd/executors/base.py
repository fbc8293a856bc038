"""The contract between the engine and whatever runs the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from inferd.models.lora import Adapter
from inferd.models.spec import DecoderSpec

I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingBatch:
    """How each logits row becomes a token. All arrays are C-contiguous; R = number of rows.

    Order of operations and the meaning of each number: SamplingParams. A row with target >= 0 draws nothing: it only
    scores that token (prompt logprobs). The draw of a row is a function of (seed, draw_index) alone.
    """

    temperature: F32  # (R,) 0 = greedy
    top_k: I32  # (R,) 0 = off
    top_p: F32  # (R,)
    min_p: F32  # (R,)
    typical_p: F32  # (R,)
    seed: U64  # (R,)
    draw_index: I64  # (R,) how many tokens the sequence has drawn before
    repetition_penalty: F32  # (R,) 1 = off
    frequency_penalty: F32  # (R,)
    presence_penalty: F32  # (R,)
    target: I32  # (R,) -1 = draw
    num_logprobs: I32  # (R,) -1 = none; 0 = the chosen token's; k = and the k best
    # tokens seen by each row that has penalties: row r owns [penalty_starts[r], penalty_starts[r+1])
    penalty_starts: I32  # (R + 1,)
    penalty_ids: I32  # (P,) distinct ids of prompt and output
    penalty_counts: I32  # (P,) occurrences in the output; 0 = only in the prompt
    # added to logits: row r owns [bias_starts[r], bias_starts[r+1]); -inf forbids
    bias_starts: I32  # (R + 1,)
    bias_ids: I32  # (B,)
    bias_values: F32  # (B,)
    mask_index: I32  # (R,) row of allowed_masks, -1 = all allowed
    allowed_masks: U32  # (num_masks, ceil(vocab/32)) bit set = allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBatch:
    """One step: for each sequence some new tokens, its blocks, and which rows need logits. C-contiguous arrays.

    Sequence s owns token rows [query_starts[s], query_starts[s+1]); their positions are context_lens[s] + 0, 1, ...
    Position p of sequence s lives in slot p % block_size of block block_tables[s, p // block_size].
    """

    token_ids: I32  # (num_tokens,)
    query_starts: I32  # (num_seqs + 1,)
    context_lens: I32  # (num_seqs,) tokens whose K and V are in the cache before this step
    adapter_ids: I32  # (num_seqs,) what Executor.load_adapter gave; -1 = the model alone
    block_tables: I32  # (num_seqs, max_num_blocks) padded with 0
    block_copies: I32  # (num_copies, 2) source, target block; all are done before the step's own writes
    logit_rows: I32  # (R,) rows of token_ids; one row may appear several times (n > 1)
    sampling: SamplingBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One entry per logits row. Logprobs are of the raw logits (after the model's own soft cap)."""

    token_ids: I32  # (R,) drawn, or the target
    logprobs: F32  # (R,) of token_ids; 0 where num_logprobs is -1
    ranks: I32  # (R,) of token_ids, 1 = best (ties: lower id is better); 0 where num_logprobs is -1
    top_ids: I32  # (R, max(num_logprobs)) best first, ties by lower id; -1 beyond a row's own count
    top_logprobs: F32  # same shape


class Executor(Protocol):
    """Owns weights, KV cache and scratch. One step at a time; not thread-safe.

    The engine checks every id and length before it builds a batch; an executor may raise ValueError on a batch that
    breaks the contract, and must then have changed nothing.
    """

    @property
    def spec(self) -> DecoderSpec: ...

    @property
    def num_blocks(self) -> int: ...

    @property
    def block_size(self) -> int: ...

    @property
    def max_num_batched_tokens(self) -> int:
        """Most token rows of one step."""
        ...

    def step(self, batch: StepBatch) -> StepResult: ...

    def load_adapter(self, adapter: Adapter) -> int:
        """Its id in StepBatch.adapter_ids; never given again. May run on another thread beside a step."""
        ...

    def unload_adapter(self, adapter_id: int) -> None:
        """No later step may name it."""
        ...

    def close(self) -> None: ...
