"""Figures: under both prefixes, right in number, and kept over a restart of the worker."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

from inferd.metrics.histogram import Histogram
from inferd.metrics.recorder import ModelMetrics, Recorder
from inferd.types import EngineStats
from support.server import running


def samples(text):
    return {(s.name, s.labels.get("le") or s.labels.get("finished_reason")): s.value
            for family in text_string_to_metric_families(text) for s in family.samples}  # fmt: skip


def stats(generated):
    return EngineStats(
        num_running=1, num_waiting=2, num_blocks=10, num_used_blocks=5, num_steps=7, num_prompt_tokens=3,
        num_generated_tokens=generated, num_prefix_queried_tokens=8, num_prefix_hit_tokens=4, num_preemptions=0,
    )  # fmt: skip


def test_histogram():
    histogram = Histogram((1, 2.5))
    for value in (0.5, 1, 2, 100):
        histogram.observe(value)
    histogram.observe(2, 3)
    assert histogram.cumulative() == [("1.0", 2), ("2.5", 6), ("+Inf", 7)]
    assert histogram.sum == 109.5


def test_counters_go_on_when_a_worker_starts_again():
    metrics = ModelMetrics("m")
    for generated in (5, 9, 2, 4):
        metrics.on_stats(stats(generated))
    assert metrics.totals["generation_tokens"] == 13


def test_gauges_under_both_prefixes():
    recorder = Recorder()
    recorder.of("m").on_stats(stats(1))
    recorder.of("m").on_ready(10, 16, 2)
    found = samples(recorder.render().decode())
    for prefix in ("vllm", "inferd"):
        assert found[f"{prefix}:num_requests_waiting", None] == 2
        assert found[f"{prefix}:kv_cache_usage_perc", None] == 0.5
        assert found[f"{prefix}:cache_config_info", None] == 1
        assert found[f"{prefix}:prefix_cache_hits_total", None] == 4
        assert found[f"{prefix}:worker_restarts_total", None] == 2


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
