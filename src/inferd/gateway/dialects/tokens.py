"""/tokenize and /detokenize, which three dialects have: the body's shape says whose it is.

vLLM sends `prompt` or `messages`, TGI `inputs`, llama-server `content`. Ids come in one shape from all, so their text is
told under the names of all.
"""

from __future__ import annotations

import codecs
from typing import Any

import msgspec

from inferd.errors import InvalidRequestError
from inferd.gateway.chat import ChatTurn
from inferd.gateway.dialects.openai.bodies import message_of
from inferd.gateway.json_fields import convert, integral
from inferd.gateway.router import Model
from inferd.gateway.tokens import TokenReader
from inferd.gateway.tools import checked_tools
from inferd.worker.protocol import ChatPrompt, TextPrompt, Tokenized


class LlamaBody(msgspec.Struct, kw_only=True):
    """llama-server's: no token is added unless it is asked for."""

    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False
    model: str | None = None


class TgiBody(msgspec.Struct, kw_only=True):
    inputs: str
    add_special_tokens: bool = True
    parameters: dict[str, Any] = {}  # of /generate, which has the same body
    model: str | None = None


class TemplateBody(msgspec.Struct, kw_only=True):
    """A chat that is rendered and not answered."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = []
    add_generation_prompt: bool = True
    chat_template_kwargs: dict[str, Any] = {}


async def other_tokenize(fields: dict[str, Any], tokens: TokenReader) -> Any:
    """The answer to a body in another shape than vLLM's; None when it is vLLM's."""
    if "content" in fields:
        return await _llama_tokenize(convert(integral(fields), LlamaBody), tokens)
    if "inputs" in fields:
        body = convert(integral(fields), TgiBody)
        prompt = TextPrompt(text=body.inputs, add_special_tokens=body.add_special_tokens)
        return tgi_tokens(await tokens.read(prompt, want_pieces=True), body.inputs)
    return None


async def chat_prompt(model: Model, fields: dict[str, Any]) -> ChatPrompt:
    """The prompt of a chat in OpenAI's shape, for this model's template. Raises InvalidRequestError."""
    body = convert({name: fields[name] for name in TemplateBody.__struct_fields__ if name in fields}, TemplateBody)
    if not body.messages:
        raise InvalidRequestError("messages must hold at least one message", param="messages")
    turn = ChatTurn(
        messages=[message_of(message) for message in body.messages],
        tools=checked_tools(body.tools),
        add_generation_prompt=body.add_generation_prompt,
        template_kwargs=body.chat_template_kwargs,
    )
    async with model.lease("generate") as (_, ready):
        return turn.prompt(ready)


def tgi_tokens(read: Tokenized, text: str) -> list[dict[str, Any]]:
    """Tokens with the characters of the text that each stands for; none for one that the tokenizer added."""
    data, decoder = text.encode(), codecs.getincrementaldecoder("utf-8")()
    rows, at, stop = [], 0, 0
    for token_id, piece in zip(read.token_ids, read.pieces or (), strict=True):
        own = next((form for form in (piece, piece.lstrip(b" ")) if form and data.startswith(form, at)), b"")
        at += len(own)
        start, stop = stop, stop + len(decoder.decode(own))  # of a part of a character: only the last one counts
        rows.append({"id": token_id, "text": piece.decode("utf-8", "replace"), "start": start, "stop": stop})
    return rows


async def _llama_tokenize(body: LlamaBody, tokens: TokenReader) -> dict[str, Any]:
    prompt = TextPrompt(text=body.content, add_special_tokens=body.add_special, parse_special=body.parse_special)
    read = await tokens.read(prompt, want_pieces=body.with_pieces)
    if read.pieces is None:
        return {"tokens": read.token_ids}
    return {"tokens": [{"id": i, "piece": _piece(p)} for i, p in zip(read.token_ids, read.pieces, strict=True)]}


def _piece(piece: bytes) -> str | list[int]:
    """Its text, or its bytes where they are a part of a character."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
