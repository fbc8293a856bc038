"""plan() and compare(): whole reports, their labels, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from inferd.errors import ConfigError
from inferd.planner import Calibration, CostInputs, Report, Workload, compare, plan
from inferd.planner.calibrate import (
    Anchor,
    CalibratedTimer,
    PromptAnchor,
    calibration_from_json,
    line_through,
    nonnegative_fit,
)
from inferd.planner.figure import WEAKEST_FIRST, Figure, short, unknown, weakest
from inferd.planner.hardware import device_named
from inferd.planner.precision import precision_named
from inferd.planner.report import comparison
from inferd.planner.roofline import TERMS, Deployment, decode_terms, ridge_batch
from inferd.planner.shapes import preset

BUSY = Workload(prompt_tokens=1000, output_tokens=300, rate=20)


@pytest.fixture(scope="module")
def report() -> Report:
    return plan("llama-3-70b", "h200:8", precision="fp8", kv_precision="fp8", workload=BUSY)


def test_every_figure_has_a_label_and_a_unit(report: Report) -> None:
    entries = list(report.entries())
    assert len(entries) > 45
    assert len({entry.key for entry in entries}) == len(entries)
    assert {entry.figure.label for entry in entries} <= set(WEAKEST_FIRST)
    assert all(entry.figure.unit for entry in entries)


def test_bounds_hold_their_value_and_ttft_always_has_them(report: Report) -> None:
    for entry in report.entries():
        low, high = entry.figure.low, entry.figure.high
        if low is not None and high is not None and not entry.key.startswith("sensitivity."):
            assert low <= entry.figure.value <= high, entry.key
    for key in ("idle_ttft", "ttft_p50", "ttft_p99"):
        assert report[key].low is not None
        assert report[key].high is not None


def test_parts_add_up(report: Report) -> None:
    lines = [entry.figure.value for entry in report.entries() if entry.key.startswith("cost.")]
    assert report["total_usd"].value == pytest.approx(sum(lines))
    pool = report["allowed"].value - report["weights"].value - report["activation"].value - report["non_torch"].value
    assert report["pool"].value == pytest.approx(pool)
    spent = 1000 * report["usd_input"].value + 300 * report["usd_output"].value
    assert spent == pytest.approx(300 * report["usd_all_on_output"].value)
    assert report["node_rate"].value == pytest.approx(report["goodput"].value * 300)
    assert report["ttft_p50"].value < report["ttft_p99"].value


def test_h200_is_planned_with_a_borrowed_fit_and_says_so(report: Report) -> None:
    assert report["itl_1"].label == "derived"
    assert "no run on h200-sxm" in report["itl_1"].note
    assert plan("llama-3-8b", "h100-sxm")["itl_1"].label == "calibrated"
    assert plan("llama-3-8b", "epyc-9654", precision="q4_k_m")["itl_1"].label == "assumed"


def test_more_rate_needs_more_nodes(report: Report) -> None:
    many = plan("llama-3-70b", "h200:8", precision="fp8", kv_precision="fp8", workload=replace(BUSY, rate=200))
    assert many.nodes > report.nodes == 1
    assert many["goodput"].value == report["goodput"].value
    assert f"{many.nodes} x (8x H200" in many.heading


def test_what_does_not_fit_is_told_with_what_would() -> None:
    one = plan("llama-3-70b", "h100-sxm", precision="fp8")
    assert not one.fits
    assert "a group of 2 h100-sxm holds it" in one.warnings[0]
    with pytest.raises(KeyError):
        one["goodput"]
    assert one.get("goodput") is None
    assert plan("llama-3-70b", "h100-sxm:2", precision="fp8").fits


def test_a_target_that_no_rate_meets_is_a_warning() -> None:
    slow = plan("llama-3-70b", "h200:8", precision="fp8", workload=replace(BUSY, tpot_s=0.001))
    assert slow["goodput"].value == 0
    assert any("no rate meets" in warning for warning in slow.warnings)
    assert slow["usd_output"].is_known


def test_beyond_the_fit_is_a_warning() -> None:
    long = Workload(prompt_tokens=60_000, output_tokens=500, rate=0.1, ttft_s=60)
    assert any("largest context" in w for w in plan("llama-3-70b", "b200:8", workload=long).warnings)
    assert any("batch" in w for w in plan("llama-3-8b", "b200", workload=BUSY, max_batch=2000).warnings)


def test_a_group_wider_than_its_link_is_a_warning() -> None:
    assert any("one link" in w for w in plan("llama-3-405b", "h100-sxm:16", tp=16).warnings)
    assert not any("one link" in w for w in plan("llama-3-405b", "gb200:16", tp=16).warnings)


def test_unknown_cost_is_null_and_never_small() -> None:
    facts = plan("llama-3-8b", "l40s").facts()
    assert facts["figures"]["usd_output"]["value"] is None
    assert "server_usd" in facts["figures"]["usd_output"]["note"]
    assert "break_even.gpt-4o" not in facts["figures"]
    json.dumps(facts, allow_nan=False)
    assert plan("llama-3-8b", "l40s", costs=CostInputs(server_usd=30e3))["usd_output"].is_known


def test_latent_attention_is_spread_over_devices() -> None:
    deepseek = plan("deepseek-v3", "h200:8", precision="fp8")
    assert deepseek.fits
    assert deepseek["pool_requests"].value > 500
    assert deepseek["kv_per_token"].value == pytest.approx(70_272 / 1024)


def test_the_machine_forms_carry_the_labels(report: Report) -> None:
    text, markdown, facts = report.text(), report.markdown(), report.facts()
    json.dumps(facts, allow_nan=False)
    assert facts["figures"]["goodput"]["label"] == "derived"
    assert "| goodput |" in markdown
    assert "calibrated" in text
    assert "2026-11" in "\n".join(report.sources)


def test_comparison_has_a_row_for_each_node() -> None:
    header, rows = comparison(compare("llama-3-70b", ["h100-sxm:8", "b200:8", "l4"], precision="fp8", workload=BUSY))
    assert len(rows) == 3
    assert all(len(row) == len(header) for row in rows)
    assert rows[2][1] == "does not fit"
    assert rows[2][3] == "-"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tp": 3}, "tp must divide the 8 devices of the node"),
        ({"precision": "fp9"}, "precision"),
        ({"kv_precision": "fp9"}, "kv_precision"),
        ({"max_batch": 0}, "max_batch must be from 1"),
        ({"token_budget": 0}, "token_budget must be from 1"),
        ({"memory_utilization": 2}, "memory_utilization must be from 0.1 to 1"),
        ({"apis": ["gpt-3"]}, "model"),
        ({"workload": Workload(prompt_tokens=200_000)}, "at most 131072"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan("llama-3-70b", "h200:8", **options)
    assert says in str(caught.value) or "api" in str(caught.value)


@pytest.mark.parametrize("field", ["prompt_tokens", "output_tokens", "rate", "ttft_s", "tpot_s"])
def test_a_workload_names_the_field_out_of_range(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field} must be from"):
        Workload(**{field: 0})  # type: ignore[arg-type]


def test_terms_grow_with_what_they_count() -> None:
    deployment = Deployment(preset("mixtral-8x7b"), precision_named("fp8"), 2.0, device_named("h100-sxm"), 2)
    small, large = decode_terms(deployment, 1, 1000), decode_terms(deployment, 64, 4000)
    assert len(small.values()) == len(TERMS)
    assert all(a <= b for a, b in zip(small.values(), large.values(), strict=True))
    assert large.kv == pytest.approx(64 * 4 * small.kv)
    assert small.weights < large.weights < 8 * small.weights  # two experts of eight, then all


def test_ridge_batches_of_the_data_sheets() -> None:
    llama = preset("llama-3-70b")
    cards = (("h100-sxm", "fp8"), ("h200-sxm", "fp8"), ("b200-sxm", "nvfp4"))
    ridges = [ridge_batch(Deployment(llama, precision_named(p), 2.0, device_named(d))) for d, p in cards]
    assert [round(ridge) for ridge in ridges] == [295, 206, 316]


def test_prefill_times_of_llama_70b_on_eight_h100() -> None:
    """FP8 at half of the dense rate: 18 ms for 1k tokens, 153 ms for 8k, 5.1 s for 128k."""
    shape, rate = preset("llama-3-70b"), 8 * device_named("h100-sxm").peak_flops("fp8").value * 0.5
    times = [shape.prefill_flops(tokens) / rate for tokens in (1024, 8192, 131_072)]
    assert times == pytest.approx([0.018, 0.153, 5.1], rel=0.03)
    whole, cached = shape.prefill_flops(4096), shape.prefill_flops(1024, cached=3072)
    assert cached == pytest.approx(whole - shape.prefill_flops(3072) + 2 * shape.vocab * shape.hidden, rel=1e-6)


def test_the_fit_finds_what_made_the_numbers() -> None:
    rows = [(1.0, float(b), float(b * c)) for b in (1, 4, 16) for c in (100, 1000)]
    truth = (2e-3, 1e-4, 3e-8)
    seconds = [sum(t * x for t, x in zip(truth, row, strict=True)) for row in rows]
    assert nonnegative_fit(rows, seconds, (1e-3, 1e-4, 1e-8), ridge=1e-9) == pytest.approx(truth, rel=1e-2)
    falling = [10 - row[1] / 2 for row in rows]
    assert min(nonnegative_fit(rows, falling, (1.0, 0.1, 1e-4))) == 0


def test_a_line_never_has_a_negative_part() -> None:
    assert line_through([1, 3], [5, 9]) == pytest.approx((3, 2))
    assert line_through([1, 3], [9, 5]) == (7, 0)
    assert line_through([1, 3], [1, 9])[0] == 0
    with pytest.raises(ConfigError, match="two anchors"):
        line_through([2], [3])


def calibration(**changes: Any) -> Calibration:
    values: dict[str, Any] = {
        "model": "m", "host": "h", "engine": "e", "date": "2026-11-25", "prompts": "p",
        "decode": (Anchor(1, 100, 0.010), Anchor(8, 100, 0.024), Anchor(8, 1100, 0.032), Anchor(16, 100, 0.040)),
        "prefill": (PromptAnchor(100, 0.051), PromptAnchor(200, 0.102), PromptAnchor(400, 0.206)),
    }  # fmt: skip
    return Calibration(**(values | changes))


def test_a_calibrated_timer_meets_its_points_and_goes_between() -> None:
    timer = CalibratedTimer(calibration())
    for anchor in calibration().decode:
        assert timer.decode(anchor.batch, anchor.context) == pytest.approx(anchor.seconds)
    assert 0.024 < timer.decode(12, 100) < 0.040
    assert timer.decode(8, 600) == pytest.approx(0.028)
    for prompt in calibration().prefill:
        assert timer.empty_step + timer.prefill(prompt.tokens, 0) == pytest.approx(prompt.seconds, rel=0.02)
    assert timer.prefill(100, 300) > timer.prefill(100, 0)


def test_a_calibration_survives_its_file_and_is_used() -> None:
    again = calibration_from_json(calibration().to_json(), "c.json")
    assert again == calibration()
    local = plan("smollm2", "epyc-9654", precision="q4_1", workload=Workload(rate=0.05), calibration=again, max_batch=8)
    assert local["itl_1"].label == "calibrated"
    assert "measured on h, 2026-11-25" in local["itl_1"].note
    assert local["itl_1"].value == pytest.approx(1e3 * CalibratedTimer(again).decode(1, 1150))
    far = plan("smollm2", "epyc-9654", precision="q4_1", workload=Workload(rate=0.05), calibration=again)
    assert any("batch" in warning for warning in far.warnings)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "lacks 'decode'"),
        ("[", "c.json"),
        (json.dumps({"decode": [], "prefill": []}), "c.json"),
        (json.dumps({"decode": [{"batch": 1}], "prefill": []}), "c.json"),
    ],
)
def test_a_broken_calibration_names_its_file(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        calibration_from_json(text, "c.json")


def test_calibrations_that_fit_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="two batches"):
        calibration(decode=(Anchor(1, 10, 0.1),))
    with pytest.raises(ConfigError, match="seconds above 0"):
        calibration(prefill=(PromptAnchor(10, 0),))
    with pytest.raises(ConfigError, match="one device"):
        plan("smollm2", "epyc-9654:2", calibration=calibration())


def test_a_device_without_a_rate_asks_for_a_calibration() -> None:
    with pytest.raises(ConfigError, match="plan calibrate"):
        plan("smollm2", "reference-machine")


def test_figures_write_themselves() -> None:
    assert Figure(1234.5, "tok/s", "derived").text() == "1,234 tok/s"
    assert Figure(0.5, "$", "assumed", "", 0.25, 1).text() == "$0.5 (0.25 to 1)"
    assert Figure(math.inf, "M", "assumed").text() == "never"
    assert unknown("W", "why").text() == "unknown"
    assert short(0) == "0"
    assert weakest("measured", "assumed", "derived") == "assumed"
