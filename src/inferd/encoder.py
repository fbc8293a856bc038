"""Encoder: vectors and scores without a server, through what an encoder's worker runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from inferd.config import EngineConfig
from inferd.errors import InvalidRequestError
from inferd.executors.base import F32
from inferd.models.store import is_local, pull
from inferd.worker.encoding import open_encoder
from inferd.worker.protocol import Encode, Encoded, PairPrompt, TextPrompt, TokenPrompt

Input = str | Sequence[int] | tuple[str, str]  # a text, token ids as they are, or a pair of texts


class Encoder:
    """One encoder in this process. dtype: EngineConfig.encoder_dtype; num_threads None: every usable core. A known
    alias that is not in the store yet is fetched. Raises ModelNotFoundError, ModelLoadError or ConfigError. Not
    thread-safe."""

    def __init__(
        self,
        model: str,
        *,
        dtype: Literal["bf16", "f32", "q8_0"] = "bf16",
        num_threads: int | None = None,
        executor: Literal["native", "reference"] = "native",
    ) -> None:
        config = EngineConfig(encoder_dtype=dtype, num_threads=num_threads, executor=executor)
        if not Path(model).exists() and not is_local(model):
            pull(model, lambda what, done, total: None)
        self._service = open_encoder(model, config)
        details = self._service.details()
        self.labels: tuple[str, ...] = tuple(details["labels"])  # () for a model that makes vectors
        self.dimensions: int = details["dimensions"]  # of a vector, or the number of labels
        self.max_tokens: int = details["context_length"]  # of one input

    def embed(
        self,
        inputs: str | Sequence[Input],
        *,
        pooling: Literal["model", "mean", "cls", "last"] = "model",
        normalize: bool = True,
        dimensions: int | None = None,
        truncate: bool = False,
    ) -> F32:
        """(num_inputs, width) float32. dimensions: the first so many, normalized again. truncate: cut what is longer
        than max_tokens; else that raises InvalidRequestError, as does a model that has labels."""
        call = Encode(
            call_id="",
            inputs=_prompts(inputs),
            pooling=pooling,
            normalize=normalize,
            dimensions=dimensions,
            truncate=truncate,
        )
        return self._rows(call)

    def classify(self, inputs: str | Sequence[Input], *, raw_scores: bool = False, truncate: bool = False) -> F32:
        """(num_inputs, len(labels)) float32. raw_scores: without the model's sigmoid or softmax."""
        call = Encode(call_id="", inputs=_prompts(inputs), task="classify", raw_scores=raw_scores, truncate=truncate)
        return self._rows(call)

    def score(self, query: str, texts: Sequence[str], *, truncate: bool = False) -> F32:
        """(num_texts,) float32: how well each text fits the query, by a cross-encoder's score of the pair or by the
        cosine of vectors."""
        if len(self.labels) > 1:
            message = f"this model has {len(self.labels)} labels; a score is made by a model that has one"
            raise InvalidRequestError(message, param="model")
        if self.labels:
            return self.classify([(query, text) for text in texts], truncate=truncate)[:, 0]
        rows: F32 = self.embed([query, *texts], truncate=truncate)
        scores: F32 = rows[1:] @ rows[0]
        return scores

    def close(self) -> None:
        """Frees the model; the object cannot be used afterwards."""
        self._service.close()

    def _rows(self, call: Encode) -> F32:
        reply: Encoded = self._service.run([self._service.pending(call)])[0]
        return np.frombuffer(reply.rows, "<f4").reshape(-1, reply.width)


def _prompts(inputs: str | Sequence[Input]) -> list[TextPrompt | TokenPrompt | PairPrompt]:
    several = [inputs] if isinstance(inputs, str) else inputs
    if not several:
        raise InvalidRequestError("inputs must hold at least one input", param="inputs")
    return [_prompt(one) for one in several]


def _prompt(one: Input) -> TextPrompt | TokenPrompt | PairPrompt:
    if isinstance(one, str):
        return TextPrompt(text=one)
    if len(one) == 2 and isinstance(one[0], str) and isinstance(one[1], str):
        return PairPrompt(text=one[0], text_pair=one[1])
    return TokenPrompt(token_ids=tuple(int(token_id) for token_id in one))
