"""Sequence: one output of one request while it lives. Only the scheduler changes it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from inferd.engine.adapters import LoadedAdapter
from inferd.engine.constraints import Constraints
from inferd.engine.kv_cache import BlockKey
from inferd.engine.text import SequenceText
from inferd.executors.base import I32
from inferd.metrics.steps import RequestMeter
from inferd.speculative.speculator import DraftState
from inferd.structured.matcher import Matcher
from inferd.types import GenerateRequest, PositionLogprobs, RequestTimings, SamplingParams

_GOLDEN = 0x9E3779B97F4A7C15


class TokenCounts:
    """How often each token occurs in an output; 0 = in the prompt only. Constant time per token: penalties read the
    arrays every step, and rebuilding them from a 2,000-token prompt took 0.2 ms a step."""

    def __init__(self, prompt_token_ids: Iterable[int]) -> None:
        distinct = dict.fromkeys(prompt_token_ids)
        self._position = {token: i for i, token in enumerate(distinct)}
        size = max(64, 2 * len(distinct))
        self._ids = np.zeros(size, np.int32)
        self._ids[: len(distinct)] = list(distinct)
        self._counts = np.zeros(size, np.int32)

    def add(self, token_id: int) -> None:
        at = self._position.setdefault(token_id, len(self._position))
        if at == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._ids[at] = token_id
        self._counts[at] += 1

    def arrays(self) -> tuple[I32, I32]:
        """(distinct ids, their counts), both (D,): views, valid until the next add."""
        size = len(self._position)
        return self._ids[:size], self._counts[:size]


@dataclass(slots=True, eq=False)
class RequestState:
    """What the sequences of one request share."""

    request: GenerateRequest
    arrival: int
    seed: int
    max_tokens: int  # resolved against the context
    root_key: BlockKey
    constraints: Constraints
    num_unfinished: int
    meter: RequestMeter
    num_cached_tokens: int = 0
    # of the prompt tokens scored so far; the first token has none. None: not asked, or sent
    prompt_logprobs: list[PositionLogprobs | None] | None = None
    adapter: LoadedAdapter | None = None

    @property
    def adapter_id(self) -> int:
        return -1 if self.adapter is None else self.adapter.adapter_id

    @property
    def sampling(self) -> SamplingParams:
        return self.request.sampling

    @property
    def wants_prompt_rows(self) -> bool:
        """Prompt tokens are still to be scored, so that every prompt position must be computed."""
        return self.prompt_logprobs is not None and len(self.prompt_logprobs) < len(self.request.prompt_token_ids)

    def timings(self, now: float) -> RequestTimings:
        return self.meter.timings(len(self.request.prompt_token_ids), self.num_cached_tokens, now)


@dataclass(slots=True, eq=False)
class Sequence:
    state: RequestState
    index: int
    token_ids: list[int]  # known tokens: prompt and output
    num_prompt_tokens: int
    text: SequenceText
    counts: TokenCounts | None = None  # when the request has penalties
    matcher: Matcher | None = None  # when the request has structured outputs
    pending_forks: int = 0  # siblings that are born when the prompt is computed
    num_computed_tokens: int = 0
    block_ids: list[int] = field(default_factory=list)
    block_keys: list[BlockKey] = field(default_factory=list)  # hash chain of its full blocks, as far as it was needed
    num_published: int = 0  # blocks that are findable
    slot: int = -1  # row of the block table while running
    num_preemptions: int = 0
    draft_state: DraftState = field(default_factory=DraftState)
    is_finished: bool = False

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def order(self) -> tuple[int, int, int]:
        """Who comes first: priority, then arrival."""
        return (self.state.request.priority, self.state.arrival, self.index)

    def seed(self, sibling: int = 0) -> int:
        """Of this sequence, or of a sibling by its index; index 0 has the request's own, so n does not change it."""
        return (self.state.seed + (sibling or self.index) * _GOLDEN) % 2**64


def request_seed(engine_seed: int, request: GenerateRequest) -> int:
    """The request's own, else one made of the engine's seed and the request id."""
    if request.sampling.seed is not None:
        return request.sampling.seed % 2**64
    digest = hashlib.sha256(f"{engine_seed}\0{request.request_id}".encode()).digest()
    return int.from_bytes(digest[:8], "little")
