"""Matcher: where one output is in its grammar, and which tokens may come next."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from inferd.structured.trial import readable

U32 = npt.NDArray[np.uint32]


class _Wear:
    """Of all matchers of one grammar, which share the states of its lexer: they only grow, up to a limit."""

    def __init__(self) -> None:
        self.is_worn = False


class Matcher:
    """Belongs to the thread of its sequence. `error` says why no token can follow; the output must end with it."""

    def __init__(self, inner: Any, vocab_size: int, eos_token_ids: frozenset[int]) -> None:
        self.error = ""
        self._inner = inner
        self._width = -(-vocab_size // 32)
        self._eos_token_ids = eos_token_ids
        self._wear = _Wear()
        self._num_sure = 0  # tokens that the last masks cover
        self._reason = ""  # why they cover no more

    def copy(self) -> Matcher:
        """Another one at the same place, and under the same masks."""
        other = copy.copy(self)
        other._inner = self._inner.deep_copy()
        return other

    @property
    def is_worn(self) -> bool:
        """A matcher of this grammar ran into a limit; the next request should compile it anew."""
        return self._wear.is_worn

    @property
    def is_complete(self) -> bool:
        """The grammar is satisfied and nothing more may follow."""
        return not self.error and bool(self._inner.is_stopped())

    def masks(self, drafts: Sequence[int] = ()) -> U32:
        """(1 + len(drafts), ceil(vocab / 32)), bit set = allowed: for the next token, and after each draft in turn."""
        masks = np.zeros((1 + len(drafts), self._width), np.uint32)
        ahead = self._inner.deep_copy() if drafts else self._inner  # what fails there has not happened yet
        self._num_sure = 0
        for row, draft in zip(masks, (*drafts, -1), strict=True):
            ahead.unsafe_compute_mask_ptr(row.ctypes.data, row.nbytes)
            if ahead.is_error():
                self._wear.is_worn = True
                self._reason = readable(ahead.get_error())
                break
            self._num_sure += 1
            if draft >= 0 and not ahead.try_consume_tokens([draft]):
                break
        if not self._num_sure:
            self.fail(self._reason)
        return masks

    def cut(self, drafts: Sequence[int]) -> tuple[int, ...]:
        """As many of these guesses as the grammar allows, and none that ends the output."""
        end = next((at for at, draft in enumerate(drafts) if draft in self._eos_token_ids), len(drafts))
        if self.error or not end:
            return ()
        return tuple(drafts[: min(end, self._inner.validate_tokens(list(drafts[:end])))])

    def forced(self) -> tuple[int, ...]:
        """The tokens that follow whatever the model says, as its tokenizer would cut them; () where it has a choice."""
        return () if self.error else tuple(self._inner.compute_ff_tokens())

    def advance(self, token_id: int) -> None:
        """The output's next token, drawn under the last masks."""
        if self.error:
            return
        if not self._num_sure:
            self.fail(self._reason)
        elif not self._inner.consume_token(token_id):
            self.fail(f"token {token_id} was drawn, which the grammar does not allow")
        self._num_sure -= 1

    def fail(self, reason: str) -> None:
        self.error = self.error or f"structured_outputs: {reason}"
