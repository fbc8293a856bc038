"""Scheduler: who runs how many tokens. It owns requests; every change of a Sequence happens here.

One idea: a sequence has known tokens (prompt and output) and computed tokens; each step lets computed catch up with
known under a token budget. Prefill in chunks, prefix reuse and recompute after preemption are all the same motion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from inferd.engine.clock import Room, StepClock
from inferd.engine.kv_cache import KVCache, Published
from inferd.engine.sequence import RequestState, Sequence, TokenCounts
from inferd.engine.tenants import Tenant, Tenants
from inferd.engine.text import SequenceText

_WATERMARK_BLOCKS = 1  # kept free at admission, so that the newcomer does not preempt on its first decode

Rows = Callable[[Sequence, int], int]  # how many of so many tokens a sequence may compute in the step


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


@dataclass(slots=True)
class _Step:
    """A plan while it is made. budget: tokens that are left."""

    budget: int
    decodes: list[Sequence]  # that run as the step begins, with one token to compute
    prompts: list[Sequence]  # with more
    planned: dict[int, Scheduled] = field(default_factory=dict)  # by id of the sequence
    num_decode_rows: int = 0
    num_prompt_rows: int = 0
    is_full: bool = False  # the next newcomer found no place: nobody overtakes it

    def add(self, scheduled: Scheduled) -> None:
        self.planned[id(scheduled.sequence)] = scheduled
        self._count(scheduled.num_tokens, 1)

    def drop(self, sequence: Sequence) -> int:
        """How many tokens of it were planned."""
        scheduled = self.planned.pop(id(sequence), None)
        if scheduled is None:
            return 0
        self._count(scheduled.num_tokens, -1)
        return scheduled.num_tokens

    def can_take(self, sequence: Sequence) -> bool:
        return self.budget > 0 and sequence.slot >= 0 and id(sequence) not in self.planned

    def _count(self, num_tokens: int, sign: int) -> None:
        self.budget -= sign * num_tokens
        if num_tokens == 1:
            self.num_decode_rows += sign
        else:
            self.num_prompt_rows += sign * num_tokens


class Scheduler:
    """Sequences of one tenant run in the order of priority and arrival; tenants share the engine by weight."""

    def __init__(self, kv_cache: KVCache, *, max_num_seqs: int, token_budget: int, clock: StepClock) -> None:
        self._kv_cache = kv_cache
        self._max_num_seqs = max_num_seqs
        self._token_budget = token_budget
        self._room = Room(clock)
        self._tenants = Tenants()
        self._running: list[Sequence] = []
        self._free_slots = list(range(max_num_seqs - 1, -1, -1))
        self._copies: list[tuple[int, int]] = []  # blocks to copy before the next step writes
        self.totals = Totals()

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return self._tenants.num_waiting

    def add(self, sequence: Sequence) -> None:
        self._tenants.push(sequence)

    def remove(self, state: RequestState) -> None:
        """Every unfinished sequence of a request leaves now; its blocks are free before the next step."""
        waiting = [sequence for tenant in self._tenants for _, sequence in tenant.waiting if sequence.state is state]
        for sequence in [s for s in self._running if s.state is state] + waiting:
            self.finish(sequence)

    def finish(self, sequence: Sequence) -> None:
        if sequence.slot < 0:  # aborted, or a sibling that found no block at its birth ends with its first token
            self._tenants.discard(sequence)
        self._leave(sequence)
        sequence.is_finished = True

    def plan(self, prefill_budget: Callable[[int], int]) -> list[Scheduled]:
        """What the next step computes; takes the blocks it needs. Decodes first, then prompts: chunks and newcomers.

        prefill_budget(number of decodes): most prompt tokens beside them.

        First what the tenants' shares cover, then what more there is room for: the rest of the foreground, and
        background at the end. A sequence that is left out keeps its blocks as long as nobody needs them.
        """
        self._running.sort(key=lambda s: s.order)
        tenants = self._tenants
        tenants.settle(self._running)
        decodes = [s for s in self._running if s.num_tokens - s.num_computed_tokens == 1]
        prompts = [s for s in self._running if s.num_tokens - s.num_computed_tokens != 1]
        step = _Step(self._token_budget, decodes, prompts)
        self._plan_decodes(step, tenants.is_background, tenants.share)
        step.budget = min(step.budget, prefill_budget(step.num_decode_rows))
        self._plan_prompts(step, tenants.is_background, tenants.share)
        if len(step.planned) < len(self._running) or tenants.num_waiting:
            self._plan_more(step)
        return list(step.planned.values())

    def _plan_more(self, step: _Step) -> None:
        """What the step has room for beside the rows of those within their share."""
        own = [one.num_tokens for one in step.planned.values() if not self._tenants.of(one.sequence).is_over]
        self._room.open(own.count(1), sum(own) - own.count(1))

        def rows(sequence: Sequence, wanted: int) -> int:
            return self._room.rows(wanted, step.num_decode_rows, step.num_prompt_rows)

        for is_background in (False, True):
            self._plan_decodes(step, is_background, rows)
            self._plan_prompts(step, is_background, rows)
        self._room.close(step.num_decode_rows, step.num_prompt_rows)

    def _plan_decodes(self, step: _Step, is_background: bool, rows: Rows) -> None:
        for sequence in step.decodes:
            is_here = sequence.state.request.is_background == is_background and step.can_take(sequence)
            if is_here and rows(sequence, 1):
                self._schedule(step, sequence, 1)

    def _plan_prompts(self, step: _Step, is_background: bool, rows: Rows) -> None:
        """Of the tenant that had the least first, and of its sequences the first."""
        refused: set[Tenant] = set()
        while step.budget > 0 and (sequence := self._next_prompt(step, is_background, refused)) is not None:
            if not rows(sequence, sequence.num_tokens - sequence.num_computed_tokens):
                refused.add(self._tenants.of(sequence))
            elif sequence.slot < 0 and not self._admit(step, sequence):
                step.is_full = True
            else:
                wanted = min(step.budget, sequence.num_tokens - sequence.num_computed_tokens)
                self._schedule(step, sequence, max(1, rows(sequence, wanted)))

    def _next_prompt(self, step: _Step, is_background: bool, refused: set[Tenant]) -> Sequence | None:
        of = self._tenants.of
        found = [s for s in step.prompts if step.can_take(s) and of(s).is_background == is_background]
        if not step.is_full:
            tenants = (tenant for tenant in self._tenants if tenant.is_background == is_background)
            found += [tenant.waiting[0][1] for tenant in tenants if tenant.waiting]
        found = [sequence for sequence in found if of(sequence) not in refused]
        return min(found, key=lambda s: (s.order[0], of(s).virtual_time, s.order), default=None)

    def _schedule(self, step: _Step, sequence: Sequence, num_tokens: int) -> None:
        if not self._grow(step, sequence, sequence.num_computed_tokens + num_tokens):
            step.is_full = True
            return
        step.add(Scheduled(sequence, num_tokens))
        tenant = self._tenants.of(sequence)
        tenant.charge(sequence, num_tokens)
        tenant.num_planned += 1

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

    def _grow(self, step: _Step, sequence: Sequence, num_tokens: int) -> bool:
        """Blocks for num_tokens tokens, at the price of those that come later; False when it had to leave itself."""
        missing = self._kv_cache.blocks_for(num_tokens) - len(sequence.block_ids)
        while True:
            blocks = self._kv_cache.allocate(missing) if missing > 0 else []
            if blocks is not None:
                sequence.block_ids += blocks
                return True
            victim = max(self._running, key=self._dispensability)
            self._preempt(step, victim)
            if victim is sequence:
                return False

    def _dispensability(self, sequence: Sequence) -> tuple[bool, bool, tuple[int, int, int]]:
        tenant = self._tenants.of(sequence)
        return tenant.is_background, tenant.is_over, sequence.order

    def _preempt(self, step: _Step, sequence: Sequence) -> None:
        """Back to the queue with all its known tokens, to be computed again."""
        num_planned = step.drop(sequence)
        if num_planned:
            tenant = self._tenants.of(sequence)
            tenant.charge(sequence, -num_planned)
            tenant.num_planned -= 1
        self._leave(sequence)
        sequence.num_preemptions += 1
        self.totals.num_preemptions += 1
        self.add(sequence)

    def _leave(self, sequence: Sequence) -> None:
        if sequence.slot >= 0:
            self._running.remove(sequence)
            self._tenants.of(sequence).num_running -= 1
            self._free_slots.append(sequence.slot)
            sequence.slot = -1
        self._kv_cache.free(sequence.block_ids)
        sequence.block_ids = []
        sequence.num_published = sequence.num_computed_tokens = 0

    def _admit(self, step: _Step, sequence: Sequence) -> bool:
        """Lets a waiting sequence run, at the price of those that must make room for it."""
        while (cached := self._find_room(sequence)) is None:
            victims = [s for s in self._running if self._gives_way(s, sequence)]
            if not victims:
                return False
            self._preempt(step, max(victims, key=self._dispensability))
        self._tenants.discard(sequence)
        self._enter(sequence, cached)
        return True

    def _find_room(self, sequence: Sequence) -> list[int] | None:
        """The cached blocks it begins with, when a place for all it asks and blocks for all it knows are free."""
        if 1 + sequence.pending_forks + self._num_places() > self._max_num_seqs:
            return None
        cached = self._find_cached(sequence)
        needed = self._kv_cache.blocks_for(sequence.num_tokens + 1) - len(cached)
        taken_from_free = sum(1 for block in cached if self._kv_cache.is_free(block))
        available = self._kv_cache.num_free_blocks - taken_from_free - self._num_promised()
        return None if needed + (_WATERMARK_BLOCKS if self._running else 0) > available else cached

    def _gives_way(self, running: Sequence, newcomer: Sequence) -> bool:
        """Background to foreground; and to a tenant with fewer sequences, one that then still has as many."""
        one, other = self._tenants.of(running), self._tenants.of(newcomer)
        if one.is_background != other.is_background or other.is_background != self._tenants.is_background:
            return one.is_background and not other.is_background
        is_richer = (one.num_running - 1) / one.weight >= (other.num_running + 1) / other.weight
        return is_richer and running.order[0] >= newcomer.order[0]

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
        self._run(sequence)
        self.totals.num_prefix_queried_tokens += sequence.num_tokens
        self.totals.num_prefix_hit_tokens += sequence.num_computed_tokens
        if sequence.num_preemptions == 0 and sequence.num_output_tokens == 0:
            sequence.state.num_cached_tokens = sequence.num_computed_tokens
            self.totals.num_prompt_tokens += sequence.num_prompt_tokens

    def _run(self, sequence: Sequence) -> None:
        sequence.slot = self._free_slots.pop()
        self._running.append(sequence)
        self._tenants.of(sequence).num_running += 1

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
        if sequence.matcher is not None:
            sequence.matcher.advance(token_id)

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
            matcher=parent.matcher.copy() if parent.matcher is not None else None,
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
        self._copies += zip(partial, own, strict=True)
        self._run(child)
        return child

    def check(self) -> None:
        """Raises AssertionError when an invariant is broken."""
        waiting = [sequence for tenant in self._tenants for _, sequence in tenant.waiting]
        self._tenants.check(self._running)
        self._kv_cache.check([s.block_ids for s in self._running])
        assert not any(s.block_ids or s.slot >= 0 or s.is_finished for s in waiting), "a waiting sequence holds blocks"
        slots = [s.slot for s in self._running]
        assert sorted(slots + self._free_slots) == list(range(self._max_num_seqs)), "slots are lost or doubled"
        for s in self._running:
            assert not s.is_finished, "a finished sequence runs"
            assert 0 <= s.num_computed_tokens <= s.num_tokens, "a sequence is ahead of itself"
            num_needed = self._kv_cache.blocks_for(s.num_computed_tokens)
            assert len(s.block_ids) >= num_needed, "computed tokens without a block"
