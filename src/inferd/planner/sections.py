"""The sections of a report: which figures a solution gives, with what label and bounds."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date

from inferd.planner.capacity import idle_ttft
from inferd.planner.cost import (
    SECONDS_A_DAY,
    CostInputs,
    Ownership,
    break_even,
    joules_per_token,
    kwh_per_million,
    mean_power,
    node_power,
    ownership,
    token_cost,
    usd_per_million,
)
from inferd.planner.figure import Figure, Label, unknown, weakest
from inferd.planner.fitted import Spread
from inferd.planner.hardware import Node
from inferd.planner.memory import GIB, MemoryPlan, weights_of
from inferd.planner.prices import STALE_DAYS, ApiPrice, age_in_days, api_named
from inferd.planner.report import Entry, Section
from inferd.planner.roofline import RooflineTimer, ridge_batch
from inferd.planner.sensitivity import sensitivity_entries
from inferd.planner.solution import Solution


def sections_of(s: Solution) -> tuple[Section, ...]:
    sections = (
        Section("Model", _model(s)),
        Section("Memory of one device", memory_entries(s.memory)),
        Section("Cache", _cache(s)),
        Section("Speed of one replica", _speed(s)),
        Section("Service at the planned rate", _service(s)),
        Section("Capacity of one node", _capacity(s)),
        Section(f"Cost of one node over {s.request.costs.years:g} years", _ownership(s)),
        Section("Price of tokens", _token_prices(s)),
        Section("Energy", _energy(s)),
        Section("Break-even against APIs", _break_even(s)),
        Section("Sensitivity: $ per 1M output tokens, all cost on output", _sensitivity(s)),
    )
    return tuple(section for section in sections if section.entries)


def _bounded(value: float, unit: str, label: Label, spread: Spread, note: str = "") -> Figure:
    return Figure(value, unit, label, note, value * spread.low, value * spread.high)


def _model(s: Solution) -> tuple[Entry, ...]:
    shape, precision = s.request.shape, s.request.precision
    weights = weights_of(shape, precision)
    gb = 1 / 1e9
    parts = (
        ("linear layers", weights.linear),
        ("experts", weights.experts),
        ("embeddings and head", weights.embeddings),
    )
    return (
        Entry("parameters", "parameters", Figure(shape.total_params / 1e9, "B", "derived", shape.source)),
        Entry("active_parameters", "active per token", Figure(shape.active_params / 1e9, "B", "derived")),
        Entry("weights_total", "weights", Figure(weights.total * gb, "GB", "derived", precision.note)),
        *(Entry(f"weights.{n}", f"  {n}", Figure(v * gb, "GB", "derived")) for n, v in parts if v),
    )


def memory_entries(memory: MemoryPlan) -> tuple[Entry, ...]:
    def gib(key: str, name: str, figure: Figure) -> Entry:
        return Entry(key, name, figure.scaled(1 / GIB, "GiB"))

    share = replace(
        memory.usable, value=memory.usable.value * memory.utilization, note=f"{memory.utilization:.0%} of it"
    )
    return (
        gib("usable", "usable", memory.usable),
        gib("allowed", "of that for the engine", share),
        gib("weights", "- weights", memory.weights),
        gib("activation", "- activations", memory.activation),
        gib("non_torch", "- runtime", memory.non_torch),
        gib("pool", "= KV pool", memory.pool),
    )


def _cache(s: Solution) -> tuple[Entry, ...]:
    m = s.memory
    node = replace(m.max_concurrency, value=m.max_concurrency.value * s.replicas, note="of one node")
    return (
        Entry("kv_per_token", "one token", m.kv_per_token.scaled(1 / 1024, "KiB")),
        Entry("kv_per_request", "one request", m.kv_per_request.scaled(1 / GIB, "GiB")),
        Entry("pool_requests", "requests held by a replica", m.max_concurrency),
        Entry("node_requests", "requests held by a node", node),
    )


def _speed(s: Solution) -> tuple[Entry, ...]:
    workload, timer = s.request.workload, s.timer
    one = timer.decode(1, workload.mean_context)
    source = s.request.calibration and f"measured on {s.request.calibration.host}, {s.request.calibration.date}"
    if isinstance(timer, RooflineTimer):
        source = timer.coefficients.source
        ridge = Figure(ridge_batch(timer.deployment), "sequences", "derived", "arithmetic-bound beyond, matrices alone")
    else:
        ridge = unknown("sequences", "of a measured machine no peak is assumed")
    return (
        Entry("idle_ttft", "TTFT, idle", _bounded(idle_ttft(timer, workload) * 1e3, "ms", s.ttft_label, s.ttft)),
        Entry("itl_1", "ITL, one sequence", _bounded(one * 1e3, "ms", s.label, s.decode, source or "")),
        Entry("rate_1", "tokens/s, one sequence", Figure(1 / one, "tok/s", s.label, "", *_inverse(1 / one, s.decode))),
        Entry("ridge_batch", "ridge batch", ridge),
        Entry(
            "top_batch", "largest batch", Figure(s.top.batch, "sequences", s.memory.pool.label, "by cache or max_batch")
        ),
        Entry("top_step", "step at it", _bounded(s.top.step_s * 1e3, "ms", s.label, s.decode, "prompts included")),
        Entry("top_rate", "tokens/s at it", _bounded(s.top.output_rate, "tok/s", s.label, s.rate, "saturated")),
    )


def _inverse(value: float, spread: Spread) -> tuple[float, float]:
    return value / spread.high, value / spread.low


def _service(s: Solution) -> tuple[Entry, ...]:
    level, ms = s.level, 1e3
    fleet = f"{s.request.workload.rate:g} requests/s on {s.nodes} x {s.replicas} replicas, {level.requests} simulated"
    good = Figure(100 * level.good_share, "%", s.label, "of requests meet TTFT and TPOT targets")
    return (
        Entry("replica_rate", "requests/s of a replica", Figure(level.rate, "req/s", "derived", fleet)),
        Entry("mean_batch", "mean batch", Figure(level.mean_batch, "sequences", s.label)),
        Entry("ttft_p50", "TTFT p50", _bounded(level.ttft_p50 * ms, "ms", s.ttft_label, s.ttft)),
        Entry("ttft_p99", "TTFT p99", _bounded(level.ttft_p99 * ms, "ms", s.ttft_label, s.ttft)),
        Entry("wait_p99", "  of it waiting, p99", Figure(level.wait_p99 * ms, "ms", s.label)),
        Entry("tpot_p50", "TPOT p50", _bounded(level.tpot_p50 * ms, "ms", s.label, s.decode)),
        Entry("tpot_p99", "TPOT p99", _bounded(level.tpot_p99 * ms, "ms", s.label, s.decode)),
        Entry("gap_p99", "gap between tokens p99", Figure(level.gap_p99 * ms, "ms", s.label, "prompt steps included")),
        Entry("good_share", "good requests", good),
    )


def _capacity(s: Solution) -> tuple[Entry, ...]:
    workload, node_rate = s.request.workload, s.sustainable * s.replicas
    targets = f"TTFT <= {workload.ttft_s * 1e3:g} ms and TPOT <= {workload.tpot_s * 1e3:g} ms for 99 %"
    good = _bounded(s.goodput * s.replicas, "req/s", s.label, s.rate, targets)
    tokens = _bounded(node_rate * workload.output_tokens, "tok/s", s.label, s.rate, "output, at that rate")
    ratio = workload.prompt_tokens / workload.output_tokens
    load = Figure(100 * workload.rate / (s.nodes * node_rate), "%", s.label, "of the capacity of these nodes")
    return (
        Entry("goodput", "goodput", good),
        Entry("node_rate", "tokens/s", tokens),
        Entry("node_input_rate", "input tokens/s", replace(tokens.scaled(ratio, "tok/s"), note="input, beside these")),
        Entry(
            "nodes",
            "nodes for the rate",
            Figure(s.nodes, "node" if s.nodes == 1 else "nodes", s.label, f"{workload.rate:g} requests/s"),
        ),
        Entry("load", "used at the rate", load),
    )


def owned(s: Solution) -> Ownership:
    return ownership(s.request.node, s.request.costs)


def _ownership(s: Solution) -> tuple[Entry, ...]:
    cost = owned(s)
    label = weakest(*(line.usd.label for line in cost.lines))
    lines = tuple(Entry(f"cost.{line.name}", line.name, line.usd) for line in cost.lines if line.usd.value != 0)
    if not cost.is_known:
        total = hourly = unknown("$", "; ".join(cost.missing))
    else:
        total = Figure(cost.total_usd, "$", label, "the sum of the lines")
        hourly = Figure(cost.usd_per_hour, "$", label, f"{cost.hours:,.0f} hours")
    return (*lines, Entry("total_usd", "total", total), Entry("usd_per_hour", "per hour", hourly))


def _token_prices(s: Solution) -> tuple[Entry, ...]:
    cost, workload, utilization = owned(s), s.request.workload, s.request.costs.utilization
    if not cost.is_known:
        return (Entry("usd_output", "$ per 1M output tokens", unknown("$", "; ".join(cost.missing))),)
    state, per_request = s.state, 1 / s.sustainable
    prompt_share = state.prefill_s / state.step_s
    tokens = token_cost(
        cost.usd_per_hour / 3600 / s.replicas, utilization, per_request * prompt_share,
        per_request * (1 - prompt_share), workload.prompt_tokens, workload.output_tokens,
    )  # fmt: skip
    used = f"{utilization:.0%} of the capacity used"
    at_rate = usd_per_million(s.nodes * cost.usd_per_hour, workload.rate * workload.output_tokens, 1.0)
    cheap = Spread(1 / s.rate.high, 1 / s.rate.low)

    def price(key: str, name: str, usd: float, note: str) -> Entry:
        return Entry(key, name, _bounded(usd, "$", "assumed", cheap, note))

    return (
        price("usd_input", "$ per 1M input tokens", tokens.input_usd, f"{used}; {prompt_share:.0%} of device time"),
        price(
            "usd_output", "$ per 1M output tokens", tokens.output_usd, f"{used}; {1 - prompt_share:.0%} of device time"
        ),
        price("usd_blended", "$ per 1M tokens of both", tokens.blended_usd, used),
        price("usd_all_on_output", "$ per 1M output, all cost on it", tokens.all_on_output_usd, used),
        Entry("usd_at_rate", "  the same at the planned rate", Figure(at_rate, "$", "assumed", f"nodes: {s.nodes}")),
    )


def _energy(s: Solution) -> tuple[Entry, ...]:
    costs, rate = s.request.costs, s.sustainable * s.replicas * s.request.workload.output_tokens
    full = node_power(s.request.node, costs)
    if not full.is_known:
        return (Entry("joules_per_token", "energy per output token", full),)
    joules = joules_per_token(full, costs.pue, rate)
    used = mean_power(full, costs.utilization)
    spent = joules_per_token(used, costs.pue, rate * costs.utilization)
    kwh = kwh_per_million(spent)
    return (
        Entry("node_watts", "node at full load", full),
        Entry("joules_per_token", "per output token, full load", joules),
        Entry(
            "kwh_per_million",
            "per 1M output tokens",
            replace(kwh, note=f"{costs.utilization:.0%} used, idle draw included"),
        ),
        Entry(
            "usd_energy", "its price", replace(kwh.scaled(costs.usd_per_kwh, "$"), note=f"${costs.usd_per_kwh:g}/kWh")
        ),
    )


def _break_even(s: Solution) -> tuple[Entry, ...]:
    cost, workload = owned(s), s.request.workload
    if not cost.is_known:
        return ()
    ratio = workload.prompt_tokens / workload.output_tokens
    most = s.sustainable * s.replicas * workload.output_tokens * SECONDS_A_DAY
    return tuple(
        Entry(f"break_even.{api.name}", api.name, _break_even_figure(api, cost.usd_per_hour * 24, ratio, most))
        for api in map(api_named, s.request.apis)
    )


def _break_even_figure(api: ApiPrice, usd_per_day: float, ratio: float, most: float) -> Figure:
    """Bounds: the same at 30 % less and more cost, where both are reached."""

    def at(factor: float) -> tuple[float | None, int]:
        return break_even(lambda n: n * factor * usd_per_day, most, ratio, api.input_usd, api.output_usd)

    (tokens, nodes), low, high = at(1.0), at(0.7)[0], at(1.3)[0]
    prices = f"${api.input_usd:g} in, ${api.output_usd:g} out ({api.date})"
    unit = "M output tokens/day"
    if tokens is None:
        return Figure(math.inf, unit, "assumed", f"a full node makes {most / 1e6:,.0f} M/day; {prices}")
    note = f"{nodes} node{'s' if nodes > 1 else ''} at {tokens / (nodes * most):.0%} of capacity; {prices}"
    bounds = (None, None) if low is None or high is None else (low / 1e6, high / 1e6)
    return Figure(tokens / 1e6, unit, "assumed", note, *bounds)


def _sensitivity(s: Solution) -> tuple[Entry, ...]:
    rate = s.sustainable * s.replicas * s.request.workload.output_tokens

    def price(node: Node, costs: CostInputs, speed: float) -> float:
        return usd_per_million(ownership(node, costs).usd_per_hour, rate * speed, costs.utilization)

    return sensitivity_entries(price, s.request.node, s.request.costs)


def warnings_of(s: Solution) -> tuple[str, ...]:
    today, warnings = date.today(), list(s.warnings)
    for name in s.request.apis:
        api = api_named(name)
        if age_in_days(api.date, today) > STALE_DAYS:
            warnings.append(f"the price of {api.name} is of {api.date}: more than {STALE_DAYS} days old")
    if s.request.apis:
        warnings.append("an open model is not the same product as a frontier API, and APIs sell cached input for less")
    return tuple(warnings)


def sources_of(s: Solution) -> tuple[str, ...]:
    device = s.request.node.device
    rent = f"rent of {device.id}, $/h of one: {device.rent_usd_h_low} to {device.rent_usd_h_high}; {device.rent_note}"
    sources = [f"{device.id} (confidence {device.confidence}): {device.source}"]
    if device.purchase_usd is not None:
        sources.append(f"price of {device.id}: ${device.purchase_usd:,.0f}; {device.purchase_note}")
    if device.rent_usd_h_low is not None:
        sources.append(rent)
    sources += [f"price of {api.name}: {api.date}, {api.source}" for api in map(api_named, s.request.apis)]
    return tuple(sources)
