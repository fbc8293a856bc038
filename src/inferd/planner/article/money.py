"""A30 to A40: dollars per token, break-even, savings."""

from __future__ import annotations

from inferd.planner.article.tools import (
    DAYS,
    HOURS,
    LLAMA,
    ROUNDING,
    TCO_USD,
    UTILIZATION,
    Computed,
    Rule,
    chosen,
    factors,
)
from inferd.planner.cost import SECONDS_A_DAY, usd_per_million
from inferd.planner.hardware import device_named
from inferd.planner.prices import ApiPrice, api_prices
from inferd.planner.tables import number, read_table

RATE = 3600.0  # tokens/s of 8x H200, as the article has it
TABLE_OUTPUT, TABLE_INPUT = 0.71, 0.18  # $ per 1M tokens, its table
CLAIMED_PRICE = (0.15, 0.22)  # $ per 1M output tokens, its TCO paragraph
HOURLY = tuple(usd / HOURS for usd in TCO_USD)
PER_DAY = tuple(usd / DAYS for usd in TCO_USD)
NODE_MAX = RATE * UTILIZATION * SECONDS_A_DAY / 1e6  # M output tokens a day
RATIO = 3.0  # billed input tokens per output token
TOGETHER, GPT4O, SONNET, CHEAPEST = (
    api_prices()[name]
    for name in (
        "together_ai/Meta-Llama-3-70B-Instruct-Turbo", "gpt-4o", "claude-sonnet-4-6",
        "deepinfra/Llama-3.3-70B-Instruct-Turbo",
    )
)  # fmt: skip
TOGETHER_NOW = api_prices()["together_ai/Llama-3.3-70B-Instruct-Turbo"]


def own_price() -> tuple[float, float]:
    """$ per 1M output tokens of the article's own TCO and rate."""
    low, high = (usd_per_million(usd, RATE, UTILIZATION) for usd in HOURLY)
    return low, high


def tco_price() -> Computed:
    low, high = own_price()
    widest = factors(low / CLAIMED_PRICE[1], high / CLAIMED_PRICE[0], 1)
    alike = factors(high / CLAIMED_PRICE[1], low / CLAIMED_PRICE[0], 1)
    is_wrong = low > CLAIMED_PRICE[1]
    verdict = f"WRONG by {widest} (like for like {alike})" if is_wrong else "HOLDS"
    return Computed(f"${low:.2f} to ${high:.2f} per 1M output tokens", verdict)


def table_price() -> Computed:
    implied = TABLE_OUTPUT * RATE * UTILIZATION * 0.0036  # $/h
    off = [usd / implied for usd in HOURLY]
    agree = [(price - TABLE_OUTPUT) / TABLE_INPUT for price in own_price()]
    verdict = (
        f"CONTRADICTS own TCO by {factors(off[0], off[1], 1)} (output only); the two agree only at "
        f"{agree[0]:.1f}-{agree[1]:.1f} input tokens per output token, which is not stated"
    )
    numbers = f"${implied:.2f}/h from the table, ${HOURLY[0]:.2f} to ${HOURLY[1]:.2f}/h from the TCO"
    return Computed(numbers, verdict if off[0] > 1 + ROUNDING else "HOLDS")


def two_prices() -> Computed:
    off = sorted(TABLE_OUTPUT / claimed for claimed in CLAIMED_PRICE)
    verdict = f"SELF-CONTRADICTORY {factors(off[0], off[1], 1)}" if off[0] > 1 + ROUNDING else "HOLDS"
    return Computed(f"0.71 over 0.22 and 0.15: {off[0]:.1f}, {off[1]:.1f}", verdict)


def input_price() -> Computed:
    device = device_named("h200-sxm")
    speed = 8 * device.peak_flops("fp8").value * 0.5 / (2 * LLAMA.dense_params)
    low, high = (usd_per_million(usd, speed, UTILIZATION) for usd in HOURLY)
    holds = low <= TABLE_INPUT <= high * (1 + ROUNDING)
    numbers = f"prefill at half of the dense rate: {speed:,.0f} tok/s, ${low:.2f} to ${high:.2f} per 1M"
    return Computed(numbers, "HOLDS within rounding if the node does nothing else" if holds else "WRONG")


def b200_price() -> Computed:
    implied = (0.38 * 7200) / (TABLE_OUTPUT * RATE)
    tco = {row["id"]: number(row, "tco_usd_h_hyperscaler") for row in read_table("hardware_catalogue")}
    owned = (tco["b200-sxm"] or 0) / (tco["h200-sxm"] or 1)
    cheap = owned / implied
    verdict = f"IMPLAUSIBLE (too cheap by ~{cheap:.1f}x)" if cheap > 1.1 else "HOLDS"
    return Computed(f"implied node price {implied - 1:+.0%} over H200, owned TCO {owned - 1:+.0%}", verdict)


def volumes(output_usd: float, input_usd: float, ratio: float) -> tuple[float, float]:
    """Break-even, M output tokens a day, at both ends of the TCO."""
    low, high = (usd / (output_usd + ratio * input_usd) for usd in PER_DAY)
    return low, high


def break_even_together() -> Computed:
    claimed, alone = 12.0, volumes(TOGETHER.output_usd, TOGETHER.input_usd, 0)
    mixed = volumes(TOGETHER.output_usd, TOGETHER.input_usd, RATIO)
    off, off_mixed = [v / claimed for v in alone], [v / claimed for v in mixed]
    wrong = f"WRONG by {factors(off[0], off[1])} (x{off_mixed[0]:.1f}-{off_mixed[1]:.0f} with {RATIO:.0f}:1 input)"
    never = alone[0] > NODE_MAX
    verdict = chosen(((off[0] > 1, wrong), (never, "output-only it is never reached on one such node")))
    return Computed(f"{alone[0]:.0f} to {alone[1]:.0f} M/day; the node makes {NODE_MAX:.0f} M", verdict)


def _frontier() -> list[tuple[float, float]]:
    return [volumes(api.output_usd, api.input_usd, r) for api in (GPT4O, SONNET) for r in (0.0, RATIO)]


def break_even_frontier() -> Computed:
    claimed, actual = (2.0, 3.0), _frontier()
    low, high = min(v[0] for v in actual) / claimed[1], max(v[1] for v in actual) / claimed[0]
    numbers = ", ".join(f"{a:.0f} to {b:.0f}" for a, b in actual)
    return Computed(f"M/day, output only and 3:1: {numbers}", f"WRONG by {factors(low, high)}" if low > 1 else "HOLDS")


def thresholds() -> Computed:
    claimed = (">5M", "5-15M", "2-3M", "12M", "<2M")
    words = {2: "two", 3: "three", 4: "four", 5: "five"}
    least = min(v[0] for v in _frontier()) / 3.0
    share = 5e6 / SECONDS_A_DAY / RATE
    price = [usd / 5 for usd in PER_DAY]
    distinct = len(set(claimed))
    contradictory = f"SELF-CONTRADICTORY ({words.get(distinct, distinct)} thresholds)"
    verdict = f"{contradictory} and WRONG by >=x{least:.0f}" if distinct > 1 and least > 1 else "HOLDS"
    numbers = f"5 M/day is {share:.1%} of the node: ${price[0]:.0f} to ${price[1]:.0f} per 1M"
    return Computed(numbers, verdict)


def below_budget_apis() -> Computed:
    low, high = own_price()

    def per_output(api: ApiPrice, ratio: float) -> float:
        return api.output_usd + ratio * api.input_usd

    budget = all(low > per_output(CHEAPEST, ratio) for ratio in (0.0, RATIO))
    together = all(low > per_output(api, 0) for api in (TOGETHER, TOGETHER_NOW)) and high < per_output(TOGETHER, RATIO)
    verdict = chosen((
        (budget, "WRONG against the budget tier in every reading"),
        (together, "below Together only if inputs are counted"),
    ))  # fmt: skip
    counted = f"{per_output(TOGETHER, RATIO):.2f} and {per_output(CHEAPEST, RATIO):.2f} with 3 inputs per output"
    return Computed(
        f"${low:.2f} to ${high:.2f} against {TOGETHER.output_usd}, {CHEAPEST.output_usd}; {counted}", verdict
    )


def cost_reduction() -> Computed:
    frontier = [usd / TABLE_OUTPUT for usd in (GPT4O.output_usd, SONNET.output_usd)]
    together, own = TOGETHER.output_usd / TABLE_OUTPUT, GPT4O.output_usd / own_price()[0]
    holds = all(5 <= ratio <= 20 * 1.1 for ratio in frontier)
    limited = holds and together < 5 and own < 5
    verdict = "HOLDS only against frontier APIs and only on its own table" if limited else "HOLDS" if holds else "WRONG"
    ratios = ", ".join(f"{ratio:.1f}" for ratio in frontier)
    return Computed(
        f"{ratios} against frontier APIs, {together:.2f} against Together; {own:.1f} on its own TCO", verdict
    )


def _span(shares: tuple[float, float]) -> str:
    return f"{shares[0]:.0%} to {shares[1]:.0%}"


def savings() -> Computed:
    """At the node's maximum, 3 inputs per output: the most that owning can save."""

    def saved(api: ApiPrice) -> tuple[float, float]:
        daily = NODE_MAX * (api.output_usd + RATIO * api.input_usd)
        return 1 - PER_DAY[1] / daily, 1 - PER_DAY[0] / daily

    together, frontier = saved(TOGETHER), saved(GPT4O)
    verdict = chosen((
        (True, "UNVERIFIABLE in general"),
        (together[1] < 0.6, "FALSE vs Together"),
        (frontier[0] >= 0.6, "possible vs frontier APIs at high load"),
    ))  # fmt: skip
    numbers = f"{_span(together)} against Together, {_span(frontier)} against GPT-4o"
    return Computed(f"at the node's maximum, 3:1: {numbers}", verdict)


RULES: dict[str, Rule] = {
    "A30": tco_price, "A31": table_price, "A32": two_prices, "A33": input_price, "A34": b200_price,
    "A35": break_even_together, "A36": break_even_frontier, "A37": thresholds, "A38": below_budget_apis,
    "A39": cost_reduction, "A40": savings,
}  # fmt: skip
