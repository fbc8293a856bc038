"""The curves of one or several results: as an HTML page that needs nothing else, or as PNG through matplotlib."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from inferd.bench.svg import render
from inferd.errors import ConfigError

COLORS = ("#1f6fb4", "#d1495b", "#2e8b57", "#8e5ea2", "#c98a00", "#5f6b6d")
STYLE = """body{font:14px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#222}
svg{width:520px;max-width:100%}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:2px 10px;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}
pre{white-space:pre-wrap;background:#f6f6f6;padding:.6em}"""
COLUMNS = (
    ("load", "load"), ("completed", "done"), ("failed", "failed"), ("request_throughput", "req/s"),
    ("output_throughput", "tok/s"), ("request_goodput", "good/s"), ("median_ttft_ms", "TTFT p50"),
    ("p99_ttft_ms", "TTFT p99"), ("median_itl_ms", "ITL p50"), ("p99_itl_ms", "ITL p99"),
    ("median_e2el_ms", "E2EL p50"), ("p99_e2el_ms", "E2EL p99"), ("p99_lag_ms", "lag p99"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Series:
    name: str
    points: tuple[tuple[float, float], ...]
    color: str
    is_dashed: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]


Named = Sequence[tuple[str, dict[str, Any]]]  # label and document


def runs_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """A sweep has several; the document of one run is that run itself."""
    return list(document.get("runs") or [document])


def load_name(run: dict[str, Any]) -> str:
    """ "4 req/s", "8 clients", "trace" or "all at once"."""
    if run["loop"] == "closed":
        return f"{run['max_concurrency']} clients"
    rate = run["request_rate"]
    return {"inf": "all at once", "trace": "trace"}.get(rate, f"{rate:g} req/s" if isinstance(rate, float) else "")


def panels(results: Named) -> list[Panel]:
    """Latency against throughput, throughput against load, and goodput against load where limits were given."""
    made = [
        _panel("Time to first token against throughput", results, _throughput, "output tokens/s", "ms", "ttft"),
        _panel("Time between tokens against throughput", results, _throughput, "output tokens/s", "ms", "itl"),
        _panel("End-to-end latency against throughput", results, _throughput, "output tokens/s", "ms", "e2el"),
        _against_load("Throughput against load", results, "output_throughput", "output tokens/s"),
        _against_load("Goodput against load", results, "request_goodput", "requests/s within every limit"),
    ]
    return [panel for panel in made if panel.series]


def _throughput(run: dict[str, Any]) -> float:
    return float(run["output_throughput"])


def _panel(title: str, results: Named, x: Any, x_label: str, y_label: str, metric: str) -> Panel:
    series = []
    for number, (label, document) in enumerate(results):
        for key, words, dashed in ((f"median_{metric}_ms", "p50", False), (f"p99_{metric}_ms", "p99", True)):
            points = tuple((x(run), run[key]) for run in runs_of(document) if run.get(key) is not None)
            if points:
                series.append(Series(f"{label} {words}".strip(), points, COLORS[number % len(COLORS)], dashed))
    return Panel(title, x_label, y_label, tuple(series))


def _against_load(title: str, results: Named, key: str, y_label: str) -> Panel:
    """Against the request rate of open loops, else against the clients of closed ones."""
    all_runs = [run for _, document in results for run in runs_of(document)]
    is_open = any(isinstance(run["request_rate"], float) for run in all_runs)
    field, x_label = ("request_rate", "requests/s sent") if is_open else ("max_concurrency", "clients")
    series = []
    for number, (label, document) in enumerate(results):
        runs = [run for run in runs_of(document) if isinstance(run.get(field), int | float)]
        points = tuple((float(run[field]), run[key]) for run in runs if run.get(key) is not None)
        if points:
            series.append(Series(label, points, COLORS[number % len(COLORS)]))
    if key == "request_goodput" and series and is_open:
        most = max(x for one in series for x, _ in one.points)
        series.append(Series("sent", ((0.0, 0.0), (most, most)), "#999", is_dashed=True))
    return Panel(title, x_label, y_label, tuple(series))


def write(path: Path, results: Named) -> None:
    """By the ending: .html or .png. Raises ConfigError for another one, or for PNG without matplotlib."""
    if path.suffix == ".html":
        path.write_text(page(results), "utf-8")
    elif path.suffix == ".png":
        _write_png(path, panels(results))
    else:
        raise ConfigError(f"plot must be a file that ends with .html or .png, got {path}")


def check(path: Path) -> None:
    """Raises ConfigError where `write` would: before an hour of measuring, not after it."""
    if path.suffix == ".png":
        _matplotlib()
    elif path.suffix != ".html":
        raise ConfigError(f"plot must be a file that ends with .html or .png, got {path}")
    if not path.parent.is_dir():
        raise ConfigError(f"plot must be in a folder that exists, got {path}")


def page(results: Named) -> str:
    parts = [f"<!doctype html><meta charset='utf-8'><title>inferd bench</title><style>{STYLE}</style>"]
    parts += ["<h1>inferd bench serve</h1>", *(render(panel) for panel in panels(results))]
    for label, document in results:
        parts.append(f"<h2>{html.escape(label or document.get('url', ''))}</h2>{_table(runs_of(document))}")
        parts.append(f"<pre>{html.escape(_origin(document))}</pre>")
    return "\n".join(parts) + "\n"


def _table(runs: list[dict[str, Any]]) -> str:
    head = "".join(f"<th>{name}</th>" for _, name in COLUMNS)
    rows = "".join(
        "<tr>"
        + "".join(f"<td>{html.escape(_cell({**run, 'load': load_name(run)}[key]))}</td>" for key, _ in COLUMNS)
        + "</tr>"
        for run in runs
    )
    return f"<table><tr>{head}</tr>{rows}</table><p>Latencies in milliseconds.</p>"


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def _origin(document: dict[str, Any]) -> str:
    machine = document.get("machine", {})
    lines = [
        str(document.get("command", "")),
        f"{document.get('date')}  {document.get('url')}  model {document.get('model_id')}",
        f"generator: inferd {document.get('inferd_version')} on {machine.get('cpu')}, {machine.get('cores')} cores; "
        f"server version {document.get('server_version') or 'unknown'}",
    ]
    return "\n".join(lines)


def _matplotlib() -> Any:
    try:
        matplotlib = import_module("matplotlib")
    except ImportError:
        raise ConfigError("plot: PNG needs matplotlib (pip install matplotlib); .html needs nothing") from None
    matplotlib.use("agg")
    return import_module("matplotlib.figure")


def _write_png(path: Path, made: list[Panel]) -> None:
    num_rows = (len(made) + 1) // 2
    figure = _matplotlib().Figure(figsize=(12, 4 * num_rows), layout="constrained")
    for number, panel in enumerate(made, 1):
        axes = figure.add_subplot(num_rows, 2, number)
        for series in panel.series:
            line = "--" if series.is_dashed else "-"
            x, y = zip(*series.points, strict=True)
            axes.plot(x, y, line, color=series.color, label=series.name, marker="o", markersize=4)
        axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label, ylim=(0, None), xlim=(0, None))
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
