"""How far the planner is off on published runs: the bars it must pass, and that the shipped fit is this fit."""

from __future__ import annotations

from statistics import median

import pytest

from inferd.planner.fitted import FITTED_BATCH, FITTED_CONTEXT, fit_all, model_of
from inferd.planner.hardware import device_named
from inferd.planner.tables import read_table
from inferd.planner.validate import MAX_BATCH, DecodeError, decode_errors, decode_runs, summarize
from inferd.planner.validate_serving import held_out_coverage, ratio_interval, serving_runs


@pytest.fixture(scope="module")
def errors() -> list[DecodeError]:
    return decode_errors(decode_runs())


def test_runs_are_all_but_data_parallel_and_large_ones(errors: list[DecodeError]) -> None:
    rows = read_table("validation_mlenergy_llm_full")
    assert len(errors) == sum(row["dp"] == "1" and float(row["avg_bs"]) <= MAX_BATCH for row in rows)
    assert {error.run.family for error in errors} >= {"llama3", "gemma3", "qwen3", "gpt-oss", "deepseek"}


def test_textbook_roofline_is_optimistic(errors: list[DecodeError]) -> None:
    """Why a fit ships at all."""
    optimistic = sum(error.textbook < 0 for error in errors) / len(errors)
    assert optimistic > 0.95
    assert summarize("textbook", (error.textbook for error in errors)).mean > 0.4


@pytest.mark.parametrize("device", ["H100", "B200", ""])
def test_without_the_family_the_median_error_is_below_25_percent(errors: list[DecodeError], device: str) -> None:
    held_out = [error.held_out for error in errors if device in error.run.device]
    assert summarize(device, held_out).median <= 0.25


def test_two_anchors_bring_the_median_error_below_15_percent(errors: list[DecodeError]) -> None:
    between = [error.anchored for error in errors if error.anchored is not None]
    assert len(between) > 100
    assert summarize("anchored", between).median <= 0.15


def test_ttft_intervals_cover_hardware_they_have_not_seen() -> None:
    share, by_hardware = held_out_coverage(serving_runs(model_of(device_named("h100-sxm")).coefficients))
    assert share >= 0.8
    assert len(by_hardware) >= 5


def test_throughput_of_other_engines_is_the_right_size() -> None:
    runs = serving_runs(model_of(device_named("h100-sxm")).coefficients)
    off = [abs(run.rate_error) for run in runs if run.measured_rate is not None]
    assert len(off) > 30
    assert median(off) < 0.25


def test_the_interval_is_symmetric_in_logarithms() -> None:
    low, high = ratio_interval([0.5, 1.0, 2.0])
    assert low * high == pytest.approx(1.0)
    assert low < 0.5 < 2.0 < high


def test_the_shipped_numbers_are_this_fit() -> None:
    stored = {row["name"]: float(row["value"]) for row in read_table("fitted")}
    assert stored == pytest.approx(fit_all(), rel=1e-4)


def test_the_range_of_the_fit_is_what_it_saw() -> None:
    runs = decode_runs()
    assert max(run.context for run in runs) == pytest.approx(FITTED_CONTEXT, rel=0.01)
    assert max(run.batch for run in runs) <= FITTED_BATCH == MAX_BATCH
