"""The worker of an encoder: texts to tokens on arrival, tokens of many calls computed together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec import structs

from inferd.config import EngineConfig
from inferd.errors import InvalidRequestError
from inferd.executors.base import F32
from inferd.executors.encoder_base import EncoderBatch, EncoderExecutor
from inferd.executors.encoder_native import NativeEncoder
from inferd.executors.encoder_reference import ReferenceEncoder
from inferd.models.encoder_loader import EncoderCheckpoint, load_encoder
from inferd.models.store import resolve
from inferd.tokenizer.encoder_tokenizer import EncoderTokenizer, Encoding
from inferd.worker.batcher import BatchPolicy, Pending
from inferd.worker.call_host import HostedService
from inferd.worker.protocol import Call, Encode, Encoded, PairPrompt, Ready, TextPrompt, TokenPrompt

MAX_NUM_TOKENS = 4096  # of one batch: MiniLM's states of it take 6 MiB; more gains nothing
MAX_QUEUE = 4096  # messages; a long request is several
MAX_TEXT_LEN = 2**20  # characters of one input


@dataclass(frozen=True, slots=True)
class _Work:
    encodings: list[Encoding]


class EncoderService:
    """A CallService over a loaded encoder."""

    num_runners = 1

    def __init__(self, checkpoint: EncoderCheckpoint, executor: EncoderExecutor, tokenizer: EncoderTokenizer) -> None:
        self._checkpoint, self._executor, self._tokenizer = checkpoint, executor, tokenizer
        self.policy = BatchPolicy(max_batch=executor.max_num_tokens, max_queue=MAX_QUEUE)

    def pending(self, call: Call) -> Pending:
        if not isinstance(call, Encode):
            raise InvalidRequestError("this model makes vectors and scores; it does not answer this call")
        self._check(call)
        encodings = self._encodings(call)
        cost = sum(len(one.token_ids) for one in encodings)
        group = call.task, call.pooling
        return Pending(call=call, cost=cost, group=group, priority=call.priority, payload=_Work(encodings))

    def run(self, batch: Sequence[Pending]) -> list[Encoded]:
        calls: list[Encode] = [pending.call for pending in batch]  # type: ignore[misc]
        encodings = [one for pending in batch for one in pending.payload.encodings]
        begin = time.monotonic()
        rows = self._compute(encodings, self._pooling(calls[0]))
        seconds = time.monotonic() - begin
        if calls[0].pooling == "none":
            ends = np.cumsum([pending.cost for pending in batch])
        else:
            ends = np.cumsum([len(pending.payload.encodings) for pending in batch])
        parts = np.split(rows, ends[:-1])
        replies = [self._reply(call, p.payload, part) for call, p, part in zip(calls, batch, parts, strict=True)]
        size = len(encodings)
        return [
            structs.replace(reply, queue_seconds=begin - p.arrived, compute_seconds=seconds, batch_size=size)
            for reply, p in zip(replies, batch, strict=True)
        ]

    def close(self) -> None:
        self._executor.close()

    def details(self) -> dict[str, Any]:
        """What the gateway is told of the model."""
        spec, checkpoint = self._checkpoint.spec, self._checkpoint
        return {
            "architecture": spec.family,
            "dimensions": spec.out_size,
            "pooling": checkpoint.pooling,
            "labels": list(checkpoint.labels),
            "score_activation": checkpoint.score_activation,
            "prompts": dict(checkpoint.prompts),
            "default_prompt": checkpoint.default_prompt,
            "num_parameters": sum(w.num_rows * w.num_cols for w in checkpoint.weights.values()),
            "num_weight_bytes": sum(w.nbytes for w in checkpoint.weights.values()),
            "context_length": checkpoint.max_tokens,
        }

    def _check(self, call: Encode) -> None:
        labels, width = self._checkpoint.labels, self._checkpoint.spec.out_size
        if call.task == "classify" and not labels:
            raise InvalidRequestError("this model makes vectors; it has no labels to score", param="model")
        if call.task == "embed" and labels and call.pooling != "none":
            raise InvalidRequestError("this model scores labels; it makes no vectors", param="model")
        if call.dimensions is not None and not 1 <= call.dimensions <= width:
            raise InvalidRequestError(
                f"dimensions must be from 1 to {width}, got {call.dimensions}", param="dimensions"
            )

    def _pooling(self, call: Encode) -> Any:
        is_own = call.pooling == "model" or call.task == "classify"
        return self._checkpoint.pooling if is_own else call.pooling

    def _encodings(self, call: Encode) -> list[Encoding]:
        texts = [self._text(call, at, one) for at, one in enumerate(call.inputs) if not isinstance(one, TokenPrompt)]
        limit = self._checkpoint.max_tokens
        cut = limit if call.truncate else None
        read = iter(self._tokenizer.encode(texts, max_tokens=cut, from_left=call.truncate_left))
        found = []
        for at, one in enumerate(call.inputs):
            encoding = self._token_input(call, at, one) if isinstance(one, TokenPrompt) else next(read)
            if len(encoding.token_ids) > limit:
                raise InvalidRequestError(
                    f"This model reads at most {limit} tokens. inputs[{call.first_input + at}] has "
                    f"{len(encoding.token_ids)}.",
                    param="inputs",
                    code="context_length_exceeded",
                )
            if not encoding.token_ids:
                raise InvalidRequestError(f"inputs[{call.first_input + at}] must not be empty", param="inputs")
            found.append(encoding)
        return found

    def _text(self, call: Encode, at: int, one: TextPrompt | PairPrompt) -> str | tuple[str, str]:
        size = len(one.text) + (len(one.text_pair) if isinstance(one, PairPrompt) else 0)
        if size > MAX_TEXT_LEN:
            message = f"inputs[{call.first_input + at}] has {size} characters, at most {MAX_TEXT_LEN} are read"
            raise InvalidRequestError(message, param="inputs")
        if isinstance(one, PairPrompt):
            return one.text, one.text_pair
        prompt = self._checkpoint.prompts.get(self._checkpoint.default_prompt, "")
        return prompt + one.text

    def _token_input(self, call: Encode, at: int, one: TokenPrompt) -> Encoding:
        """Ids as they are: a client that sends ids says where the special ones are."""
        top = self._checkpoint.spec.vocab_size - 1
        ids = list(one.token_ids)
        if ids and not 0 <= min(ids) <= max(ids) <= top:
            message = f"inputs[{call.first_input + at}] must hold token ids of this model, from 0 to {top}"
            raise InvalidRequestError(message, param="inputs")
        if call.truncate:
            limit = self._checkpoint.max_tokens
            ids = ids[-limit:] if call.truncate_left else ids[:limit]
        return Encoding(ids, [0] * len(ids))

    def _compute(self, encodings: Sequence[Encoding], pooling: Any) -> F32:
        """(num_inputs, width), or (num_tokens, hidden) with pooling "none"; as many steps as the budget asks for."""
        budget, rows = self._executor.max_num_tokens, []
        first = 0
        while first < len(encodings):
            last, size = first + 1, len(encodings[first].token_ids)
            while last < len(encodings) and size + len(encodings[last].token_ids) <= budget:
                size += len(encodings[last].token_ids)
                last += 1
            rows.append(self._executor.encode(_batch(encodings[first:last], pooling)))
            first = last
        return np.concatenate(rows)

    def _reply(self, call: Encode, work: _Work, rows: F32) -> Encoded:
        if call.task == "classify":
            rows = rows if call.raw_scores else _scores(rows, self._checkpoint.score_activation)
        else:
            rows = rows[:, : call.dimensions]
            if call.normalize:
                rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return Encoded(
            call_id=call.call_id,
            width=rows.shape[1],
            rows=np.ascontiguousarray(rows, np.dtype("<f4")).tobytes(),
            num_tokens=tuple(len(one.token_ids) for one in work.encodings),
        )


def _batch(encodings: Sequence[Encoding], pooling: Any) -> EncoderBatch:
    lengths = [len(one.token_ids) for one in encodings]
    return EncoderBatch(
        token_ids=np.array([i for one in encodings for i in one.token_ids], np.int32),
        type_ids=np.array([i for one in encodings for i in one.type_ids], np.int32),
        starts=np.cumsum([0, *lengths], dtype=np.int32),
        pooling=pooling,
    )


def _scores(rows: F32, activation: str) -> F32:
    if activation == "sigmoid":
        rows = np.reciprocal(1 + np.exp(-rows), dtype=np.float32)
    elif activation == "softmax":
        powers: F32 = np.exp(rows - rows.max(axis=1, keepdims=True))
        rows = powers / powers.sum(axis=1, keepdims=True)
    return rows.astype(np.float32, copy=False)


def open_encoder(model: str, engine: EngineConfig) -> EncoderService:
    """Raises ModelNotFoundError or ModelLoadError."""
    checkpoint = load_encoder(resolve(model))
    spec = checkpoint.spec
    tokenizer = EncoderTokenizer(checkpoint.path, spec.vocab_size, spec.num_types)
    num_tokens = max(MAX_NUM_TOKENS, checkpoint.max_tokens)
    executor: EncoderExecutor
    if engine.executor == "reference":
        executor = ReferenceEncoder(checkpoint, max_num_tokens=num_tokens)
    else:
        executor = NativeEncoder(
            checkpoint, max_num_tokens=num_tokens, num_threads=engine.resolved_num_threads, dtype=engine.encoder_dtype
        )
    return EncoderService(checkpoint, executor, tokenizer)


def load(model: str, engine: EngineConfig, progress: Callable[[int, int], None]) -> HostedService:
    """Raises ModelNotFoundError or ModelLoadError."""
    service = open_encoder(model, engine)
    details = service.details()
    ready = Ready(kind="encode", max_model_len=details["context_length"], details=details)
    return HostedService(ready, service)
