"""What the host costs, and how that is shared: busy seconds of requests, and the idle rest.

The host's price is split evenly over the models it serves. A model's share accrues all the time; a request costs the
share for as long as its part of the engine's busy time. So requests and idle time make up the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

HOURS_PER_YEAR = 8766.0
MAX_TENANTS = 64  # with figures of their own; later ones are counted together, so that labels stay few
OTHER_TENANTS = "other"
NO_TENANT = "anonymous"


@dataclass(frozen=True, slots=True)
class HostPrice:
    per_hour: float
    currency: str = "USD"

    @property
    def per_second(self) -> float:
        return self.per_hour / 3600


def owned_price_per_hour(purchase: float, years: float, watts: float, price_per_kwh: float) -> float:
    """Of a machine that was bought: written off evenly over `years`, plus its power; in the currency of the prices."""
    return purchase / (years * HOURS_PER_YEAR) + watts / 1000 * price_per_kwh


@dataclass(slots=True)
class TenantFigures:
    num_requests: int = 0
    num_judged: int = 0  # against the SLA
    num_good: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_output_tokens: int = 0
    busy_seconds: float = 0.0


class Tenants:
    """Figures by tenant: of the first MAX_TENANTS, and of all others together."""

    def __init__(self) -> None:
        self.figures: dict[str, TenantFigures] = {}

    def of(self, tenant: str) -> TenantFigures:
        name = tenant or NO_TENANT
        if name not in self.figures and len(self.figures) >= MAX_TENANTS:
            name = OTHER_TENANTS
        return self.figures.setdefault(name, TenantFigures())
