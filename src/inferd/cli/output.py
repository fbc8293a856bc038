"""What commands print: facts as JSON or aligned text, sizes, and the progress of a pull."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import click

Progress = Callable[[str, int, int], None]  # what, bytes done, bytes in all


class Failure(click.ClickException):
    """One line on stderr; exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"error: {self.format_message()}", err=True)


class Misuse(Failure):
    """The command was called in a way it cannot be."""

    exit_code = 2


def print_json(facts: Any) -> None:
    click.echo(json.dumps(facts, indent=2))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell, so that a pipe gets whole paths; numbers stand to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    is_number = [all(row[i][:1].isdigit() or row[i] == "-" for row in rows) for i in range(len(header))]
    for row in (header, *rows):
        cells = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        click.echo(f"{name.ljust(width)}  {value}")


def format_bytes(num_bytes: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(num_bytes) < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"


def format_count(number: int) -> str:
    """134515008 -> "134.5 M"."""
    for limit, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= limit:
            return f"{number / limit:.1f} {unit}"
    return str(number)


@contextmanager
def pull_progress(name: str) -> Iterator[Progress]:
    """A bar on a terminal, one line for each part elsewhere; on stderr, since stdout may be read by a program."""
    if not sys.stderr.isatty():
        yield _line_progress(name)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
    with Bar(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(f"pulling {name}", total=None)
        yield lambda what, done, total: bar.update(
            task, description=f"pulling {name}: {what}", completed=done, total=total
        )


def _line_progress(name: str) -> Progress:
    def show(what: str, done: int, total: int) -> None:
        click.echo(f"pulling {name}: {what} ({format_bytes(done)} of {format_bytes(total)})", err=True)

    return show
