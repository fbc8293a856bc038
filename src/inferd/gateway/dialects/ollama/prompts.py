"""The prompt of /api/generate: a text as it is, one turn of a chat, a conversation that goes on, or a gap to fill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inferd.errors import InvalidRequestError
from inferd.gateway.chat import ChatTurn
from inferd.gateway.dialects.ollama.bodies import GenerateBody, structured_of
from inferd.gateway.infill import infill_prompt
from inferd.gateway.text import TextTurn
from inferd.gateway.tokens import TokenReader
from inferd.types import StructuredOutputs
from inferd.worker.protocol import Ready, TextPrompt

MAX_TOKEN_ID = 2**31 - 1


class Prompts:
    def __init__(self, tokens: TokenReader) -> None:
        self._tokens = tokens

    async def read(
        self, body: GenerateBody, sampling: Mapping[str, Any]
    ) -> tuple[ChatTurn | TextTurn, tuple[int, ...] | None]:
        """The turn, and the ids of the whole prompt where `context` goes before it. Raises InvalidRequestError."""
        _check(body)
        structured = structured_of(body.format)
        if body.suffix:
            prompt = await infill_prompt(self._tokens, body.prompt, body.suffix, param="suffix")
            return TextTurn(prompt=prompt, sampling=sampling, structured=structured), None
        if body.raw:
            return _text(body, sampling, structured), None
        async with self._tokens.model.lease("generate") as (_, ready):
            pass
        if not has_template(ready):
            if body.system:
                raise InvalidRequestError("system: this model has no chat template", param="system")
            return _text(body, sampling, structured), await self._continued(body, _text(body, {}, None).prompt)
        turn = _chat(body, sampling, structured)
        return turn, await self._continued(body, turn.prompt(ready))

    async def _continued(self, body: GenerateBody, prompt: Any) -> tuple[int, ...] | None:
        if not body.context:
            return None
        added = (await self._tokens.read(prompt)).token_ids
        begin = await self._tokens.begin_ids()
        if begin and added[: len(begin)] == begin:  # a text begins once
            added = added[len(begin) :]
        return (*body.context, *added)


def has_template(ready: Ready) -> bool:
    return bool(ready.details.get("chat_template", True))


def _text(body: GenerateBody, sampling: Mapping[str, Any], structured: StructuredOutputs | None) -> TextTurn:
    return TextTurn(prompt=TextPrompt(text=body.prompt), sampling=sampling, structured=structured)


def _chat(body: GenerateBody, sampling: Mapping[str, Any], structured: StructuredOutputs | None) -> ChatTurn:
    system = [{"role": "system", "content": body.system}] if body.system else []
    return ChatTurn(
        messages=[*system, {"role": "user", "content": body.prompt}],
        sampling=dict(sampling),
        structured=structured,
        thinks=None if body.think is None else bool(body.think),
        reasoning_effort=body.think if isinstance(body.think, str) else None,
    )


def _check(body: GenerateBody) -> None:
    if body.raw and (body.system or body.context or body.suffix):
        raise InvalidRequestError("raw does not go with system, context or suffix", param="raw")
    if body.suffix and (body.system or body.context):
        raise InvalidRequestError("suffix does not go with system or context", param="suffix")
    if not all(0 <= token_id <= MAX_TOKEN_ID for token_id in body.context):
        raise InvalidRequestError("context must hold token ids of the vocabulary", param="context")
