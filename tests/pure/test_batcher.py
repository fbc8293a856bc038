"""Batches out of a queue: sizes, groups, priorities, delays, deadlines, bounds, and many threads that take."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.errors import OverloadedError
from inferd.worker.batcher import Batcher, BatchPolicy, Pending
from inferd.worker.protocol import Detokenize


def call(name: str, **fields: Any) -> Pending:
    return Pending(call=Detokenize(call_id=name, token_ids=()), **fields)


def names(batch: list[Pending]) -> str:
    return "".join(pending.call.call_id for pending in batch)


def filled(policy: BatchPolicy, *calls: Pending) -> Batcher:
    batcher = Batcher(policy)
    for pending in calls:
        batcher.put(pending)
    return batcher


def test_a_batch_is_as_large_as_the_policy_says() -> None:
    batcher = filled(BatchPolicy(max_batch=4), call("a"), call("b", cost=2), call("c", cost=2), call("d", cost=9))
    assert [names(batcher.take()[0]) for _ in range(3)] == ["ab", "c", "d"]


def test_only_one_group_runs_together() -> None:
    batcher = filled(BatchPolicy(), call("a", group=1), call("b", group=2), call("c", group=1))
    assert [names(batcher.take()[0]) for _ in range(2)] == ["ac", "b"]


def test_priority_goes_first_and_equals_by_arrival() -> None:
    calls = [call("a", priority=5), call("b", priority=1), call("c", priority=5), call("d", priority=1)]
    batcher = filled(BatchPolicy(max_batch=1), *calls)
    assert "".join(names(batcher.take()[0]) for _ in range(4)) == "bdac"


def test_the_queue_is_bounded() -> None:
    batcher = filled(BatchPolicy(max_queue=2), call("a"), call("b"))
    with pytest.raises(OverloadedError):
        batcher.put(call("c"))
    batcher.cancel("a")
    batcher.put(call("c"))
    assert names(batcher.take()[0]) == "bc"


def test_a_call_waits_for_others_until_the_batch_is_full() -> None:
    batcher = filled(BatchPolicy(max_batch=2, max_delay=30), call("a"))
    threading.Timer(0.05, batcher.put, [call("b")]).start()
    begin = time.monotonic()
    assert names(batcher.take()[0]) == "ab"
    assert 0.03 < time.monotonic() - begin < 5


def test_a_call_waits_no_longer_than_the_delay() -> None:
    batcher = filled(BatchPolicy(max_batch=2, max_delay=0.05), call("a"))
    begin = time.monotonic()
    assert names(batcher.take()[0]) == "a"
    assert 0.03 < time.monotonic() - begin < 5


def test_a_call_past_its_deadline_is_not_computed() -> None:
    batcher = filled(BatchPolicy(), call("a", deadline=time.monotonic() - 1), call("b"))
    batch, expired = batcher.take()
    assert (names(batch), names(expired)) == ("b", "a")


def test_patience_ends_before_the_deadline() -> None:
    """A call whose time is shorter than the delay is computed, not lost."""
    batcher = filled(BatchPolicy(max_delay=30), call("a", deadline=time.monotonic() + 0.2))
    batch, expired = batcher.take()
    assert (names(batch), expired) == ("a", [])


def test_a_call_that_is_all_expired_wakes_the_taker() -> None:
    batcher = filled(BatchPolicy(max_delay=30), call("a", deadline=time.monotonic() - 1))
    assert [names(part) for part in batcher.take()] == ["", "a"]


@settings(max_examples=25, deadline=None)
@given(
    num_threads=st.integers(1, 4),
    delay=st.sampled_from([0.0, 0.002]),
    costs=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40),
)
def test_many_threads_take_every_call_once(num_threads: int, delay: float, costs: list[tuple[int, int, int]]) -> None:
    batcher = Batcher(BatchPolicy(max_batch=8, max_delay=delay))
    taken: list[list[Pending]] = []
    done = threading.Event()

    def take() -> None:
        while True:
            batch, _ = batcher.take()
            taken.append(batch)
            if sum(map(len, taken)) == len(costs):
                done.set()

    for _ in range(num_threads):
        threading.Thread(target=take, daemon=True).start()
    for number, (cost, group, priority) in enumerate(costs):
        batcher.put(call(str(number), cost=cost, group=group, priority=priority))
    assert done.wait(10)
    ids = [pending.call.call_id for batch in taken for pending in batch]
    assert sorted(ids) == sorted(map(str, range(len(costs))))
    assert all(len({pending.group for pending in batch}) == 1 for batch in taken)
    assert all(len(batch) == 1 or sum(pending.cost for pending in batch) <= 8 for batch in taken)
