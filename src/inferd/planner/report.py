"""Report: the figures of a plan, as text, Markdown and JSON. Every figure carries its label to the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from inferd.planner.figure import Figure
from inferd.planner.memory import MemoryPlan


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a report: `key` is stable, `name` is for people."""

    key: str
    name: str
    figure: Figure


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `plan` found. report["goodput"] is the figure of that key; KeyError when the plan has none."""

    model: str
    hardware: str
    precision: str
    kv_precision: str
    tp: int
    replicas: int  # of one node
    nodes: int
    memory: MemoryPlan
    sections: tuple[Section, ...]
    warnings: tuple[str, ...]
    sources: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return self.memory.fits

    def __getitem__(self, key: str) -> Figure:
        return next((e.figure for e in self.entries() if e.key == key), None) or _raise(key)

    def get(self, key: str) -> Figure | None:
        return next((e.figure for e in self.entries() if e.key == key), None)

    def entries(self) -> Iterator[Entry]:
        for section in self.sections:
            yield from section.entries

    @property
    def heading(self) -> str:
        fleet = f"{self.nodes} x ({self.hardware})" if self.nodes > 1 else self.hardware
        layout = f"TP{self.tp}, {self.replicas} replica{'s' if self.replicas > 1 else ''} a node"
        return f"{self.model} in {self.precision}, KV in {self.kv_precision}, on {fleet}: {layout}"

    def text(self) -> str:
        """Aligned columns: name, value, label, note."""
        lines = [self.heading]
        for section in self.sections:
            rows = [(e.name, e.figure.text(), e.figure.label, e.figure.note) for e in section.entries]
            widths = [max(len(row[i]) for row in rows) for i in range(3)]
            lines += ["", section.title]
            lines += [
                "  " + "  ".join([*(c.ljust(w) for c, w in zip(r, widths, strict=False)), r[3]]).rstrip() for r in rows
            ]
        lines += _listed("Warnings", self.warnings) + _listed("Sources", self.sources)
        return "\n".join(lines)

    def markdown(self) -> str:
        lines = [f"# {self.heading}"]
        for section in self.sections:
            rows = [(e.name, e.figure.text(), e.figure.label, e.figure.note) for e in section.entries]
            lines += ["", f"## {section.title}", "", markdown_table(("figure", "value", "label", "note"), rows)]
        for title, items in (("Warnings", self.warnings), ("Sources", self.sources)):
            if items:
                lines += ["", f"## {title}", "", *(f"- {item}" for item in items)]
        return "\n".join(lines) + "\n"

    def facts(self) -> dict[str, Any]:
        """For JSON: no NaN in it; an unknown value is null."""
        return {
            "model": self.model,
            "hardware": self.hardware,
            "precision": self.precision,
            "kv_precision": self.kv_precision,
            "tp": self.tp,
            "replicas": self.replicas,
            "nodes": self.nodes,
            "fits": self.fits,
            "figures": {entry.key: figure_facts(entry.figure) for entry in self.entries()},
            "warnings": list(self.warnings),
            "sources": list(self.sources),
        }


def _raise(key: str) -> Figure:
    raise KeyError(key)


def figure_facts(figure: Figure) -> dict[str, Any]:
    def finite(value: float | None) -> float | None:
        return None if value is None or not math.isfinite(value) else value

    facts: dict[str, Any] = {"value": finite(figure.value), "unit": figure.unit, "label": figure.label}
    if figure.low is not None or figure.high is not None:
        facts |= {"low": finite(figure.low), "high": finite(figure.high)}
    return facts | ({"note": figure.note} if figure.note else {})


def _listed(title: str, items: Sequence[str]) -> list[str]:
    return ["", title, *(f"  - {item}" for item in items)] if items else []


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


COMPARED = (
    ("pool_requests", "requests held"),
    ("goodput", "goodput req/s"),
    ("node_rate", "tok/s"),
    ("ttft_p99", "TTFT p99 s"),
    ("tpot_p99", "TPOT p99 ms"),
    ("usd_per_hour", "$/h"),
    ("usd_output", "$/1M out"),
    ("usd_input", "$/1M in"),
    ("joules_per_token", "J/token"),
)


def comparison(reports: Sequence[Report]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows, one report a row; figures of one node. "-" where a figure is unknown or nothing fits."""
    header = ("hardware", "layout", *(title for _, title in COMPARED))
    rows = []
    for report in reports:
        layout = f"TP{report.tp} x{report.replicas}" if report.fits else "does not fit"
        cells = [figure_cell(report.get(key)) for key, _ in COMPARED]
        rows.append((report.hardware, layout, *cells))
    return header, rows


def figure_cell(figure: Figure | None) -> str:
    if figure is None or not figure.is_known:
        return "-"
    return figure.text().partition(" ")[0]
