"""A41 to A46: the article's cost of ownership, line by line, and its power."""

from __future__ import annotations

from inferd.planner.article.tools import HOURS, TCO_USD, Computed, Rule, chosen, factors, point
from inferd.planner.hardware import device_named
from inferd.planner.tables import Row, read_table

LINES = {  # $, low and high, over 36 months
    "server": (287e3, 420e3), "network": (15e3, 35e3), "power": (8e3, 18e3), "cooling": (12e3, 45e3),
    "electricity": (28e3, 52e3), "staff": (3 * 40e3, 3 * 80e3),
}  # fmt: skip
HOST_USD = (50e3, 80e3)  # of an 8-GPU server; street prices of mid-2026
GPU_USD = (30e3, 35e3)
PUE = 1.3


def sums() -> tuple[float, float]:
    return sum(low for low, _ in LINES.values()), sum(high for _, high in LINES.values())


def total() -> Computed:
    low, high = sums()
    off = TCO_USD[0] / low - 1, TCO_USD[1] / high - 1
    follows = max(map(abs, off)) <= 0.02
    verdict = (
        "HOLDS" if follows else f"Range does NOT follow from its lines (low end {off[0]:+.0%}, high end {off[1]:+.0%})"
    )
    return Computed(f"the lines add up to ${low:,.0f} to ${high:,.0f}", verdict)


def hardware_share() -> Computed:
    shares = [server / whole for server, whole in zip(LINES["server"], sums(), strict=True)]
    inside = [0.55 <= share <= 0.65 for share in shares]
    verdict = {
        (True, True): "HOLDS", (True, False): "HOLDS roughly at the low end only",
        (False, True): "HOLDS roughly at the high end only", (False, False): "WRONG",
    }[inside[0], inside[1]]  # fmt: skip
    return Computed(f"{shares[0]:.0%} and {shares[1]:.0%} of the sum of the lines", verdict)


def electricity() -> Computed:
    bare = 5 * HOURS * 0.10, 8 * HOURS * 0.18
    cooled = bare[0] * PUE, bare[1] * PUE
    low, high = LINES["electricity"]
    high_end = abs(high / cooled[1] - 1) < 0.06
    off = low / cooled[0], low / bare[0]
    verdict = chosen((
        (high_end, f"High end HOLDS with PUE {PUE}"), (off[0] > 1.1, f"low end WRONG by {factors(off[0], off[1], 1)}"),
    ))  # fmt: skip
    numbers = f"${bare[0]:,.0f} to ${bare[1]:,.0f}, with PUE {PUE} ${cooled[0]:,.0f} to ${cooled[1]:,.0f}"
    return Computed(numbers, verdict)


def _wall(card: str) -> list[float]:
    """Watts of 8-GPU nodes at the wall."""
    rows = [r for r in read_table("validation_points") if r["hardware"].startswith(card) and "wall" in r["watt_scope"]]
    return sorted(float(row["watts"]) for row in rows if row["n_accel"] == "8")


def rack_power() -> Computed:
    h200, b200 = _wall("H200"), _wall("B200")
    verdict = chosen((
        (all(5000 <= watts <= 8000 for watts in h200), "HOLDS for a capped H200 node"),
        (b200[0] > 8000, f"WRONG for B200 by {factors(b200[0] / 8000, b200[-1] / 8000, 1)}"),
    ))  # fmt: skip
    return Computed(
        f"8x H200 capped {h200[0]:,.0f} to {h200[-1]:,.0f} W, 8x B200 {b200[0]:,.0f} to {b200[-1]:,.0f} W", verdict
    )


def _is_dense_70b(row: Row) -> bool:
    return "Llama-3.1-70B" in row["model"] and row["gpu"] == "H100"


def joules() -> Computed:
    claimed = 8 * 680 / 2800
    wall = float(point("MLP-007")["watts"]) / float(point("MLP-007")["tok_s"])
    cards = min(float(row["Jtok"]) for row in read_table("validation_mlenergy_llm_full") if _is_dense_70b(row))
    worse = sorted((claimed / wall, claimed / cards))
    verdict = f"{factors(worse[0], worse[1])} worse than published" if worse[0] > 1.1 else "HOLDS"
    numbers = f"{claimed:.2f} J/token; MLPerf {wall:.3f} at the wall, ML.ENERGY {cards:.2f} of the GPUs"
    return Computed(numbers, verdict)


def server_price() -> Computed:
    low, high = (8 * gpu + host for gpu, host in zip(GPU_USD, HOST_USD, strict=True))
    catalogue = [device_named(name).purchase_usd for name in ("h100-sxm", "h200-sxm")]
    claimed = LINES["server"]
    holds = claimed[0] <= low and high <= claimed[1] and catalogue == list(GPU_USD)
    return Computed(f"${low:,.0f} to ${high:,.0f}", "HOLDS (rough street prices)" if holds else "WRONG")


RULES: dict[str, Rule] = {
    "A41": total, "A42": hardware_share, "A43": electricity, "A44": rack_power, "A45": joules, "A46": server_price,
}  # fmt: skip
