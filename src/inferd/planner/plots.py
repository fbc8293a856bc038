"""Plots of a report; matplotlib is an optional extra, so it is imported here only when one is drawn."""

from __future__ import annotations

from pathlib import Path

from inferd.errors import ConfigError
from inferd.planner.report import Report

FORMATS = (".png", ".svg", ".pdf")


def plot_report(report: Report, path: Path) -> None:
    """Cost by line, and the sensitivity of the token price. Raises ImportError without matplotlib, ConfigError on a
    suffix other than FORMATS."""
    if path.suffix not in FORMATS:
        raise ConfigError(f"plot must end in {', '.join(FORMATS)}, got {path.name!r}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # type: ignore[import-not-found,unused-ignore]
    from matplotlib.figure import Figure as Canvas  # type: ignore[import-not-found,unused-ignore]

    canvas = Canvas(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(canvas)
    left, right = canvas.subplots(1, 2)
    lines = [e for e in report.entries() if e.key.startswith("cost.") and e.figure.is_known]
    left.barh([e.name for e in lines], [e.figure.value / 1e3 for e in lines])
    left.invert_yaxis()
    left.set_xlabel("thousand $ over the term, one node")
    swings = [e for e in report.entries() if e.key.startswith("sensitivity.")]
    for row, entry in enumerate(swings):
        low, high = entry.figure.low or 0.0, entry.figure.high or 0.0
        right.barh(row, high - low, left=low, color="tab:orange")
    right.set_yticks(range(len(swings)), [e.name for e in swings])
    right.invert_yaxis()
    right.set_xlim(left=0)
    right.set_xlabel("$ per 1M output tokens, all cost on output")
    canvas.suptitle(report.heading, fontsize=9)
    canvas.savefig(path, dpi=150)
