"""Questions that a dialect asks a model's tokenizer before it has a prompt, or in place of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from inferd.gateway.context import Gateway
from inferd.gateway.router import Model
from inferd.worker.protocol import Detokenize, Prompt, TextPrompt, Tokenize, Tokenized


@dataclass(frozen=True, slots=True)
class TokenReader:
    """The tokenizer of a model that makes text, in its worker. Every method raises what the worker raised."""

    gateway: Gateway
    request: Request  # on whose behalf
    model: Model

    async def read(self, prompt: Prompt, *, want_pieces: bool = False, want_text: bool = False) -> Tokenized:
        """Ids; pieces: the bytes of each; text: what the prompt is once its template has rendered it."""

        def command(call_id: str) -> Tokenize:
            return Tokenize(call_id=call_id, prompt=prompt, want_pieces=want_pieces, want_text=want_text)

        return await self.gateway.call(self.request, self.model, command, Tokenized)

    async def ids(self, text: str, *, add_special_tokens: bool = False, parse_special: bool = True) -> tuple[int, ...]:
        prompt = TextPrompt(text=text, add_special_tokens=add_special_tokens, parse_special=parse_special)
        return (await self.read(prompt)).token_ids

    async def begin_ids(self) -> tuple[int, ...]:
        """What the tokenizer puts before every text: its begin-of-text token, or nothing."""
        return await self.ids("", add_special_tokens=True)

    async def text(self, token_ids: Sequence[int]) -> str:
        def command(call_id: str) -> Detokenize:
            return Detokenize(call_id=call_id, token_ids=tuple(token_ids))

        return (await self.gateway.call(self.request, self.model, command, Tokenized)).text
