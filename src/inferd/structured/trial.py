"""The one place that calls llguidance's constructors: a vocabulary for it, and matchers that are known to work."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from inferd.structured.grammar import Controls
from inferd.structured.schema import refusal

# What one grammar may cost. A mask takes at most 14 ms of lexer and 3 ms of parser work, an engine's step waits for it;
# a lexer state takes 1 to 2 kB.
_LIMITS = {
    "max_lexer_states": 50_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_grammar_size": 200_000,
    "precompute_large_lexemes": False,  # work over the vocabulary that no limit bounds
    "verbose_errors": False,
}
_MAX_MESSAGE = 300


class _Vocabulary:
    """What LLTokenizer reads of a tokenizer."""

    is_tokenizer_wrapper = True

    def __init__(self, tokens: Sequence[bytes], controls: Controls, encode: Callable[[str], list[int]] | None) -> None:
        self.eos_token_id = min(controls.eos_token_ids)
        self.bos_token_id = None
        self.tokens = tokens
        self.special_token_ids = sorted(controls.ids.values())
        self._encode = encode

    def __call__(self, text: str | bytes) -> list[int]:
        plain = text if isinstance(text, str) else text.decode()
        if self._encode is not None:
            return self._encode(plain)
        first_byte = len(self.tokens) - 256
        return [first_byte + byte for byte in plain.encode()]


def new_tokenizer(
    tokens: Sequence[bytes], controls: Controls, encode: Callable[[str], list[int]] | None = None
) -> Any:
    """An LLTokenizer. encode: the model's own way to cut a text, without it the last 256 tokens are the bytes."""
    from llguidance import LLTokenizer

    return LLTokenizer(_Vocabulary(tokens, controls, encode), eos_token=sorted(controls.eos_token_ids))


def new_matcher(tokenizer: Any, grammar: str) -> Any:
    """An LLMatcher at its start whose first mask was computed once. Raises InvalidRequestError."""
    from llguidance import LLMatcher, LLParserLimits

    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=LLParserLimits(**_LIMITS))
    if not matcher.is_error():
        matcher.compute_ff_tokens()
        mask = matcher.compute_bitmask()
        if not matcher.is_error() and (matcher.is_stopped() or not any(mask)):
            raise refusal("nothing but the empty text satisfies it")
    if matcher.is_error():
        raise refusal(readable(matcher.get_error()))
    return matcher


def readable(message: str) -> str:
    """The compiler's error without the grammar it repeats."""
    if "coerce_one_of" in message:
        return "oneOf is supported only where its options exclude each other by type or by a required constant; use anyOf"
    lines = [line for line in message.splitlines() if not re.match(r"\s*(\d+ )?\s*\||\s*\^|.*<non-verbose/>$", line)]
    text = " ".join(" ".join(lines).split()) or message.removesuffix("<non-verbose/>").strip()
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + "…"
