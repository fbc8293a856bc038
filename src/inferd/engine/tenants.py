"""Tenants: who has had how much of the engine, and so who may have more of it now. They share it by weight.

A tenant's virtual time is the service it got, in prompt tokens divided by its weight. What is compared with it is the
reference: the virtual time of the typical tenant (the lower median of those at work), so that one tenant that floods
does not move it. Who is a window ahead is over its share.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from inferd.engine.sequence import Sequence
from inferd.types import GenerateRequest

OUTPUT_COST = 2  # of a token that is drawn: a row of SmolLM2's decode takes 0.5 ms among 8, one of a prompt 0.25 ms
WINDOW = 512  # virtual time that tenants may be apart before it counts: about the cost of one short request


@dataclass(slots=True, eq=False)
class Tenant:
    """The requests of one tenant, foreground and background apart."""

    is_background: bool
    weight: float
    virtual_time: float
    num_running: int = 0
    is_over: bool = False  # more than its share, as of the last settling
    num_planned: int = 0  # sequences in the step that is being planned
    waiting: list[tuple[tuple[int, int, int], Sequence]] = field(default_factory=list)  # a heap

    @property
    def num_unfinished(self) -> int:
        return self.num_running + len(self.waiting)

    def charge(self, sequence: Sequence, num_tokens: int) -> None:
        """For tokens of one of its sequences that a step computes; below 0: they are not computed after all."""
        is_output = sequence.num_computed_tokens >= sequence.num_prompt_tokens
        cost = OUTPUT_COST if is_output else 1
        self.virtual_time += num_tokens * cost / self.weight


class Tenants:
    """Those with something to do, and those that left so shortly before that it counts what they had."""

    def __init__(self) -> None:
        self._tenants: dict[tuple[bool, str], Tenant] = {}
        self._reference = {False: 0.0, True: 0.0}  # by is_background
        self.is_background = False  # the class that comes first now: background where there is nothing else

    def __iter__(self) -> Iterator[Tenant]:
        return iter(self._tenants.values())

    @property
    def num_waiting(self) -> int:
        return sum(len(tenant.waiting) for tenant in self)

    def of(self, sequence: Sequence) -> Tenant:
        return self._tenants[_key(sequence.state.request)]

    def push(self, sequence: Sequence) -> None:
        """A sequence waits; its tenant is there from now on, at most one window behind the others."""
        request = sequence.state.request
        tenant = self._tenants.get(_key(request))
        if tenant is None:
            start = self._reference[request.is_background] - WINDOW
            tenant = self._tenants[_key(request)] = Tenant(request.is_background, request.weight, start)
        tenant.weight = request.weight
        heapq.heappush(tenant.waiting, (sequence.order, sequence))

    def discard(self, sequence: Sequence) -> None:
        """A sequence waits no more."""
        tenant = self.of(sequence)
        if tenant.waiting[0][1] is sequence:
            heapq.heappop(tenant.waiting)
            return
        tenant.waiting = [entry for entry in tenant.waiting if entry[1] is not sequence]
        heapq.heapify(tenant.waiting)

    def settle(self, running: Iterable[Sequence]) -> None:
        """Before each step. running: in their order."""
        self.is_background = not any(tenant.num_unfinished for tenant in self if not tenant.is_background)
        best = self._best_priorities(running)
        for is_background in (False, True):
            peers = {tenant: at for tenant, at in best.items() if tenant.is_background == is_background}
            if peers:
                top = min(peers.values())  # a tenant that waits for its turn by priority holds nobody back
                times = sorted(tenant.virtual_time for tenant, at in peers.items() if at == top)
                self._reference[is_background] = times[(len(times) - 1) // 2]
        for key, tenant in list(self._tenants.items()):
            self._keep_near(tenant)
            if not tenant.num_unfinished and tenant.virtual_time <= self._reference[tenant.is_background] - WINDOW:
                del self._tenants[key]  # it would come back as it is

    def share(self, sequence: Sequence, num_tokens: int) -> int:
        """How many of so many tokens its tenant's share covers in this step.

        A tenant with one sequence is never held back, and one of each tenant's sequences moves in every step.
        """
        tenant = self.of(sequence)
        if tenant.num_unfinished == 1:
            return num_tokens
        left = (self._reference[tenant.is_background] + WINDOW - tenant.virtual_time) * tenant.weight
        return min(num_tokens, max(int(left), 0 if tenant.num_planned else 1))

    def _best_priorities(self, running: Iterable[Sequence]) -> dict[Tenant, int]:
        """Of each tenant's unfinished sequences."""
        best = {tenant: tenant.waiting[0][0][0] for tenant in self if tenant.waiting}
        for sequence in running:
            tenant, priority = self.of(sequence), sequence.order[0]
            best[tenant] = min(priority, best.get(tenant, priority))
        return best

    def _keep_near(self, tenant: Tenant) -> None:
        """Who asked for little has no claim to much at once, and a debt is paid within two windows."""
        reference = self._reference[tenant.is_background]
        tenant.virtual_time = min(max(tenant.virtual_time, reference - WINDOW), reference + 2 * WINDOW)
        tenant.is_over = tenant.num_unfinished > 1 and tenant.virtual_time >= reference + WINDOW
        tenant.num_planned = 0

    def check(self, running: Iterable[Sequence]) -> None:
        """Raises AssertionError when the books do not balance."""
        counts = dict.fromkeys(self, 0)
        for sequence in running:
            counts[self.of(sequence)] += 1
        for tenant, count in counts.items():
            assert tenant.num_running == count, "a tenant's running sequences are not those that run"
            assert not tenant.waiting or tenant.waiting[0] == min(tenant.waiting), "another sequence waits first"
            assert all(self.of(sequence) is tenant for _, sequence in tenant.waiting), "a sequence waits elsewhere"


def _key(request: GenerateRequest) -> tuple[bool, str]:
    return request.is_background, request.tenant
