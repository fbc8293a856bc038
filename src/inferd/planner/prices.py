"""API and rental prices with their dates, and which of them are old."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from inferd.planner.tables import choose, number, read_table

STALE_DAYS = 90


@dataclass(frozen=True, slots=True)
class ApiPrice:
    """US dollars for 1M tokens on `date` (a month or a day)."""

    name: str
    input_usd: float
    output_usd: float
    date: str
    source: str


def api_prices() -> dict[str, ApiPrice]:
    found = {}
    for row in read_table("prices"):
        price, billed = number(row, "output_usd_per_m"), number(row, "input_usd_per_m")
        if row["kind"] == "api" and price is not None and billed is not None:
            found[row["item"]] = ApiPrice(row["item"], billed, price, row["date"], row["source"])
    return found


def api_named(name: str) -> ApiPrice:
    """By full name, or by its last part. Raises ConfigError with near matches."""
    prices = api_prices()
    short = {key.rpartition("/")[2].lower(): price for key, price in prices.items()}
    return prices[name] if name in prices else choose("api", name.lower(), short)


def age_in_days(text: str, today: date) -> int:
    """Of "2026-11" or "2026-11-09"; a month counts from its last day, but never from the future."""
    year, month, *day = (int(part) for part in text.split("-"))
    if day:
        return (today - date(year, month, day[0])).days
    following = date(year + month // 12, month % 12 + 1, 1)
    return max(0, (today - following).days)
