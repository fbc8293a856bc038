"""Figures: under both prefixes, right in number, and kept over a restart of the worker."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from inferd.metrics.cost import HostPrice
from inferd.metrics.histogram import Histogram, Latency
from inferd.metrics.model import ModelMetrics
from inferd.metrics.recorder import Recorder
from inferd.metrics.requests import RequestInfo
from inferd.types import BucketCounts, EngineStats, SamplingParams
from support.server import running

BOARD = Path(__file__).parents[2] / "docs" / "grafana" / "inferd.json"


def samples(text):
    return {(s.name, s.labels.get("le") or s.labels.get("finished_reason")): s.value
            for family in text_string_to_metric_families(text) for s in family.samples}  # fmt: skip


def stats(generated, **more):
    return EngineStats(
        num_running=1, num_waiting=2, num_blocks=10, num_used_blocks=5, num_steps=7, num_prompt_tokens=3,
        num_generated_tokens=generated, num_prefix_queried_tokens=8, num_prefix_hit_tokens=4, num_preemptions=0, **more,
    )  # fmt: skip


def test_histogram():
    histogram = Histogram((1, 2.5))
    for value in (0.5, 1, 2, 100):
        histogram.observe(value)
    histogram.observe(2, 3)
    assert histogram.cumulative() == [("1.0", 2), ("2.5", 6), ("+Inf", 7)]
    assert (histogram.sum, histogram.count) == (109.5, 7)
    other = Histogram((1, 2.5))
    other.advance(BucketCounts(), BucketCounts((1, 1, 0), 2.5))
    other.advance(BucketCounts((1, 1, 0), 2.5), histogram.snapshot())
    assert (other.cumulative(), other.sum) == (histogram.cumulative(), histogram.sum)


def test_percentiles_are_nearest_ranks():
    latency = Latency((1,))
    assert latency.percentiles(50) == [None]
    latency.observe(7)
    assert latency.percentiles(1, 50, 99) == [7, 7, 7]
    for value in range(1, 101):
        latency.observe(value)
    latency.observe(3, 2000)  # more than the window holds
    assert latency.percentiles(50, 99) == [3, 3]
    for value in range(1, 101):
        latency.observe(1000 + value)
    assert latency.percentiles(99) == [1090]  # rank 1014 of 1024 values, the latest 100 of them large


def test_counters_go_on_when_a_worker_starts_again():
    metrics = ModelMetrics("m")
    for num_restarts, values in enumerate([(5, 9), (2, 20)]):
        metrics.on_ready(10, 16, num_restarts)
        for generated in values:
            counts = BucketCounts((generated,) + (0,) * 15, generated * 0.001)
            metrics.on_stats(stats(generated, step_seconds=counts, accepted_by_position=(generated, 1)))
    assert metrics.totals["generation_tokens"] == 29
    assert metrics.step_histograms["step_seconds"].count == 29
    assert metrics.accepted_by_position == [29, 2]


def test_pace_and_periods():
    now, periods = [100.0], []
    metrics = ModelMetrics("m", on_period=periods.append, clock=lambda: now[0])
    figures = {"busy_seconds": 0.0, "cpu_seconds": 5.0, "num_threads": 2}
    now[0] += 1
    metrics.on_stats(stats(0, **figures))
    now[0] += 2
    metrics.on_stats(stats(
        0, busy_seconds=1.5, cpu_seconds=7.0, num_threads=2, step_seconds=BucketCounts((0,) * 16, 0.7),
        batch_size=BucketCounts((0,) * 11, 14.0),
    ))  # fmt: skip
    assert metrics.pace.utilisation == 0.5
    assert metrics.pace.batch_size == 0  # the number of steps did not change
    assert periods == []
    now[0] += 60
    metrics.on_stats(stats(0, busy_seconds=21.5, cpu_seconds=7.0, num_threads=2))
    now[0] += 7
    metrics.end_period()
    assert [(p.seconds, p.busy) for p in periods] == [(63.0, 21.5), (7.0, 0.0)]
    assert (metrics.seconds, metrics.idle_seconds) == (70.0, 48.5)


def test_gauges_under_both_prefixes():
    recorder = Recorder()
    recorder.of("m").on_ready(10, 16, 2)
    recorder.of("m").on_stats(stats(1))
    found = samples(recorder.render().decode())
    for prefix in ("vllm", "inferd"):
        assert found[f"{prefix}:num_requests_waiting", None] == 2
        assert found[f"{prefix}:kv_cache_usage_perc", None] == 0.5
        assert found[f"{prefix}:cache_config_info", None] == 1
        assert found[f"{prefix}:prefix_cache_hits_total", None] == 4
        assert found[f"{prefix}:worker_restarts_total", None] == 2


def names_of(text):
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


def full_recorder():
    """One of everything."""
    recorder = Recorder(price=HostPrice(1.0))
    metrics = recorder.of("m")
    metrics.on_ready(10, 16, 0)
    metrics.on_stats(stats(1, accepted_by_position=(1,)))
    timer = metrics.timer(RequestInfo(id="r", tenant="t", sampling=SamplingParams()), 0.0)
    timer.on_tokens(0, 1)
    timer.on_end("stop", 1)
    return recorder


def test_a_listener_that_fails_harms_nobody():
    heard = []

    def fail(record):
        raise RuntimeError("told to")

    recorder = Recorder()
    recorder.request_listeners[:] = [fail, heard.append]
    metrics = recorder.of("m")
    metrics.timer(RequestInfo(id="r", tenant="", sampling=SamplingParams()), 0.0).on_end("stop", 1)
    assert [record.info.id for record in heard] == ["r"]
    assert metrics.finished["stop"] == 1


def test_names_that_dashboards_and_autoscalers_read():
    names = names_of(full_recorder().render().decode())
    served = """num_requests_running num_requests_waiting kv_cache_usage_perc num_preemptions_total cache_config_info
        prefix_cache_queries_total prefix_cache_hits_total prompt_tokens_total generation_tokens_total
        request_success_total request_prompt_tokens_bucket request_generation_tokens_bucket request_params_n_bucket
        request_params_max_tokens_bucket iteration_tokens_total_bucket time_to_first_token_seconds_bucket
        inter_token_latency_seconds_bucket request_time_per_output_token_seconds_bucket
        e2e_request_latency_seconds_bucket request_queue_time_seconds_bucket request_prefill_time_seconds_bucket
        request_decode_time_seconds_bucket request_inference_time_seconds_bucket spec_decode_num_drafts_total
        spec_decode_num_draft_tokens_total spec_decode_num_accepted_tokens_total
        spec_decode_num_accepted_tokens_per_pos_total""".split()
    for prefix in ("vllm", "inferd"):
        assert {f"{prefix}:{name}" for name in served} <= names


def test_the_dashboard_for_grafana_asks_for_what_is_served():
    board = json.loads(BOARD.read_text("utf-8"))
    names = names_of(full_recorder().render().decode())
    expressions = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    asked = {name for expression in expressions for name in re.findall(r"\b(?:inferd|vllm):\w+", expression)}
    assert len(asked) >= 30
    assert asked <= names
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert {variable["name"] for variable in board["templating"]["list"]} == {"datasource", "model"}


def test_the_documentation_names_every_metric():
    text = (BOARD.parents[1] / "metrics.md").read_text("utf-8")
    plain = {re.sub("_(bucket|sum|count|total)$", "", name.partition(":")[2])
             for name in names_of(full_recorder().render().decode())}  # fmt: skip
    assert [name for name in sorted(plain) if name not in text] == []


def test_figures_of_requests():
    with running() as (url, _):
        httpx.post(url + "/v1/completions", json={"prompt": "abc", "max_tokens": 6, "n": 2})
        httpx.post(url + "/v1/completions", json={"prompt": "abc", "max_tokens": 6, "stop": "b", "stream": True})
        assert httpx.post(url + "/v1/completions", json={"prompt": "abc", "max_tokens": 9999}).status_code == 400
        before = httpx.get(url + "/metrics").text
        httpx.get(url + "/" + "x" * 1000)
        after = httpx.get(url + "/metrics").text
    found = samples(after)
    assert found["vllm:request_success_total", "length"] == 1
    assert found["vllm:request_success_total", "stop"] == 1
    assert found["vllm:request_success_total", "error"] == 0
    assert found["vllm:e2e_request_latency_seconds_count", None] == 2
    assert found["vllm:time_to_first_token_seconds_count", None] == 2
    assert found["vllm:request_prompt_tokens_sum", None] == 6
    assert found["vllm:request_generation_tokens_sum", None] == 12 + 2
    assert found["vllm:inter_token_latency_seconds_count", None] <= 10 + 1  # those that come with the first have none
    assert found["vllm:request_params_n_sum", None] == 3
    assert found["vllm:request_params_max_tokens_sum", None] == 12
    assert found["vllm:generation_tokens_total", None] >= 12
    assert len(after.splitlines()) == len(before.splitlines())


def test_every_prompt_of_a_call_is_a_request():
    with running() as (url, _):
        answer = httpx.post(url + "/v1/completions", json={"prompt": ["ab", "cde", "f"], "max_tokens": 2})
        assert answer.status_code == 200
        found = samples(httpx.get(url + "/metrics").text)
    assert found["vllm:request_success_total", "length"] == 3
    assert found["vllm:request_prompt_tokens_sum", None] == 6


def test_the_targets_of_a_request_decide():
    with running(sla_ttft=0.001, sla_itl=60) as (url, _):
        for targets in ({}, {"ttft_target": 60}, {"ttft_target": 60, "itl_target": 0.001}):
            body = {"prompt": "<pace>", "max_tokens": 5, **targets}  # 5 ms a step: neither 1 ms can be kept
            assert httpx.post(url + "/v1/completions", json=body).status_code == 200
        state = httpx.get(url + "/inferd/state").json()["models"][0]["goodput"]
    assert state == {"num_requests": 3, "num_good": 1, "ttft_target": 0.001, "itl_target": 60}
