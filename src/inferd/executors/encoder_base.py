"""The contract of encoder executors: one ragged batch in, vectors out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from inferd.executors.base import F32, I32

Pooling = Literal["none", "mean", "cls", "last"]


@dataclass(frozen=True, slots=True)
class EncoderBatch:
    """S sequences of T tokens in all; sequence s has the tokens [starts[s], starts[s + 1])."""

    token_ids: I32  # (T,)
    type_ids: I32  # (T,); zeros for a model without token types
    starts: I32  # (S + 1,)
    pooling: Pooling


class EncoderExecutor(Protocol):
    """A sequence's rows depend on that sequence alone, bit for bit."""

    @property
    def max_num_tokens(self) -> int:
        """Of one batch."""
        ...

    def encode(self, batch: EncoderBatch) -> F32:
        """(S, spec.out_size): states pooled, then through the heads. Pooling "none": (T, hidden), without heads.

        Raises ValueError naming the field when the batch breaks the contract.
        """
        ...

    def close(self) -> None: ...
