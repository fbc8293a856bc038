"""The engine's own figures: every second of its work belongs to one request, and times are those of the steps."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from inferd.engine.engine import Engine
from inferd.engine.kv_cache import KVCache, Published
from inferd.engine.kv_map import NUM_CELLS, KVMap
from inferd.metrics.steps import RequestMeter, StepRecorder
from inferd.types import BucketCounts, EngineStats, RequestTimings
from support.sleepy_engine import STEP_SECONDS, Sleeper
from support.tiny_engine import engine_on, request


def run(engine: Engine) -> dict[str, RequestTimings]:
    found = {}
    while engine.has_work:
        for event in engine.step():
            assert (event.timings is not None) <= (event.finish_reason is not None)
            if event.timings is not None:
                assert event.request_id not in found
                found[event.request_id] = event.timings
    return found


def test_a_step_is_shared_by_tokens() -> None:
    recorder = StepRecorder(num_threads=2)
    a, b = RequestMeter(arrived_at=10.0), RequestMeter(arrived_at=10.5)
    recorder.wake(10.0)
    recorder.record([(a, 3, False), (b, 1, True)], begin=11.0, end=12.0)  # charged from 10: 2 s over 4 tokens
    recorder.record([(a, 1, True)], begin=12.25, end=12.5)
    recorder.wake(20.0)
    recorder.record([(b, 2, True)], begin=20.0, end=20.5)
    assert (a.busy, b.busy) == (1.5 + 0.5, 0.5 + 0.5)
    figures = recorder.figures()
    assert (figures["busy_seconds"], figures["num_steps"], figures["num_threads"]) == (3.0, 3, 2)
    assert figures["step_seconds"].sum == 1.75
    assert (figures["batch_size"].sum, sum(figures["batch_size"].counts)) == (4, 3)
    assert figures["step_tokens"].sum == 7
    first = a.timings(num_prompt_tokens=4, num_cached_tokens=0, now=99.0)
    assert (first.queue, first.prefill, first.decode) == (1.0, 1.5, 0.0)
    second = b.timings(num_prompt_tokens=1, num_cached_tokens=0, now=99.0)
    assert (second.queue, second.prefill, second.decode) == (0.5, 1.0, 8.5)


def test_what_was_aborted_has_waited_until_then() -> None:
    queued, prefilling = RequestMeter(5.0), RequestMeter(5.0)
    recorder = StepRecorder(num_threads=1)
    recorder.wake(5.0)
    recorder.record([(prefilling, 8, False)], begin=6.0, end=7.0)
    waited = queued.timings(8, 0, now=9.0)
    assert (waited.queue, waited.prefill, waited.decode, waited.busy) == (4.0, 0.0, 0.0, 0.0)
    begun = prefilling.timings(8, 0, now=9.0)
    assert (begun.queue, begun.prefill, begun.decode, begun.busy) == (1.0, 3.0, 0.0, 2.0)


def test_guesses_are_counted_by_position() -> None:
    recorder = StepRecorder(num_threads=1)
    for num_drafts, num_accepted in ((4, 2), (8, 0), (2, 2), (4, 3)):
        recorder.record_drafts(num_drafts, num_accepted)
    figures = recorder.figures()
    assert figures["num_drafts"] == 4
    assert (figures["num_drafted_tokens"], figures["num_accepted_tokens"]) == (18, 7)
    assert figures["accepted_by_position"] == (3, 3, 1)


def test_the_shares_of_all_requests_are_the_busy_time() -> None:
    engine = engine_on(Sleeper(), 256, max_num_seqs=8, speculative="ngram")
    begin = time.perf_counter()
    for i in range(12):
        engine.add(request(str(i), range(20 + 7 * i), n=1 + i % 3, max_tokens=10 + i, ignore_eos=True))
    early = [event.timings for _ in range(9) for event in engine.step() if event.timings is not None]
    aborted = [timings for i in (11, 0) if (timings := engine.abort(str(i))) is not None]
    assert aborted
    assert engine.abort("11") is None
    found = run(engine)
    elapsed = time.perf_counter() - begin
    total = sum(timings.busy for timings in (*found.values(), *aborted, *early))
    busy = engine.stats().busy_seconds
    assert total == pytest.approx(busy, rel=1e-9)
    assert 0.99 * elapsed < busy <= elapsed  # it had work all the time: what is left is the end of the last step
    for i, timings in found.items():
        assert timings.num_output_tokens == (1 + int(i) % 3) * (10 + int(i))
        assert timings.num_prompt_tokens == 20 + 7 * int(i)
        assert timings.prefill >= STEP_SECONDS
        assert timings.queue + timings.prefill + timings.decode <= elapsed


def test_idle_time_is_nobodys() -> None:
    engine = engine_on(Sleeper(), 128)
    for name in "ab":
        engine.add(request(name, range(16), max_tokens=5, ignore_eos=True))
        found = run(engine)
        time.sleep(0.1)
        assert found[name].busy < 0.08
    assert engine.stats().busy_seconds < 0.16


def test_preemptions_of_a_request_are_counted() -> None:
    engine = engine_on(Sleeper(num_blocks=8), 96, max_num_seqs=4)
    for i in range(4):
        engine.add(request(str(i), range(i, 30 + i), max_tokens=40, ignore_eos=True))
    found = run(engine)
    stats = engine.stats()
    assert stats.num_preemptions > 0
    assert sum(timings.num_preemptions for timings in found.values()) == stats.num_preemptions


def test_waiting_counts_as_queue_time() -> None:
    engine = engine_on(Sleeper(), 128, max_num_seqs=1, speculative="off")
    for name in "ab":
        engine.add(request(name, range(16), max_tokens=20, ignore_eos=True))
    found = run(engine)
    assert found["a"].queue < STEP_SECONDS
    assert found["b"].queue >= 20 * STEP_SECONDS  # the 20 steps of the first
    assert found["b"].decode >= 19 * STEP_SECONDS


def test_totals_of_an_engine_only_grow() -> None:
    engine = engine_on(Sleeper(), 128)
    engine.add(request("a", range(40), max_tokens=12, ignore_eos=True))
    seen: list[EngineStats] = []
    while engine.has_work:
        engine.step()
        seen.append(engine.stats())
    for old, new in pairwise(seen):
        assert new.num_steps == old.num_steps + 1
        assert new.busy_seconds > old.busy_seconds
        assert new.cpu_seconds >= old.cpu_seconds
        for counts in ("step_seconds", "batch_size", "step_tokens"):
            before, after = getattr(old, counts), getattr(new, counts)
            assert isinstance(after, BucketCounts)
            assert sum(after.counts) == sum(before.counts) + 1


@pytest.mark.parametrize("num_blocks", [5, 256, 1000])
def test_the_map_shows_every_block_once(num_blocks: int) -> None:
    cache = KVCache(num_blocks, 16, enable_prefix_caching=True)
    kv_map = KVMap(cache)
    blocks = cache.allocate(num_blocks // 2)
    assert blocks is not None
    for block in blocks[:3]:
        cache.publish(block, Published(key=bytes([block]), parent=b"", tokens=tuple(range(16))))
    cache.free(blocks[:1])
    used, cached = cache.block_states()
    assert (sum(used), sum(cached)) == (len(blocks) - 1, len(blocks[:3]))
    figures = kv_map.figures(is_idle=False)
    assert figures["num_cached_blocks"] == len(blocks[:3])
    cells = min(NUM_CELLS, num_blocks)
    for states, drawn in ((used, figures["kv_used_map"]), (cached, figures["kv_cached_map"])):
        assert len(drawn) == cells
        for cell, share in enumerate(drawn):
            own = states[cell * num_blocks // cells : (cell + 1) * num_blocks // cells]
            assert share / 255 == pytest.approx(sum(own) / len(own), abs=1 / 255)
            assert (share > 0) == any(own)
    assert kv_map.figures(is_idle=True)["kv_used_map"] == bytes(cells)
