"""Money and energy: sums, monotony, break-even, and the checks of measured nodes."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from inferd.errors import ConfigError
from inferd.planner.cost import (
    CostInputs,
    break_even,
    joules_per_token,
    kwh_per_million,
    mean_power,
    node_power,
    ownership,
    token_cost,
    usd_per_million,
)
from inferd.planner.figure import Figure
from inferd.planner.hardware import Node, device_named, node_named
from inferd.planner.prices import age_in_days, api_named, api_prices
from inferd.planner.sensitivity import sensitivity_entries
from inferd.planner.speculation import speedup, tokens_per_verify

H200 = node_named("h200:8")


def test_the_total_is_the_sum_of_its_lines() -> None:
    inputs = CostInputs(
        network_usd=20e3, power_usd=1e4, cooling_usd=3e4, colocation_usd_month=1500, licences_usd_year=4500,
        capital_share_year=0.08, residual_share=0.2,
    )  # fmt: skip
    cost = ownership(H200, inputs)
    by_name = {line.name: line.usd.value for line in cost.lines}
    assert cost.total_usd == sum(by_name.values())
    assert by_name["server"] == 8 * 35_000 + 65_000
    assert by_name["residual value"] == -0.2 * by_name["server"]
    assert by_name["cost of capital"] == pytest.approx(0.08 * 3 * 0.6 * by_name["server"])
    assert by_name["colocation"] == 54_000
    assert cost.usd_per_hour * 26_280 == pytest.approx(cost.total_usd)
    assert all(line.usd.label == "assumed" for line in cost.lines)


def price(inputs: CostInputs, node: Node = H200) -> float:
    return usd_per_million(ownership(node, inputs).usd_per_hour, 20_000, inputs.utilization)


def test_prices_move_the_way_they_must() -> None:
    base = CostInputs()
    assert price(replace(base, utilization=0.8)) < price(base) < price(replace(base, utilization=0.2))
    assert price(replace(base, usd_per_kwh=0.3)) > price(base)
    assert price(replace(base, pue=1.1)) < price(base)
    assert price(replace(base, residual_share=0.3)) < price(base)
    assert price(replace(base, nodes_per_team=1)) > price(base)


def test_article_tco_over_its_own_throughput() -> None:
    low, high = (usd_per_million(usd / 26_280, 3600, 0.8) for usd in (580e3, 760e3))
    assert (round(low, 2), round(high, 2)) == (2.13, 2.79)


def test_rent_replaces_every_line() -> None:
    cost = ownership(H200, CostInputs(rent_usd_h=27.6, years=1))
    assert [line.name for line in cost.lines] == ["rent"]
    assert cost.total_usd == pytest.approx(27.6 * 8760)


def test_what_is_not_known_is_not_guessed() -> None:
    cost = ownership(node_named("l40s"), CostInputs())
    assert not cost.is_known
    assert "set server_usd" in cost.missing[0]
    assert not node_power(node_named("tpu-v5e:4"), CostInputs()).is_known
    assert ownership(node_named("l40s"), CostInputs(server_usd=20e3)).is_known


def test_token_cost_splits_device_time() -> None:
    cost = token_cost(0.01, 0.5, prompt_s=1.0, output_s=3.0, prompt=1000, output=100)
    spent = (1000 * cost.input_usd + 100 * cost.output_usd) / 1e6
    assert spent == pytest.approx(0.01 / 0.5 * 4.0)
    assert cost.blended_usd == pytest.approx(spent / 1100 * 1e6)
    assert cost.all_on_output_usd == pytest.approx(spent / 100 * 1e6)


@pytest.mark.parametrize(("tco", "ratio", "low", "high"), [(580e3, 0, 601, 603), (760e3, 3, 196, 198)])
def test_break_even_of_the_audit(tco: float, ratio: float, low: float, high: float) -> None:
    together = api_named("Meta-Llama-3-70B-Instruct-Turbo")
    tokens, nodes = break_even(lambda n: tco / 1095, 1e12, ratio, together.input_usd, together.output_usd)
    assert tokens is not None
    assert low < tokens / 1e6 < high
    assert nodes == 1


def test_break_even_asks_for_more_nodes_or_gives_up() -> None:
    """100 $ a day of the first node, 10 $ of each further one; a node makes 1 M tokens at 20 $."""
    tokens, nodes = break_even(lambda n: 90 + 10.0 * n, 1e6, 0, 0, 20.0)
    assert nodes == 9
    assert tokens == pytest.approx((90 + 90) / 20 * 1e6)
    assert break_even(lambda n: 100.0 * n, 1e6, 0, 0, 20.0)[0] is None
    assert break_even(lambda n: 100.0 * n, 1e6, 0, 0, 0.0)[0] is None


def test_energy_of_a_measured_node() -> None:
    """8x H200, capped: 6,281 W at 23,113 tokens/s (MLPerf v4.1), at the wall."""
    joules = joules_per_token(Figure(6281, "W", "measured"), 1.0, 23_113)
    kwh = kwh_per_million(joules)
    assert joules.value == pytest.approx(0.272, abs=0.0005)
    assert kwh.value == pytest.approx(0.0755, abs=0.0005)
    assert kwh.value * 0.12 == pytest.approx(0.0091, abs=0.00005)
    full = node_power(node_named("b200:8"), CostInputs())
    assert 9_500 <= full.value <= 10_450  # what such nodes drew in MLPerf v5.1
    assert mean_power(full, 1.0).value == pytest.approx(full.value)
    assert mean_power(full, 0.0).value == pytest.approx(0.3 * full.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"utilization": 0}, "utilization must be from 0.001 to 1"),
        ({"pue": 0.9}, "pue must be from 1"),
        ({"years": 100}, "years must be from 0.1 to 15"),
        ({"residual_share": 1.5}, "residual_share must be from 0 to 1"),
        ({"server_usd": -1}, "server_usd must be from 0"),
        ({"usd_per_kwh": float("nan")}, "usd_per_kwh must be"),
    ],
)
def test_inputs_out_of_range_are_named(change: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        CostInputs(**change)  # type: ignore[arg-type]


def test_api_prices_by_name_and_their_age() -> None:
    assert api_named("gpt-4o").output_usd == 10
    assert api_named("Llama-3.3-70B-Instruct-Turbo") in api_prices().values()
    with pytest.raises(ConfigError, match="gpt-4o"):
        api_named("gpt-4")
    assert age_in_days("2026-05-18", date(2026, 5, 20)) == 2
    assert age_in_days("2026-11", date(2026, 11, 25)) == 0
    assert age_in_days("2025-12", date(2026, 1, 31)) == 30


def test_sensitivity_is_sorted_and_keeps_its_base_inside() -> None:
    def of(node: Node, costs: CostInputs, speed: float) -> float:
        return usd_per_million(ownership(node, costs).usd_per_hour, 20_000 * speed, costs.utilization)

    entries = sensitivity_entries(of, H200, CostInputs())
    swings = [entry.figure.value for entry in entries]
    assert swings == sorted(swings, reverse=True)
    base = price(CostInputs())
    assert len(entries) == 6
    for entry in entries:
        assert entry.figure.low is not None
        assert entry.figure.high is not None
        assert entry.figure.low < base < entry.figure.high
    rented = sensitivity_entries(of, H200, CostInputs(rent_usd_h=20))
    assert {entry.name.split(",")[0] for entry in rented} == {"engine throughput", "utilization", "rent"}


def test_speculation_pays_while_a_verify_step_is_cheap() -> None:
    assert tokens_per_verify(0.8, 5) == pytest.approx(3.689, abs=0.001)
    assert speedup(0.8, 5, 0.05, 1.0) == pytest.approx(2.95, abs=0.005)
    assert speedup(0.8, 5, 0.05, 3.0) == pytest.approx(1.135, abs=0.005)
    assert tokens_per_verify(1.0, 4) == 5
    with pytest.raises(ConfigError, match="acceptance"):
        speedup(1.5, 5, 0.05, 1.0)


def test_a_host_is_added_to_the_devices() -> None:
    assert node_power(Node(device_named("h100-sxm"), 8), CostInputs()).value == 8 * 700 + 2000
