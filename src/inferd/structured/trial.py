"""The one place that calls llguidance's constructors: a vocabulary for it, and matchers that are known to work."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from inferd.structured.grammar import Controls
from inferd.structured.schema import refusal

# What one grammar may cost: a state of the lexer takes 1 to 2 kB, and steps of the engine wait for masks (Matcher has
# a limit on time besides).
_LIMITS: dict[str, Any] = {
    "max_lexer_states": 50_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 20_000,
    "max_grammar_size": 200_000,
    "precompute_large_lexemes": False,  # work over the vocabulary that no limit bounds
    "verbose_errors": False,
}
_NUM_TRIAL_STEPS = 6


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


def new_tokenizer(tokens: Sequence[bytes], controls: Controls, encode: Callable[[str], list[int]] | None = None) -> Any:
    """An LLTokenizer. encode: the model's own way to cut a text, without it the last 256 tokens are the bytes."""
    from llguidance import LLTokenizer

    vocabulary: Any = _Vocabulary(tokens, controls, encode)
    return LLTokenizer(vocabulary, eos_token=sorted(controls.eos_token_ids))


def new_matcher(tokenizer: Any, grammar: str) -> Any:
    """An LLMatcher at its start, after a few steps were tried with a copy. Raises InvalidRequestError."""
    from llguidance import LLMatcher, LLParserLimits

    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=LLParserLimits(**_LIMITS))
    if matcher.is_stopped() and not matcher.is_error():
        raise refusal("nothing but the empty text satisfies it")
    ahead = matcher.deep_copy()
    for _ in range(_NUM_TRIAL_STEPS):
        if ahead.is_stopped():
            break
        ahead.compute_ff_tokens()
        ahead.consume_token(_first_of(ahead.compute_bitmask()))
    if ahead.is_error():
        raise refusal(readable(ahead.get_error()))
    return matcher


def _first_of(mask: bytes) -> int:
    at = next((at for at, bits in enumerate(mask) if bits), 0)
    return 8 * at + max(0, (mask[at] & -mask[at]).bit_length() - 1)


def readable(message: str) -> str:
    """The compiler's error without the grammar it repeats."""
    if "coerce_one_of" in message:
        return (
            "oneOf is supported only where its options exclude each other by type or by a required constant; use anyOf"
        )
    if message.startswith("NoExtension"):
        return "nothing satisfies it"
    lines = [line for line in message.splitlines() if not re.match(r"\s*(\d+ )?\s*\||\s*\^|.*<non-verbose/>$", line)]
    return " ".join(" ".join(lines).split()) or message.removesuffix("<non-verbose/>").strip()
