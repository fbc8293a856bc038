"""inferd usage: what the ledger knows of requests and idle time, as a table, JSON or CSV."""

from __future__ import annotations

import csv
import math
import time
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import IO

import click

from inferd.cli.options import json_option
from inferd.cli.output import format_count, print_json, print_table
from inferd.ledger.database import ledger_path
from inferd.ledger.usage import UsageRow, UsageSum, usage_rows, usage_sums


class Day(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A day or a moment as ISO 8601 writes it; UTC where it names no zone. Becomes seconds since 1970."""

    name = "date"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no date: write 2026-11-25, or 2026-11-25T12:00+01:00", param, ctx)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


_since = click.option("--since", type=Day(), metavar="DATE", help="Only what began at this day or moment, or later.")
_until = click.option("--until", type=Day(), metavar="DATE", help="Only what began before this day or moment.")


@click.group()
def usage() -> None:
    """What requests used and cost, by the ledger that `inferd serve` keeps."""


@usage.command()
@_since
@_until
@click.option("--output", "file", type=click.File("w", encoding="utf-8", lazy=False), default="-", show_default=True,
              metavar="FILE", help="Where the CSV goes; - is standard output.")  # fmt: skip
def export(since: float | None, until: float | None, file: IO[str]) -> None:
    """Write one CSV line for every request, and one for every stretch of idle time.

    The costs of all lines of a time add up to the host's price for it.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(field.name for field in fields(UsageRow))
    for row in usage_rows(ledger_path(), *_span(since, until)):
        values = asdict(row) | {"begin": datetime.fromtimestamp(row.begin, UTC).isoformat(timespec="milliseconds")}
        writer.writerow("" if value is None else value for value in values.values())


@usage.command()
@_since
@_until
@json_option
def show(since: float | None, until: float | None, as_json: bool) -> None:
    """Print the sums by model and tenant, with idle time apart."""
    sums = usage_sums(ledger_path(), *_span(since, until))
    if as_json:
        names = ("kind", "model", "tenant", "currency")
        print_json([{**dict(zip(names, key, strict=True)), **asdict(total)} for key, total in sums.items()])
        return
    header = ("what", "model", "tenant", "requests", "prompt", "cached", "output", "seconds", "cost")
    print_table(header, [_line(key, total) for key, total in sums.items()])


def _line(key: tuple[str, str, str, str], total: UsageSum) -> list[str]:
    kind, model, tenant, currency = key
    tokens = (total.num_prompt_tokens, total.num_cached_tokens, total.num_output_tokens)
    counts = [str(total.num_requests), *map(format_count, tokens)] if kind == "request" else ["-"] * 4
    return [kind, model, tenant or "-", *counts, f"{total.seconds:.1f}", f"{total.cost:.6f} {currency}"]


def _span(since: float | None, until: float | None) -> tuple[float, float]:
    return since or -math.inf, time.time() if until is None else until
