"""Money and energy: the cost of ownership line by line, price per token, break-even against an API."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from inferd.planner.figure import Figure, unknown
from inferd.planner.hardware import Node
from inferd.planner.tables import require

HOURS_A_YEAR = 8760.0
SECONDS_A_DAY = 86400.0
HOST_W = {"gpu": 2000.0, "asic": 2000.0, "cpu": 150.0, "soc": 20.0}  # beside the devices, a node; assumed
HOST_USD = {"gpu": 65_000.0, "asic": 65_000.0, "cpu": 4_000.0, "soc": 0.0}  # the middle of 50 to 80 thousand for 8 GPUs
IDLE_SHARE = 0.3  # of the devices' power that an idle node draws; assumed


@dataclass(frozen=True, slots=True, kw_only=True)
class CostInputs:
    """What a node costs beside its devices. Dollars are US dollars of the whole term unless a year is named."""

    years: float = 3.0
    utilization: float = 0.5  # of the sustainable token rate, averaged over the term
    server_usd: float | None = None  # None: devices at the catalogue's price, and a host
    rent_usd_h: float | None = None  # of the node; set: rented, and the lines of ownership are zero
    network_usd: float = 0.0
    power_usd: float = 0.0  # distribution, UPS
    cooling_usd: float = 0.0
    usd_per_kwh: float = 0.12
    pue: float = 1.3
    node_watts: float | None = None  # at the wall under load; None: from TDP and an assumed host
    staff_usd_year: float = 60_000.0  # of a team
    nodes_per_team: float = 8.0
    support_share_year: float = 0.05  # of the server's price
    spares_share_year: float = 0.02
    colocation_usd_month: float = 0.0
    licences_usd_year: float = 0.0
    capital_share_year: float = 0.0  # cost of capital, on the mean of price and residual value
    residual_share: float = 0.0  # of the server's price, at the end

    def __post_init__(self) -> None:
        require("years", self.years, 0.1, 15, "years")
        require("utilization", self.utilization, 0.001, 1)
        require("usd_per_kwh", self.usd_per_kwh, 0, 5, "$/kWh")
        require("pue", self.pue, 1, 5)
        require("nodes_per_team", self.nodes_per_team, 0.01, 1e5)
        for name in ("support_share_year", "spares_share_year", "capital_share_year", "residual_share"):
            require(name, getattr(self, name), 0, 1)
        for name in ("network_usd", "power_usd", "cooling_usd", "staff_usd_year", "colocation_usd_month"):
            require(name, getattr(self, name), 0, 1e9, "$")
        for name in ("server_usd", "rent_usd_h", "node_watts", "licences_usd_year"):
            if (value := getattr(self, name)) is not None:
                require(name, value, 0, 1e9)

    @property
    def hours(self) -> float:
        return self.years * HOURS_A_YEAR


@dataclass(frozen=True, slots=True)
class CostLine:
    name: str
    usd: Figure


@dataclass(frozen=True, slots=True)
class Ownership:
    """Every line of one node's cost over the term; the total is their sum and nothing else."""

    lines: tuple[CostLine, ...]
    hours: float

    @property
    def total_usd(self) -> float:
        return sum(line.usd.value for line in self.lines)

    @property
    def is_known(self) -> bool:
        return not math.isnan(self.total_usd)

    @property
    def usd_per_hour(self) -> float:
        return self.total_usd / self.hours

    @property
    def missing(self) -> list[str]:
        return [f"{line.name}: {line.usd.note}" for line in self.lines if not line.usd.is_known]


def node_power(node: Node, inputs: CostInputs) -> Figure:
    """Watts at the wall under full load."""
    device = node.device
    if inputs.node_watts is not None:
        return Figure(inputs.node_watts, "W", "assumed", "given")
    if device.tdp_w is None:
        return unknown("W", f"no TDP of {device.id} is published; set node_watts")
    host = HOST_W.get(device.kind, 0.0)
    return Figure(
        node.count * device.tdp_w + host, "W", "assumed", f"{node.count} x {device.tdp_w:g} W TDP + {host:g} W of host"
    )


def mean_power(full: Figure, utilization: float) -> Figure:
    """Idle draw and the rest in proportion to the load."""
    share = IDLE_SHARE + (1 - IDLE_SHARE) * utilization
    return replace(full.scaled(share, "W"), note=f"{IDLE_SHARE:.0%} idle, the rest with utilization; {full.note}")


def server_price(node: Node, inputs: CostInputs) -> Figure:
    device = node.device
    if inputs.server_usd is not None:
        return Figure(inputs.server_usd, "$", "assumed", "given")
    if device.purchase_usd is None:
        return unknown("$", f"no price of {device.id} is known ({device.purchase_note or 'none'}); set server_usd")
    host = HOST_USD.get(device.kind, 0.0)
    note = f"{node.count} x ${device.purchase_usd:,.0f} ({device.purchase_note}) + ${host:,.0f} host"
    return Figure(node.count * device.purchase_usd + host, "$", "assumed", note)


def ownership(node: Node, inputs: CostInputs) -> Ownership:
    """Cost of one node over the term. A line that cannot be known makes the total unknown rather than too small."""
    if inputs.rent_usd_h is not None:
        rent = Figure(inputs.rent_usd_h * inputs.hours, "$", "assumed", f"${inputs.rent_usd_h:g}/h of the node")
        return Ownership((CostLine("rent", rent),), inputs.hours)
    server = server_price(node, inputs)
    watts = mean_power(node_power(node, inputs), inputs.utilization)
    kwh = watts.value / 1e3 * inputs.hours * inputs.pue
    electricity = Figure(
        kwh * inputs.usd_per_kwh, "$", watts.label,
        f"{kwh:,.0f} kWh at PUE {inputs.pue:g} x ${inputs.usd_per_kwh:g}; {watts.note}",
    )  # fmt: skip
    return Ownership((CostLine("server", server), *_other_lines(server.value, electricity, inputs)), inputs.hours)


def _other_lines(server: float, electricity: Figure, inputs: CostInputs) -> list[CostLine]:
    def line(name: str, usd: float, note: str = "given or zero by default") -> CostLine:
        return CostLine(name, Figure(usd, "$", "assumed", note))

    mean_value = server * (1 + inputs.residual_share) / 2
    return [
        line("network", inputs.network_usd),
        line("power distribution", inputs.power_usd),
        line("cooling", inputs.cooling_usd),
        CostLine("electricity", electricity),
        line(
            "staff", inputs.staff_usd_year * inputs.years / inputs.nodes_per_team,
            f"${inputs.staff_usd_year:,.0f} a year of a team with {inputs.nodes_per_team:g} nodes",
        ),
        line("support", server * inputs.support_share_year * inputs.years, f"{inputs.support_share_year:.0%} a year"),
        line("spares", server * inputs.spares_share_year * inputs.years, f"{inputs.spares_share_year:.0%} a year"),
        line("colocation", inputs.colocation_usd_month * 12 * inputs.years),
        line("licences", inputs.licences_usd_year * inputs.years),
        line(
            "cost of capital", mean_value * inputs.capital_share_year * inputs.years,
            f"{inputs.capital_share_year:.0%} a year on the mean value",
        ),
        line("residual value", -server * inputs.residual_share, f"{inputs.residual_share:.0%} of the server"),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class TokenCost:
    """US dollars for 1M tokens, divided by device time; `blended` counts both kinds of token."""

    input_usd: float
    output_usd: float
    blended_usd: float
    all_on_output_usd: float  # the whole cost over output tokens, as articles like to print


def token_cost(
    usd_per_second: float, utilization: float, prompt_s: float, output_s: float, prompt: float, output: float
) -> TokenCost:
    """prompt_s: device seconds of a mean prompt; output_s: of a mean answer; the device idles 1 - utilization."""
    paid = usd_per_second / utilization
    whole = paid * (prompt_s + output_s) * 1e6
    return TokenCost(
        input_usd=paid * prompt_s / prompt * 1e6,
        output_usd=paid * output_s / output * 1e6,
        blended_usd=whole / (prompt + output),
        all_on_output_usd=whole / output,
    )


def usd_per_million(usd_per_hour: float, tokens_per_second: float, utilization: float) -> float:
    return usd_per_hour / (tokens_per_second * utilization * 0.0036)


MAX_NODES = 10_000


def break_even(
    cost_per_day: Callable[[int], float], max_per_day: float, input_ratio: float, input_usd: float, output_usd: float
) -> tuple[float | None, int]:
    """(output tokens a day, nodes). Needs more nodes until they can make what pays for them; None when a full node
    earns less than each further node costs. cost_per_day: of n nodes; input_ratio: billed input per output token."""
    price = (output_usd + input_ratio * input_usd) / 1e6
    for nodes in range(1, MAX_NODES + 1):
        tokens = cost_per_day(nodes) / price if price else math.inf
        if tokens <= nodes * max_per_day:
            return tokens, nodes
        if max_per_day * price <= cost_per_day(nodes + 1) - cost_per_day(nodes):
            return None, nodes
    return None, MAX_NODES


def joules_per_token(watts: Figure, pue: float, tokens_per_second: float) -> Figure:
    return replace(watts.scaled(pue / tokens_per_second, "J"), note=f"whole node, PUE {pue:g}; {watts.note}")


def kwh_per_million(joules: Figure) -> Figure:
    return joules.scaled(1 / 3.6, "kWh")
