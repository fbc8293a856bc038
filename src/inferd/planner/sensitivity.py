"""How far the price of a token moves when one input moves, the largest swing first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from inferd.planner.cost import CostInputs, server_price
from inferd.planner.figure import Figure
from inferd.planner.hardware import Node
from inferd.planner.report import Entry

Price = Callable[[Node, CostInputs, float], float]  # speed: factor on the token rate


def sensitivity_entries(price: Price, node: Node, costs: CostInputs) -> tuple[Entry, ...]:
    """One entry for each input: value is the swing, low and high the prices at its two ends."""
    swings = []
    for name, ends in _moves(node, costs):
        low, high = sorted(price(node, changed, speed) for changed, speed in ends)
        note = f"${low:,.3g} to ${high:,.3g}"
        swings.append(Entry(f"sensitivity.{name}", name, Figure(high - low, "$", "assumed", note, low, high)))
    known = [entry for entry in swings if entry.figure.is_known and entry.figure.value > 0]
    return tuple(sorted(known, key=lambda entry: -entry.figure.value))


def _moves(node: Node, costs: CostInputs) -> Iterator[tuple[str, tuple[tuple[CostInputs, float], ...]]]:
    yield "engine throughput, half to twice", ((costs, 0.5), (costs, 2.0))
    yield "utilization, 10 to 80 %", tuple((replace(costs, utilization=u), 1.0) for u in (0.1, 0.8))
    yield "term, 2 to 5 years", tuple((replace(costs, years=years), 1.0) for years in (2, 5))
    if costs.rent_usd_h is not None:
        rents = (costs.rent_usd_h * factor for factor in (0.7, 1.3))
        yield "rent, -30 to +30 %", tuple((replace(costs, rent_usd_h=rent), 1.0) for rent in rents)
        return
    server = server_price(node, costs)
    if server.is_known:
        servers = tuple((replace(costs, server_usd=server.value * factor), 1.0) for factor in (0.7, 1.3))
        yield "server price, -30 to +30 %", servers
    yield (
        "electricity, half to twice",
        tuple((replace(costs, usd_per_kwh=costs.usd_per_kwh * f), 1.0) for f in (0.5, 2)),
    )
    teams = (max(0.01, costs.nodes_per_team * factor) for factor in (0.25, 4))
    yield "nodes per team, a quarter to four times", tuple((replace(costs, nodes_per_team=n), 1.0) for n in teams)
