"""llama-server's prompts: texts, ids, both mixed, and lists of them; and biases of tokens that are given as texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inferd.errors import InvalidRequestError
from inferd.gateway.dialects.llamacpp.bodies import CompletionBody
from inferd.gateway.tokens import TokenReader
from inferd.types import MAX_BIAS_ENTRIES
from inferd.worker.protocol import TextPrompt, TokenPrompt

NEVER = -100.0  # the bias of a token that may not come; `false` in a request
MAX_PARTS = 1024  # of one prompt of ids and texts: each text is a question to the tokenizer
_SHAPES = "prompt must be a text, a list of token ids and texts, or a list of such prompts"


async def prompts_of(prompt: Any, tokens: TokenReader) -> tuple[TextPrompt | TokenPrompt, ...]:
    """(num_prompts,). Raises InvalidRequestError."""
    many = (
        isinstance(prompt, list) and prompt and (_all(prompt, str) or any(isinstance(p, list | dict) for p in prompt))
    )
    return tuple([await _one(part, tokens) for part in (prompt if many else [prompt])])


async def _one(prompt: Any, tokens: TokenReader) -> TextPrompt | TokenPrompt:
    if isinstance(prompt, dict):
        if prompt.get("multimodal_data"):
            raise InvalidRequestError("prompt: multimodal_data: only text is read", param="prompt")
        prompt = prompt.get("prompt_string")
    if isinstance(prompt, str):
        return TextPrompt(text=prompt)
    if not isinstance(prompt, list) or not prompt or not all(_is_part(part) for part in prompt):
        raise InvalidRequestError(_SHAPES, param="prompt")
    if _all(prompt, int):
        return TokenPrompt(token_ids=tuple(prompt))
    if len(prompt) > MAX_PARTS:
        raise InvalidRequestError(f"prompt must have at most {MAX_PARTS} parts, got {len(prompt)}", param="prompt")
    ids: list[int] = []
    for number, part in enumerate(prompt):
        ids += [part] if isinstance(part, int) else await tokens.ids(part, add_special_tokens=number == 0)
    return TokenPrompt(token_ids=tuple(ids))


async def biases_of(body: CompletionBody, tokens: TokenReader) -> dict[int, float]:
    """Of every token id; a text gives its bias to each of its tokens."""
    given = body.logit_bias
    pairs: Sequence[tuple[Any, Any]] = list(given.items()) if isinstance(given, dict) else given
    if len(pairs) > MAX_BIAS_ENTRIES:
        raise InvalidRequestError(f"logit_bias must have at most {MAX_BIAS_ENTRIES} entries", param="logit_bias")
    biases: dict[int, float] = {}
    for token, bias in pairs:
        if bias is True:
            raise InvalidRequestError("logit_bias: a bias is a number, or false", param="logit_bias")
        for token_id in await _ids(token, tokens, is_key=isinstance(given, dict)):
            biases[token_id] = NEVER if bias is False else float(bias)
    return biases


async def _ids(token: int | str, tokens: TokenReader, *, is_key: bool) -> Sequence[int]:
    if isinstance(token, int):
        return [token]
    if is_key and token.isascii() and token.isdecimal() and len(token) <= 10:
        return [int(token)]
    return await tokens.ids(token)


def _is_part(part: Any) -> bool:
    return isinstance(part, str) or (isinstance(part, int) and not isinstance(part, bool) and 0 <= part < 2**31)


def _all(items: list[Any], kind: type) -> bool:
    return all(isinstance(item, kind) for item in items)
