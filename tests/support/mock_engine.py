"""A worker factory without a model: one token per byte, the answer is the prompt over and over.

Words in a prompt do harm: <crash> kills the process, <raise> fails the step, <hang> stops the loop, <slow> waits 50 ms
a step, <pace> 5 ms. Tokens 256 and 257 are the begin of a text and an end of it that is never generated.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from inferd.config import EngineConfig
from inferd.errors import ContextLengthError, ModelLoadError, OverloadedError
from inferd.models.checkpoint import Checkpoint
from inferd.tokenizer.chat_template import ChatTemplate
from inferd.tokenizer.control import ControlTexts
from inferd.tokenizer.detokenizer import IncrementalDetokenizer
from inferd.tokenizer.stop_strings import StopStringMatcher
from inferd.types import EngineStats, GenerateRequest, PositionLogprobs, TokenEvent, TokenLogprob
from support.tiny_models import tiny_checkpoint

MAX_MODEL_LEN = 4096
VOCAB_SIZE = 258
BOS = 256
CONTROL = ControlTexts({"<bos>": 256, "<eos>": 257})
TEMPLATE = "<bos>{% for m in messages %}{{ m.content }}{% endfor %}"


class ByteTokenizer:
    vocab_size = VOCAB_SIZE
    control = CONTROL

    def encode(self, text: str, *, add_special_tokens: bool = True, parse_special: bool = False) -> list[int]:
        return self.encode_guarded(text, "\ufdd0") if parse_special else list(text.encode())

    def encode_guarded(self, text: str, guard: str, *, add_special_tokens: bool = False) -> list[int]:
        ids: list[int] = []
        for part in re.split("(<bos>|<eos>)", text):
            ids += {"<bos>": [BOS], "<eos>": [BOS + 1]}.get(part) or part.replace(guard, "").encode()
        return [BOS, *ids] if add_special_tokens and ids[:1] != [BOS] else ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return b"".join(map(self.token_bytes, ids)).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < BOS else (b"<bos>", b"<eos>")[token_id - BOS]

    def all_bytes(self, ids: Iterable[int]) -> bytes:
        return b"".join(map(self.token_bytes, ids))


def logprobs_of(token_id: int, count: int) -> PositionLogprobs:
    """The chosen token always is the best one; the next ids follow."""
    best = [TokenLogprob((token_id + i) % VOCAB_SIZE, -0.5 - i, i + 1) for i in range(max(1, count))]
    return PositionLogprobs(best[0], tuple(best[:count]))


class Live:
    """One request: its prompt without the begin of text, repeated for every choice."""

    def __init__(self, request: GenerateRequest) -> None:
        sampling = request.sampling
        self.request = request
        self.answer = [i for i in request.prompt_token_ids if i != BOS] or [0]
        self.words = bytes(i for i in request.prompt_token_ids if i < BOS)
        self.num_done = 0
        to_bytes = ByteTokenizer().all_bytes
        self.texts = [IncrementalDetokenizer(to_bytes, strips_leading_space=False) for _ in range(sampling.n)]
        include = sampling.include_stop_str_in_output
        self.stops = [StopStringMatcher(sampling.stop, include=include) for _ in range(sampling.n)]
        self.open = list(range(sampling.n))

    def advance(self) -> list[TokenEvent]:
        token_id = self.answer[self.num_done % len(self.answer)]
        self.num_done += 1
        limit = self.request.sampling.max_tokens or MAX_MODEL_LEN - len(self.request.prompt_token_ids)
        return [self._event(index, token_id, self.num_done >= limit) for index in list(self.open)]

    def _event(self, index: int, token_id: int, is_last: bool) -> TokenEvent:
        sampling = self.request.sampling
        text, stop = self.stops[index].push(self.texts[index].push([token_id]))
        stop_reason: int | str | None = stop
        if stop is None and token_id in sampling.stop_token_ids:
            stop_reason = token_id
        if stop is None and (is_last or stop_reason is not None):
            text += self.stops[index].flush() + self.texts[index].flush()
        reason = "stop" if stop_reason is not None else "length" if is_last else None
        if reason is not None:
            self.open.remove(index)
        first = index == 0 and self.num_done == 1
        return TokenEvent(
            request_id=self.request.request_id, index=index, token_ids=(token_id,), text=text,
            logprobs=None if sampling.logprobs is None else (logprobs_of(token_id, sampling.logprobs),),
            finish_reason=reason, stop_reason=stop_reason, num_cached_tokens=1,
            prompt_logprobs=self._prompt_logprobs() if first and sampling.prompt_logprobs is not None else None,
        )  # fmt: skip

    def _prompt_logprobs(self) -> tuple[PositionLogprobs | None, ...]:
        count = self.request.sampling.prompt_logprobs or 0
        return (None, *(logprobs_of(i, count) for i in self.request.prompt_token_ids[1:]))


class MockEngine:
    max_model_len = MAX_MODEL_LEN
    block_size = 16

    def __init__(self, max_queue_len: int) -> None:
        self._max_queue_len = max_queue_len
        self._live: dict[str, Live] = {}
        self._num_steps = self._num_prompt = self._num_generated = 0

    @property
    def has_work(self) -> bool:
        return bool(self._live)

    def add(self, request: GenerateRequest) -> None:
        num_prompt, limit = len(request.prompt_token_ids), request.sampling.max_tokens
        if len(self._live) >= self._max_queue_len:
            raise OverloadedError("the queue is full", retry_after=1.0)
        if num_prompt + (limit or 1) > MAX_MODEL_LEN:
            raise ContextLengthError(num_prompt, limit or 1, MAX_MODEL_LEN)
        self._num_prompt += num_prompt
        self._live[request.request_id] = Live(request)

    def abort(self, request_id: str) -> None:
        self._live.pop(request_id, None)

    def step(self) -> list[TokenEvent]:
        self._num_steps += 1
        words = b"".join(live.words for live in self._live.values())
        if b"<crash>" in words or b"<raise>" in words:
            time.sleep(0.1)  # until the gateway knows that the request was accepted
        if b"<crash>" in words:
            os._exit(1)
        if b"<raise>" in words:
            raise RuntimeError("told to")
        time.sleep(1000 if b"<hang>" in words else 0.05 if b"<slow>" in words else 0.005 if b"<pace>" in words else 0)
        events = [event for live in list(self._live.values()) for event in live.advance()]
        self._num_generated += len(events)
        self._live = {request_id: live for request_id, live in self._live.items() if live.open}
        return events

    def stats(self) -> EngineStats:
        return EngineStats(
            num_running=len(self._live), num_waiting=0, num_blocks=10, num_used_blocks=len(self._live),
            num_steps=self._num_steps, num_prompt_tokens=self._num_prompt, num_generated_tokens=self._num_generated,
            num_prefix_queried_tokens=self._num_prompt, num_prefix_hit_tokens=0, num_preemptions=0,
        )  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    engine: MockEngine
    tokenizer: ByteTokenizer
    chat_template: ChatTemplate
    checkpoint: Checkpoint


def build_unless_told(model: str, config: EngineConfig) -> Loaded:
    """Does not load while the file exists that INFERD_TEST_STOP names."""
    if os.path.exists(os.environ["INFERD_TEST_STOP"]):
        raise ModelLoadError("told to")
    return build(model, config)


def build(model: str, config: EngineConfig) -> Loaded:
    return loaded(TEMPLATE, config)


def loaded(template: str, config: EngineConfig) -> Loaded:
    checkpoint = replace(tiny_checkpoint("llama"), generation_defaults={"top_k": 7, "eos_token_ids": [257]})
    compiled = ChatTemplate(template, control=CONTROL, bos_token="<bos>", eos_token="<eos>")
    return Loaded(MockEngine(config.max_queue_len), ByteTokenizer(), compiled, checkpoint)
