"""Vectors and scores from an encoder's worker: what the routes of every dialect for them are made of."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from operator import mul
from typing import Any, Literal, TypeAlias

from starlette.requests import Request

from inferd.errors import InvalidRequestError
from inferd.gateway.completion import unless_gone
from inferd.gateway.context import Gateway
from inferd.gateway.router import Model
from inferd.worker.client import WorkerClient
from inferd.worker.protocol import Encode, Encoded, PairPrompt, Ready, TextPrompt, TokenPrompt

Input = str | Sequence[int] | tuple[str, str]  # a text, token ids as they are, or a pair of texts
Vector: TypeAlias = "array[float]"
Pooling = Literal["model", "mean", "cls", "last", "none"]

MAX_INPUTS = 2048  # of one request, as OpenAI has it
_CHUNK = 32  # inputs of one message: a long request lets short ones of others in between


@dataclass(frozen=True, slots=True)
class Rows:
    """rows: one float32 vector for each input. num_tokens: of each input, as the model read it."""

    rows: list[Vector]
    num_tokens: list[int]

    @property
    def total_tokens(self) -> int:
        return sum(self.num_tokens)


async def embed(
    gateway: Gateway,
    request: Request,
    model: Model,
    inputs: Sequence[Input],
    *,
    param: str = "input",
    pooling: Pooling = "model",
    normalize: bool = True,
    dimensions: int | None = None,
    truncate: bool = False,
    truncate_left: bool = False,
) -> Rows:
    """One vector for each input; for each token of each with pooling "none".

    pooling "model" and dimensions None: as the model says. truncate: cut what the model cannot read whole; else that is
    refused, with both numbers. Raises InvalidRequestError, with `param` as the name of the inputs' field.
    """
    options = {
        "pooling": pooling,
        "normalize": normalize,
        "dimensions": dimensions,
        "truncate": truncate,
        "truncate_left": truncate_left,
    }
    return await _encode(gateway, request, model, inputs, param, options)


async def classify(
    gateway: Gateway,
    request: Request,
    model: Model,
    inputs: Sequence[Input],
    *,
    param: str = "input",
    raw_scores: bool = False,
    truncate: bool = False,
    truncate_left: bool = False,
) -> Rows:
    """The scores of the model's labels for each input. raw_scores: without the model's sigmoid or softmax."""
    options = {
        "task": "classify",
        "raw_scores": raw_scores,
        "truncate": truncate,
        "truncate_left": truncate_left,
    }
    return await _encode(gateway, request, model, inputs, param, options)


async def score(
    gateway: Gateway,
    request: Request,
    model: Model,
    query: str,
    texts: Sequence[str],
    *,
    params: tuple[str, str] = ("query", "documents"),
    raw_scores: bool = False,
    truncate: bool = False,
    truncate_left: bool = False,
) -> tuple[list[float], int]:
    """How well each text fits the query, and the tokens read for it.

    A cross-encoder reads each pair of both; a model that makes vectors gives the cosine of the two. params: the names
    of the fields of the query and of the texts.
    """
    cut: dict[str, Any] = {"truncate": truncate, "truncate_left": truncate_left}
    labels = (await ready_of(model)).details.get("labels", [])
    if labels:
        if len(labels) > 1:
            message = f"The model '{model.name}' has {len(labels)} labels; a score is made by a model that has one."
            raise InvalidRequestError(message, param="model")
        pairs = [(query, text) for text in texts]
        found = await classify(gateway, request, model, pairs, param=params[1], raw_scores=raw_scores, **cut)
        return [row[0] for row in found.rows], found.total_tokens
    one = await embed(gateway, request, model, [query], param=params[0], **cut)
    many = await embed(gateway, request, model, texts, param=params[1], **cut)
    return cosines(one.rows[0], many.rows), one.total_tokens + many.total_tokens


def cosines(one: Vector, many: Sequence[Vector]) -> list[float]:
    """Of one vector with each of many."""
    square = sum(map(mul, one, one))
    return [sum(map(mul, one, row)) / (sqrt(square * sum(map(mul, row, row))) or 1.0) for row in many]


async def ready_of(model: Model) -> Ready:
    """What an encoder says of itself; waits until it is loaded. details: worker/encoding.py."""
    async with model.lease("encode") as (_, ready):
        return ready


async def _encode(
    gateway: Gateway, request: Request, model: Model, inputs: Sequence[Input], param: str, options: dict[str, Any]
) -> Rows:
    if not 1 <= len(inputs) <= MAX_INPUTS:
        raise InvalidRequestError(f"{param} must hold from 1 to {MAX_INPUTS} inputs, got {len(inputs)}", param=param)
    prompts = [_prompt(one) for one in inputs]
    background = request.scope.get("is_background", False)
    try:
        with model.metrics.calls.timed(len(inputs)) as timer, gateway.router.admitted(1, model):
            async with model.lease("encode") as (client, _):
                commands = [
                    Encode(
                        call_id=client.new_call_id(),
                        inputs=prompts[first : first + _CHUNK],
                        first_input=first,
                        priority=first // _CHUNK + (1 << 20 if background else 0),
                        **options,
                    )
                    for first in range(0, len(prompts), _CHUNK)
                ]
                replies = await unless_gone(request.receive, _all(client, commands))
            compute = sum(reply.compute_seconds for reply in replies)
            timer.measured(replies[0].queue_seconds, compute, 0.0, replies[0].batch_size)
    except InvalidRequestError as error:
        if error.param != "inputs":
            raise
        raise InvalidRequestError(error.message.replace("inputs", param, 1), param=param, code=error.code) from error
    return _rows(replies)


async def _all(client: WorkerClient, commands: Sequence[Encode]) -> list[Encoded]:
    calls = [asyncio.ensure_future(client.call(command, Encoded)) for command in commands]
    try:
        return await asyncio.gather(*calls)
    finally:
        for call in calls:  # those that still wait are cancelled in the worker too
            call.cancel()


def _prompt(value: Input) -> TextPrompt | TokenPrompt | PairPrompt:
    if isinstance(value, str):
        return TextPrompt(text=value)
    if value and isinstance(value[0], str):
        return PairPrompt(text=value[0], text_pair=str(value[1]))
    return TokenPrompt(token_ids=tuple(int(token_id) for token_id in value))


def _rows(replies: Sequence[Encoded]) -> Rows:
    rows: list[Vector] = []
    num_tokens: list[int] = []
    for reply in replies:
        values = array("f", reply.rows)
        rows += [values[at : at + reply.width] for at in range(0, len(values), reply.width)]
        num_tokens += reply.num_tokens
    return Rows(rows, num_tokens)
