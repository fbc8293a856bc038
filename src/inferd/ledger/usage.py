"""The usage of every request, and the time of the host: what a bill is made of.

The cost of all rows of a span of time, requests and idle, is the host's price for that time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferd.ledger.database import Ledger, reading
from inferd.metrics.model import HostPeriod
from inferd.metrics.requests import RequestRecord

_REQUEST_COLUMNS = {
    "id": "TEXT NOT NULL",
    "model": "TEXT NOT NULL",
    "tenant": "TEXT NOT NULL",
    "arrival": "REAL NOT NULL",  # seconds since 1970, as every time of day here
    "finish_reason": "TEXT NOT NULL",
    "num_prompt_tokens": "INTEGER NOT NULL",
    "num_cached_tokens": "INTEGER NOT NULL",
    "num_output_tokens": "INTEGER NOT NULL",
    "num_preemptions": "INTEGER NOT NULL",
    "queue": "REAL",
    "prefill": "REAL",
    "decode": "REAL",
    "ttft": "REAL",
    "tpot": "REAL",
    "e2e": "REAL NOT NULL",
    "busy": "REAL NOT NULL",
    "is_good": "INTEGER",
    "cost": "REAL",
    "currency": "TEXT NOT NULL",
}
_PERIOD_COLUMNS = {
    "model": "TEXT NOT NULL",
    "begin": "REAL NOT NULL",
    "seconds": "REAL NOT NULL",
    "busy": "REAL NOT NULL",
    "per_hour": "REAL NOT NULL",
    "currency": "TEXT NOT NULL",
}


def _table(name: str, columns: dict[str, str]) -> str:
    return f"CREATE TABLE IF NOT EXISTS {name} ({', '.join(f'{column} {kind}' for column, kind in columns.items())})"


def _insert(name: str, columns: dict[str, str]) -> str:
    return f"INSERT INTO {name} VALUES ({', '.join('?' for _ in columns)})"


TABLES = (
    _table("request", _REQUEST_COLUMNS),
    _table("host_period", _PERIOD_COLUMNS),
    "CREATE INDEX IF NOT EXISTS request_arrival ON request (arrival)",
)
_ADD_REQUEST = _insert("request", _REQUEST_COLUMNS)
_ADD_PERIOD = _insert("host_period", _PERIOD_COLUMNS)


class UsageLedger:
    """Listener of a Recorder."""

    def __init__(self, path: Path, currency: str) -> None:
        self._ledger = Ledger(path, TABLES)
        self._currency = currency

    def add_request(self, record: RequestRecord) -> None:
        first = {"id": record.info.id, "tenant": record.info.tenant, "currency": self._currency}
        values = tuple(first[name] if name in first else getattr(record, name) for name in _REQUEST_COLUMNS)
        self._ledger.write(_ADD_REQUEST, values)

    def add_period(self, period: HostPeriod) -> None:
        values = (period.model, period.begin, period.seconds, period.busy, period.per_hour, self._currency)
        self._ledger.write(_ADD_PERIOD, values)

    def close(self) -> None:
        self._ledger.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """One line of the export: a request, or the idle time of a model in one period."""

    kind: str  # request or idle
    id: str = ""
    model: str
    tenant: str = ""
    begin: float
    finish_reason: str = ""
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_output_tokens: int = 0
    ttft: float | None = None
    e2e: float | None = None
    seconds: float  # busy seconds of a request, idle seconds of a period
    cost: float | None
    currency: str


def usage_rows(path: Path, since: float, until: float) -> Iterator[UsageRow]:
    """What began in [since, until), seconds since 1970: requests in the order of their arrival, then idle time."""
    names = ("id", "model", "tenant", "finish_reason", "num_prompt_tokens", "num_cached_tokens", "num_output_tokens",
             "ttft", "e2e", "cost", "currency")  # fmt: skip
    span = (since, until)
    with reading(path) as connection:
        for begin, busy, *values in connection.execute(
            f"SELECT arrival, busy, {', '.join(names)} FROM request WHERE arrival >= ? AND arrival < ? "
            "ORDER BY arrival, rowid",
            span,
        ):
            own: dict[str, Any] = dict(zip(names, values, strict=True))
            yield UsageRow(kind="request", begin=begin, seconds=busy, **own)
        for model, begin, seconds, busy, per_hour, currency in connection.execute(
            "SELECT model, begin, seconds, busy, per_hour, currency FROM host_period "
            "WHERE begin >= ? AND begin < ? ORDER BY begin, rowid",
            span,
        ):
            cost = (seconds - busy) * per_hour / 3600
            yield UsageRow(kind="idle", model=model, begin=begin, seconds=seconds - busy, cost=cost, currency=currency)


@dataclass(slots=True)
class UsageSum:
    """Of the requests of one tenant on one model, or of a model's idle time."""

    num_requests: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_output_tokens: int = 0
    seconds: float = 0.0
    cost: float = 0.0

    def add(self, row: UsageRow) -> None:
        self.num_requests += row.kind == "request"
        self.num_prompt_tokens += row.num_prompt_tokens
        self.num_cached_tokens += row.num_cached_tokens
        self.num_output_tokens += row.num_output_tokens
        self.seconds += row.seconds
        self.cost += row.cost or 0.0


def usage_sums(path: Path, since: float, until: float) -> dict[tuple[str, str, str, str], UsageSum]:
    """(kind, model, tenant, currency) -> the sum of its rows."""
    sums: dict[tuple[str, str, str, str], UsageSum] = {}
    for row in usage_rows(path, since, until):
        sums.setdefault((row.kind, row.model, row.tenant, row.currency), UsageSum()).add(row)
    return sums
