"""10,000 requests replayed through the recorder: its histograms and its goodput are what a plain recount gives."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import pytest
from prometheus_client.parser import text_string_to_metric_families

from inferd.metrics.cost import MAX_TENANTS, HostPrice
from inferd.metrics.histogram import E2E_BUCKETS, LENGTH_BUCKETS, TOKEN_BUCKETS
from inferd.metrics.recorder import NUM_LATEST, Recorder
from inferd.metrics.requests import RequestInfo, RequestTimer, Targets
from inferd.types import RequestTimings, SamplingParams

NUM_REQUESTS = 10_000
MODELS = {"a": Targets(), "b": Targets(0.5, 0.1)}
BOUNDS = {
    "time_to_first_token_seconds": TOKEN_BUCKETS,
    "inter_token_latency_seconds": TOKEN_BUCKETS,
    "request_time_per_output_token_seconds": TOKEN_BUCKETS,
    "e2e_request_latency_seconds": E2E_BUCKETS,
    "request_queue_time_seconds": E2E_BUCKETS,
    "request_prefill_time_seconds": E2E_BUCKETS,
    "request_decode_time_seconds": E2E_BUCKETS,
    "request_inference_time_seconds": E2E_BUCKETS,
    "request_busy_seconds": E2E_BUCKETS,
    "request_prompt_tokens": LENGTH_BUCKETS,
    "request_generation_tokens": LENGTH_BUCKETS,
}


@dataclass
class Request:
    """A script of one request: what happens, and when."""

    id: str
    model: str
    tenant: str
    arrival: float
    targets: Targets
    n: int
    num_prompt_tokens: int
    tokens: list[tuple[float, int, int]]  # (when, sequence, how many)
    end: float
    reason: str
    timings: RequestTimings | None
    timings_at: float  # after the end where the gateway ended it


@dataclass
class Recount:
    """What the plain recount says of one model."""

    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    reasons: Counter[str] = field(default_factory=Counter)
    num_judged: int = 0
    num_good: int = 0
    busy: dict[str, float] = field(default_factory=lambda: defaultdict(float))


def draw_request(rng: random.Random, number: int) -> Request:
    model = rng.choice("ab")
    arrival = rng.uniform(0, 600)
    n = rng.choice([1, 1, 1, 3])
    reason = rng.choices(["stop", "length", "abort", "error"], [60, 30, 7, 3])[0]
    tokens = []
    for sequence in range(n if reason in ("stop", "length") else rng.randint(0, n)):
        # some moments are equal to a bound of a bucket, and to a target: both belong to the bucket, and are good
        at = arrival + rng.choice([0.05, 0.2, 0.25, 0.5, rng.expovariate(5)])
        for _ in range(rng.randint(1, 12)):
            tokens.append((at, sequence, rng.choice([1, 1, 1, 4])))
            at += rng.choice([0.01, 0.025, rng.expovariate(40)])
    tokens.sort()
    end = (tokens[-1][0] if tokens else arrival) + rng.choice([0.0, rng.expovariate(10)])
    num_output = sum(count for _, _, count in tokens)
    timings = RequestTimings(
        queue=rng.expovariate(20), prefill=rng.expovariate(8), decode=rng.expovariate(1), busy=rng.expovariate(3),
        num_prompt_tokens=rng.randint(1, 3000), num_cached_tokens=0, num_output_tokens=num_output, num_preemptions=0,
    )  # fmt: skip
    is_late_word = reason in ("abort", "error")
    has_timings = not is_late_word or rng.random() < 0.9
    targets = Targets(rng.choice([0.2, 1.0]), rng.choice([0.03, 0.2])) if rng.random() < 0.1 else MODELS[model]
    return Request(
        id=str(number), model=model, tenant=f"key:{min(number, rng.randint(0, 90))}", arrival=arrival, targets=targets,
        n=n, num_prompt_tokens=rng.randint(1, 3000), tokens=tokens, end=end, reason=reason,
        timings=timings if has_timings else None, timings_at=end + 0.001 if is_late_word else end - 1e-9,
    )  # fmt: skip


def replay(requests: list[Request]) -> Recorder:
    """All of them through one recorder, in the order of time."""
    now = [0.0]
    recorder = Recorder(MODELS, HostPrice(3.6), len(MODELS), clock=lambda: now[0])
    timers: dict[str, RequestTimer] = {}
    moments = []
    for at, r in enumerate(requests):
        moments.append((r.arrival, 0, at, lambda r=r: timers.update({r.id: recorder.of(r.model).timer(
            RequestInfo(id=r.id, tenant=r.tenant, sampling=SamplingParams(n=r.n), targets=r.targets), r.arrival)})))
        for number, (when, sequence, count) in enumerate(r.tokens):
            moments.append((when, 1 + number, at, lambda r=r, s=sequence, c=count: timers[r.id].on_tokens(s, c)))
        moments.append((r.end, 10**6, at, lambda r=r: timers[r.id].on_end(r.reason, r.num_prompt_tokens)))
        moments.append((r.timings_at if r.timings_at > r.end else r.end,
                        10**6 + (1 if r.timings_at > r.end else -1), at,
                        lambda r=r: timers[r.id].on_timings(r.timings)))  # fmt: skip
    for when, _, _, act in sorted(moments, key=lambda moment: moment[:3]):
        now[0] = when
        act()
    return recorder


def recount(requests: list[Request]) -> dict[str, Recount]:
    """The same figures, request by request and without a clock."""
    found = {model: Recount() for model in MODELS}
    for r in requests:
        one = found[r.model]
        sequences: dict[int, list[tuple[float, int]]] = defaultdict(list)
        for when, sequence, count in r.tokens:
            sequences[sequence].append((when, count))
        num_tokens = sum(count for _, _, count in r.tokens)
        ttft = r.tokens[0][0] - r.arrival if r.tokens else None
        spans = sum(steps[-1][0] - steps[0][0] for steps in sequences.values())
        num_more = num_tokens - len(sequences)
        tpot = spans / num_more if num_more else None
        gaps = [gap for steps in sequences.values() for (before, _), (when, count) in pairwise(steps)
                for gap in [(when - before) / count] * count]  # fmt: skip
        add = lambda name, *values, one=one: one.values[name].extend(v for v in values if v is not None)  # noqa: E731
        add("time_to_first_token_seconds", ttft)
        add("inter_token_latency_seconds", *gaps)
        add("request_time_per_output_token_seconds", tpot)
        add("e2e_request_latency_seconds", r.end - r.arrival)
        add("request_prompt_tokens", r.num_prompt_tokens)
        add("request_generation_tokens", num_tokens)
        if r.timings is not None:
            add("request_queue_time_seconds", r.timings.queue)
            add("request_busy_seconds", r.timings.busy)
            if num_tokens:
                add("request_prefill_time_seconds", r.timings.prefill)
                add("request_decode_time_seconds", r.timings.decode)
                add("request_inference_time_seconds", r.timings.prefill + r.timings.decode)
            one.busy[r.tenant] += r.timings.busy
        one.reasons[r.reason] += 1
        waited = r.end - r.arrival if ttft is None else ttft
        late = waited > r.targets.ttft or (tpot is not None and tpot > r.targets.itl)
        one.num_judged += r.reason != "abort" or late
        one.num_good += r.reason in ("stop", "length") and not late
    return found


@lru_cache(maxsize=1)
def both() -> tuple[Recorder, dict[str, Recount]]:
    rng = random.Random(17)
    requests = [draw_request(rng, number) for number in range(NUM_REQUESTS)]
    return replay(requests), recount(requests)


@lru_cache(maxsize=1)
def rendered() -> dict[tuple[str, ...], float]:
    """(name, sorted label values) -> value, as Prometheus reads it."""
    text = both()[0].render().decode()
    return {
        (s.name, *(f"{key}={value}" for key, value in sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", BOUNDS)
def test_every_bucket_is_what_the_recount_says(model: str, name: str) -> None:
    values = both()[1][model].values[name]
    assert len(values) > 1000
    for prefix in ("vllm", "inferd"):
        for bound in BOUNDS[name]:
            expected = sum(value <= bound for value in values)
            assert rendered()[f"{prefix}:{name}_bucket", f"le={float(bound)}", f"model_name={model}"] == expected
        assert rendered()[f"{prefix}:{name}_count", f"model_name={model}"] == len(values)
        assert rendered()[f"{prefix}:{name}_sum", f"model_name={model}"] == pytest.approx(sum(values), rel=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_goodput_and_ends_are_what_the_recount_says(model: str) -> None:
    recorder, found = both()[0], both()[1][model]
    total = recorder.of(model).all_tenants
    assert (total.num_judged, total.num_good) == (found.num_judged, found.num_good)
    assert 0 < found.num_good < found.num_judged < sum(found.reasons.values())
    good = [v for key, v in rendered().items()
            if key[:2] == ("inferd:goodput_requests_total", f"model_name={model}")]  # fmt: skip
    assert sum(good) == found.num_good
    for reason, count in found.reasons.items():
        assert rendered()["vllm:request_success_total", f"finished_reason={reason}", f"model_name={model}"] == count


@pytest.mark.parametrize("model", MODELS)
def test_cost_by_tenant_is_what_the_recount_says_and_tenants_are_few(model: str) -> None:
    recorder, found = both()[0], both()[1][model]
    tenants = recorder.of(model).tenants.figures
    assert len(tenants) == MAX_TENANTS + 1 < len(found.busy)
    for tenant, figures in tenants.items():
        if tenant != "other":
            assert figures.busy_seconds == pytest.approx(found.busy[tenant], rel=1e-9)
            labels = ("currency=USD", f"model_name={model}", f"tenant={tenant}")
            cost = rendered()[("inferd:request_cost_total", *labels)]  # 3.6 an hour over two models: 0.0005 a second
            assert cost == pytest.approx(found.busy[tenant] * 0.0005, rel=1e-9)
    assert sum(f.busy_seconds for f in tenants.values()) == pytest.approx(sum(found.busy.values()), rel=1e-9)


def test_the_latest_requests_are_kept() -> None:
    latest = both()[0].latest
    assert len(latest) == NUM_LATEST
    assert {record.finish_reason for record in latest} >= {"stop", "length"}
    assert all((record.cost or 0) == pytest.approx(record.busy * 0.0005) for record in latest)
