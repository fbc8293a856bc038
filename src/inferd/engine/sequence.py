"""Sequence: one output of one request while it lives. Only the scheduler changes it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from inferd.engine.kv_cache import BlockKey
from inferd.types import GenerateRequest, PositionLogprobs, SamplingParams

_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Bans:
    """Token ids a request may not produce; made once from bad_words."""

    always: tuple[int, ...] = ()
    after: tuple[tuple[tuple[int, ...], int], ...] = ()  # (the tokens before, the token that completes the word)


@dataclass(slots=True, eq=False)
class RequestState:
    """What the sequences of one request share."""

    request: GenerateRequest
    arrival: int
    seed: int
    max_tokens: int  # resolved against the context
    root_key: BlockKey
    bans: Bans
    num_unfinished: int
    num_cached_tokens: int = 0
    prompt_logprobs: list[PositionLogprobs | None] | None = None
    prompt_logprobs_sent: bool = False

    @property
    def sampling(self) -> SamplingParams:
        return self.request.sampling


@dataclass(slots=True, eq=False)
class Sequence:
    state: RequestState
    index: int
    token_ids: list[int]  # known tokens: prompt and output
    num_prompt_tokens: int
    pending_forks: int = 0  # siblings that are born when the prompt is computed
    num_computed_tokens: int = 0
    block_ids: list[int] = field(default_factory=list)
    block_keys: list[BlockKey] = field(default_factory=list)  # of the published ones, in order
    slot: int = -1  # row of the block table while running
    num_preemptions: int = 0
    output_counts: dict[int, int] | None = None  # token -> occurrences in the output; 0 = in the prompt only
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

    @property
    def seed(self) -> int:
        """Of this sequence; the first one's is the request's own, so that n does not change it."""
        return (self.state.seed + self.index * _GOLDEN) % 2**64


def request_seed(engine_seed: int, request: GenerateRequest) -> int:
    """The request's own, else one made of the engine's seed and the request id."""
    if request.sampling.seed is not None:
        return request.sampling.seed % 2**64
    digest = hashlib.sha256(f"{engine_seed}\0{request.request_id}".encode()).digest()
    return int.from_bytes(digest[:8], "little")
