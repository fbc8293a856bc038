"""Scheduler: who runs how many tokens. It owns requests; every change of a Sequence happens here.

One idea: a sequence has known tokens (prompt and output) and computed tokens; each step lets computed catch up with
known under a token budget. Prefill in chunks, prefix reuse and recompute after preemption are all the same motion.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from inferd.engine.kv_cache import KVCache, Published
from inferd.engine.sequence import RequestState, Sequence, TokenCounts
from inferd.engine.text import SequenceText

_WATERMARK_BLOCKS = 1  # kept free at admission, so that the newcomer does not preempt on its first decode


@dataclass(frozen=True, slots=True)
class Scheduled:
    """num_tokens new tokens of a sequence; all of its known tokens when `samples`. drafts: guesses that follow them."""

    sequence: Sequence
    num_tokens: int
    drafts: tuple[int, ...] = ()

    @property
    def samples(self) -> bool:
        return self.sequence.num_computed_tokens + self.num_tokens == self.sequence.num_tokens


@dataclass(slots=True)
class Totals:
    num_prefix_queried_tokens: int = 0
    num_prefix_hit_tokens: int = 0
    num_preemptions: int = 0
    num_prompt_tokens: int = 0


class Scheduler:
    def __init__(self, kv_cache: KVCache, *, max_num_seqs: int, token_budget: int) -> None:
        self._kv_cache = kv_cache
        self._max_num_seqs = max_num_seqs
        self._token_budget = token_budget
        self._waiting: list[tuple[tuple[int, int, int], Sequence]] = []  # a heap
        self._running: list[Sequence] = []
        self._free_slots = list(range(max_num_seqs - 1, -1, -1))
        self._copies: list[tuple[int, int]] = []  # blocks to copy before the next step writes
        self.totals = Totals()

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def add(self, sequence: Sequence) -> None:
        heapq.heappush(self._waiting, (sequence.order, sequence))

    def remove(self, state: RequestState) -> None:
        """Every unfinished sequence of a request leaves now; its blocks are free before the next step."""
        for sequence in [s for s in self._running if s.state is state]:
            self.finish(sequence)
        waiting = [entry for entry in self._waiting if entry[1].state is not state]
        if len(waiting) != len(self._waiting):
            for _, sequence in self._waiting:
                if sequence.state is state:
                    sequence.is_finished = True
            self._waiting = waiting
            heapq.heapify(self._waiting)

    def finish(self, sequence: Sequence) -> None:
        if sequence.slot < 0:  # a sibling that found no block at its birth may end with its first token
            self._waiting = [entry for entry in self._waiting if entry[1] is not sequence]
            heapq.heapify(self._waiting)
        self._leave(sequence)
        sequence.is_finished = True

    def plan(self, prefill_budget: Callable[[int], int]) -> list[Scheduled]:
        """What the next step computes; takes the blocks it needs. Decodes first, then prompt chunks, then newcomers.

        prefill_budget(number of decodes): most prompt tokens beside them.
        """
        planned: dict[int, Scheduled] = {}
        self._running.sort(key=lambda s: s.order)
        decoding = [s for s in self._running if s.num_tokens - s.num_computed_tokens == 1]
        catching_up = [s for s in self._running if s.num_tokens - s.num_computed_tokens != 1]
        budget = min(self._token_budget, len(decoding) + prefill_budget(len(decoding)))
        for sequence in decoding + catching_up:
            if budget == 0 or sequence.slot < 0:  # preempted meanwhile
                continue
            count = min(sequence.num_tokens - sequence.num_computed_tokens, budget)
            if self._grow(sequence, sequence.num_computed_tokens + count, planned):
                planned[id(sequence)] = Scheduled(sequence, count)
                budget -= count
        while budget > 0 and (newcomer := self._admit()) is not None:
            count = min(newcomer.num_tokens - newcomer.num_computed_tokens, budget)
            if not self._grow(newcomer, newcomer.num_computed_tokens + count, planned):
                break
            planned[id(newcomer)] = Scheduled(newcomer, count)
            budget -= count
        return list(planned.values())

    def extend(self, scheduled: Scheduled, num_drafts: int) -> bool:
        """Blocks for guesses too, when they are free; nobody leaves for a guess."""
        sequence = scheduled.sequence
        num_tokens = sequence.num_computed_tokens + scheduled.num_tokens + num_drafts
        blocks = self._kv_cache.allocate(max(0, self._kv_cache.blocks_for(num_tokens) - len(sequence.block_ids)))
        sequence.block_ids += blocks or ()
        return blocks is not None

    def take_copies(self) -> list[tuple[int, int]]:
        copies, self._copies = self._copies, []
        return copies

    def _grow(self, sequence: Sequence, num_tokens: int, planned: dict[int, Scheduled]) -> bool:
        """Blocks for num_tokens tokens, at the price of those that come later; False when it had to leave itself."""
        missing = self._kv_cache.blocks_for(num_tokens) - len(sequence.block_ids)
        while True:
            blocks = self._kv_cache.allocate(missing) if missing > 0 else []
            if blocks is not None:
                sequence.block_ids += blocks
                return True
            victim = max(self._running, key=lambda s: s.order)
            planned.pop(id(victim), None)
            self._preempt(victim)
            if victim is sequence:
                return False

    def _preempt(self, sequence: Sequence) -> None:
        """Back to the queue with all its known tokens, to be computed again."""
        self._leave(sequence)
        sequence.num_preemptions += 1
        self.totals.num_preemptions += 1
        self.add(sequence)

    def _leave(self, sequence: Sequence) -> None:
        if sequence.slot >= 0:
            self._running.remove(sequence)
            self._free_slots.append(sequence.slot)
            sequence.slot = -1
        self._kv_cache.free(sequence.block_ids)
        sequence.block_ids = []
        sequence.num_published = sequence.num_computed_tokens = 0

    def _admit(self) -> Sequence | None:
        """The first in the queue, when a place for all it asks and blocks for all it knows are free."""
        if not self._waiting:
            return None
        sequence = self._waiting[0][1]
        if 1 + sequence.pending_forks + self._num_places() > self._max_num_seqs:
            return None
        cached = self._find_cached(sequence)
        needed = self._kv_cache.blocks_for(sequence.num_tokens + 1) - len(cached)
        taken_from_free = sum(1 for block in cached if self._kv_cache.is_free(block))
        available = self._kv_cache.num_free_blocks - taken_from_free - self._num_promised()
        if needed + (_WATERMARK_BLOCKS if self._running else 0) > available:
            return None
        heapq.heappop(self._waiting)
        self._enter(sequence, cached)
        return sequence

    def _num_places(self) -> int:
        return len(self._running) + sum(s.pending_forks for s in self._running)

    def _num_promised(self) -> int:
        """Blocks that running sequences still need for tokens they know."""
        needs = (self._kv_cache.blocks_for(s.num_tokens) - len(s.block_ids) for s in self._running)
        return sum(max(0, need) for need in needs)

    def _find_cached(self, sequence: Sequence) -> list[int]:
        state = sequence.state
        if state.wants_prompt_rows:
            return []
        # at least the last token is computed: its logits are needed
        keys, tokens = sequence.block_keys, sequence.token_ids
        return self._kv_cache.match_prefix(keys, state.root_key, tokens, sequence.num_tokens - 1)

    def _enter(self, sequence: Sequence, cached: list[int]) -> None:
        self._kv_cache.take(cached)
        sequence.block_ids = cached
        sequence.num_published = len(cached)
        sequence.num_computed_tokens = len(cached) * self._kv_cache.block_size
        sequence.slot = self._free_slots.pop()
        self._running.append(sequence)
        self.totals.num_prefix_queried_tokens += sequence.num_tokens
        self.totals.num_prefix_hit_tokens += sequence.num_computed_tokens
        if sequence.num_preemptions == 0 and sequence.num_output_tokens == 0:
            sequence.state.num_cached_tokens = sequence.num_computed_tokens
            self.totals.num_prompt_tokens += sequence.num_prompt_tokens

    def advance(self, sequence: Sequence, num_tokens: int) -> None:
        """Computed catches up by num_tokens known tokens; full blocks become findable."""
        size = self._kv_cache.block_size
        sequence.num_computed_tokens += num_tokens
        keys, root = sequence.block_keys, sequence.state.root_key
        num_full = sequence.num_computed_tokens // size
        self._kv_cache.extend_keys(keys, root, sequence.token_ids, num_full)
        for done in range(sequence.num_published, num_full):
            tokens = tuple(sequence.token_ids[done * size : (done + 1) * size])
            content = Published(keys[done], keys[done - 1] if done else root, tokens)
            self._kv_cache.publish(sequence.block_ids[done], content)
        sequence.num_published = num_full

    def append(self, sequence: Sequence, token_id: int) -> None:
        sequence.token_ids.append(token_id)
        if sequence.counts is not None:
            sequence.counts.add(token_id)

    def fork(self, parent: Sequence, text: SequenceText) -> Sequence:
        """A sibling that shares the computed prompt: full blocks by reference, the last one by copy.

        Without a free block for the copy it queues and computes the prompt again (the prefix cache will help).
        """
        child = Sequence(
            state=parent.state,
            index=parent.state.sampling.n - parent.pending_forks,
            token_ids=parent.token_ids[: parent.num_prompt_tokens],
            num_prompt_tokens=parent.num_prompt_tokens,
            text=text,
            counts=TokenCounts(parent.state.request.prompt_token_ids) if parent.counts is not None else None,
        )
        parent.pending_forks -= 1
        num_full, rest = divmod(parent.num_prompt_tokens, self._kv_cache.block_size)
        partial = parent.block_ids[num_full : num_full + 1] if rest else []
        own = self._kv_cache.allocate(len(partial))
        if own is None:
            self.add(child)
            return child
        shared = parent.block_ids[:num_full]
        self._kv_cache.take(shared)
        child.block_ids = shared + own
        child.block_keys = parent.block_keys[:num_full]
        child.num_published = num_full
        child.num_computed_tokens = parent.num_prompt_tokens
        child.slot = self._free_slots.pop()
        self._copies += zip(partial, own, strict=True)
        self._running.append(child)
        return child

    def check(self) -> None:
        """Raises AssertionError when an invariant is broken."""
        waiting = [sequence for _, sequence in self._waiting]
        self._kv_cache.check([s.block_ids for s in self._running])
        assert not any(s.block_ids or s.slot >= 0 or s.is_finished for s in waiting), "a waiting sequence holds blocks"
        slots = [s.slot for s in self._running]
        assert sorted(slots + self._free_slots) == list(range(self._max_num_seqs)), "slots are lost or doubled"
        for s in self._running:
            assert not s.is_finished, "a finished sequence runs"
            assert 0 <= s.num_computed_tokens <= s.num_tokens, "a sequence is ahead of itself"
            num_needed = self._kv_cache.blocks_for(s.num_computed_tokens)
            assert len(s.block_ids) >= num_needed, "computed tokens without a block"
