"""Constraints: what a request allows itself to say, turned once into arrays, and per step into one row's bias."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from inferd.executors.base import F32, I32, U32
from inferd.structured.compiler import Grammar, compiled
from inferd.types import SamplingParams

_NO_IDS: I32 = np.empty(0, np.int32)
_NO_VALUES: F32 = np.empty(0, np.float32)


class Encoder(Protocol):
    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Constraints:
    """Of one request. A row's bias is bias_ids and -inf for whatever its own last tokens forbid."""

    bias_ids: I32  # (B,) logit_bias, and bad words of one token
    bias_values: F32  # (B,)
    early_bans: I32  # (E,) ids that would end the output, forbidden until it has min_tokens
    min_tokens: int
    bans_after: tuple[tuple[tuple[int, ...], int], ...]  # (the tokens before, the token that completes a bad word)
    mask: U32 | None  # (ceil(vocab / 32),) bit set = allowed
    has_penalties: bool
    grammar: Grammar | None
    unwanted_ends: I32  # (U,) with a grammar under ignore_eos: what may end the output only where nothing else may follow

    @property
    def is_free(self) -> bool:
        """No row of this request needs more than its numbers, and the mask of its grammar if it has one."""
        has_bias = len(self.bias_ids) or len(self.early_bans) or self.bans_after
        return not has_bias and self.mask is None and not self.has_penalties

    def row_bias(self, token_ids: Sequence[int], num_output_tokens: int) -> tuple[I32, F32]:
        """(ids, values) added to the logits of the next token; one id may appear twice."""
        has_bans = num_output_tokens < self.min_tokens and self.grammar is None  # with a grammar: see narrow
        bans = self.early_bans if has_bans else _NO_IDS
        completing = [last for before, last in self.bans_after if _ends_with(token_ids, before, num_output_tokens)]
        if not len(bans) and not completing:
            return self.bias_ids, self.bias_values
        ids = np.concatenate([self.bias_ids, bans, np.array(completing, np.int32)])
        values = np.full(len(ids), -np.inf, np.float32)
        values[: len(self.bias_values)] = self.bias_values
        return ids, values


    def narrow(self, mask: U32, token_ids: Sequence[int], num_output_tokens: int) -> bool:
        """Takes out of a grammar's mask (ceil(vocab / 32),), in place, what this request does not want besides.

        False when nothing is left. What would end the output too early stays where it is all the grammar allows.
        """
        if self.mask is not None:
            mask &= self.mask
        ids, values = self.row_bias(token_ids, num_output_tokens)
        _clear(mask, ids[values == -np.inf])
        is_early = num_output_tokens < self.min_tokens
        ends = np.concatenate([self.unwanted_ends, self.early_bans]) if is_early else self.unwanted_ends
        if len(ends):
            rest = mask.copy()
            _clear(rest, ends)
            mask[:] = rest if rest.any() else mask
        return bool(mask.any())


def _clear(mask: U32, ids: I32) -> None:
    np.bitwise_and.at(mask, ids >> 5, ~np.left_shift(np.uint32(1), (ids & 31).astype(np.uint32)))


def _ends_with(token_ids: Sequence[int], before: tuple[int, ...], num_output_tokens: int) -> bool:
    """Only the output can spell a bad word: what the prompt says is the user's own."""
    size = len(before)
    return size <= num_output_tokens and tuple(token_ids[len(token_ids) - size :]) == before


def constraints_of(
    sampling: SamplingParams, encoder: Encoder, vocab_size: int, eos_token_ids: Iterable[int]
) -> Constraints:
    """sampling's token ids are already checked against vocab_size."""
    words = _bad_words(sampling.bad_words, encoder)
    single = [word[0] for word in words if len(word) == 1]
    bias_ids = [*sampling.logit_bias, *single]
    bias_values = [*sampling.logit_bias.values(), *[-np.inf] * len(single)]
    ends = set(sampling.stop_token_ids) | (set() if sampling.ignore_eos else set(eos_token_ids))
    grammar = compiled(sampling.structured_outputs)
    unwanted = sorted(eos_token_ids) if grammar is not None and sampling.ignore_eos else []
    penalties = (sampling.repetition_penalty, sampling.frequency_penalty, sampling.presence_penalty)
    return Constraints(
        bias_ids=np.array(bias_ids, np.int32),
        bias_values=np.array(bias_values, np.float32),
        early_bans=np.array(sorted(ends) if sampling.min_tokens else [], np.int32),
        min_tokens=sampling.min_tokens,
        bans_after=tuple((word[:-1], word[-1]) for word in words if len(word) > 1),
        mask=_mask(sampling.allowed_token_ids, vocab_size),
        has_penalties=penalties != (1, 0, 0),
        grammar=grammar,
        unwanted_ends=np.array(unwanted, np.int32),
    )


def _bad_words(words: Sequence[str], encoder: Encoder) -> list[tuple[int, ...]]:
    """Each word as it is tokenized at the start of a text and after a space."""
    found: dict[tuple[int, ...], None] = {}
    for word in words:
        for text in (word, " " + word.lstrip()):
            ids = tuple(encoder.encode(text, add_special_tokens=False))
            if ids:
                found[ids] = None
    return list(found)


def _mask(allowed: Sequence[int] | None, vocab_size: int) -> U32 | None:
    if allowed is None:
        return None
    bits = np.zeros(-(-vocab_size // 32) * 32, np.uint8)
    bits[list(allowed)] = 1
    return np.packbits(bits, bitorder="little").view(np.uint32)
