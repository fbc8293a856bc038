"""A worker factory without a model: one token per byte, the answer is the prompt's last line, over and over.

The words <crash>, <raise> and <hang> in a prompt kill the process, fail the step, or stop the loop;
<slow> waits 50 ms a step.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

from inferd.config import EngineConfig
from inferd.errors import ContextLengthError
from inferd.types import EngineStats, GenerateRequest, TokenEvent

MAX_MODEL_LEN = 4096


class ByteTokenizer:
    vocab_size = 256

    def encode(self, text: str, *, add_special_tokens: bool = True, parse_special: bool = False) -> list[int]:
        return list(text.encode())

    def encode_segments(self, segments: list[str]) -> list[int]:
        return list("".join(segments).encode())

    def decode(self, ids: Any, *, skip_special_tokens: bool = True) -> str:
        return bytes(ids).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id])


class LastMessage:
    def render(self, messages: list[dict[str, Any]], **options: Any) -> list[str]:
        return [messages[-1]["content"]]


class MockEngine:
    max_model_len = MAX_MODEL_LEN

    def __init__(self) -> None:
        self._live: dict[str, list[Any]] = {}
        self._num_steps = self._num_generated = 0

    @property
    def has_work(self) -> bool:
        return bool(self._live)

    def add(self, request: GenerateRequest) -> None:
        num_prompt, limit = len(request.prompt_token_ids), request.sampling.max_tokens
        if num_prompt + (limit or 1) > MAX_MODEL_LEN:
            raise ContextLengthError(num_prompt, limit or 0, MAX_MODEL_LEN)
        self._live[request.request_id] = [request, bytes(request.prompt_token_ids).decode(), 0]

    def abort(self, request_id: str) -> None:
        self._live.pop(request_id, None)

    def step(self) -> list[TokenEvent]:
        self._num_steps += 1
        texts = "".join(text for _, text, _ in self._live.values())
        if "<crash>" in texts:
            os._exit(1)
        if "<raise>" in texts:
            raise RuntimeError("told to")
        time.sleep(1000 if "<hang>" in texts else 0.05 if "<slow>" in texts else 0)
        return [event for entry in list(self._live.values()) for event in self._advance(entry)]

    def _advance(self, entry: list[Any]) -> list[TokenEvent]:
        request, text, num_done = entry
        letter = text[num_done % len(text)]
        entry[2] += 1
        self._num_generated += request.sampling.n
        is_last = entry[2] >= (request.sampling.max_tokens or MAX_MODEL_LEN - len(text))
        if is_last:
            del self._live[request.request_id]
        return [
            TokenEvent(
                request_id=request.request_id, index=index, token_ids=(ord(letter) % 256,), text=letter,
                finish_reason="length" if is_last else None,
            )
            for index in range(request.sampling.n)
        ]  # fmt: skip

    def stats(self) -> EngineStats:
        return EngineStats(
            num_running=len(self._live), num_waiting=0, num_blocks=10, num_used_blocks=len(self._live),
            num_steps=self._num_steps, num_prompt_tokens=0, num_generated_tokens=self._num_generated,
            num_prefix_queried_tokens=0, num_prefix_hit_tokens=0, num_preemptions=0,
        )  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    generation_defaults: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Loaded:
    engine: MockEngine
    tokenizer: ByteTokenizer
    chat_template: LastMessage
    checkpoint: Checkpoint


def build(model: str, config: EngineConfig) -> Loaded:
    return Loaded(MockEngine(), ByteTokenizer(), LastMessage(), Checkpoint())
