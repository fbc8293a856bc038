"""One panel of curves as SVG."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inferd.bench.plots import Panel, Series

WIDTH, HEIGHT = 520, 340
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 34, 46
LEGEND_LINE = 16


def ticks(most: float, about: int = 5) -> list[float]:
    """0 and the multiples of 1, 2 or 5 times a power of ten, up to the first at or above `most`."""
    if most <= 0:
        return [0.0, 1.0]
    rough = most / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [step * number for number in range(math.ceil(most / step * 0.999) + 1)]


def render(panel: Panel) -> str:
    points = [point for series in panel.series for point in series.points]
    x_ticks, y_ticks = ticks(max(x for x, _ in points)), ticks(max(y for _, y in points))
    height = HEIGHT + LEGEND_LINE * len(panel.series)

    def at(x: float, y: float) -> tuple[float, float]:
        right, down = x / x_ticks[-1], y / y_ticks[-1]
        return LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - down * (HEIGHT - TOP - BOTTOM)

    parts = [f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' font-size='12'>"]
    parts.append(_text(WIDTH / 2, 18, panel.title, "middle", "font-weight='bold'"))
    for x in x_ticks:
        left, bottom = at(x, 0)
        parts.append(_text(left, bottom + 18, f"{x:g}", "middle"))
    for y in y_ticks:
        left, top = at(0, y)
        parts.append(
            f"<path d='M{LEFT} {top:.1f}H{WIDTH - RIGHT}' stroke='#ddd'/>" + _text(left - 6, top + 4, f"{y:g}", "end")
        )
    parts.append(_text(WIDTH / 2, HEIGHT - 8, panel.x_label, "middle"))
    parts.append(_text(0, 0, panel.y_label, "middle", f"transform='translate(14 {HEIGHT / 2}) rotate(-90)'"))
    for number, series in enumerate(panel.series):
        places = [at(x, y) for x, y in series.points]
        parts.append(_curve(places, series) + _legend(number, series))
    return "".join(parts) + "</svg>"


def _curve(places: list[tuple[float, float]], series: Series) -> str:
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dots = "".join(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{series.color}'/>" for x, y in places)
    return f"<path d='{path}' fill='none' stroke='{series.color}' stroke-width='2'{_dash(series)}/>{dots}"


def _legend(number: int, series: Series) -> str:
    y = HEIGHT + LEGEND_LINE * number + 4
    line = f"<path d='M{LEFT} {y}h24' stroke='{series.color}' stroke-width='2'{_dash(series)}/>"
    return line + _text(LEFT + 32, y + 4, series.name, "start")


def _dash(series: Series) -> str:
    return " stroke-dasharray='6 4'" if series.is_dashed else ""


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' {more}>{html.escape(text)}</text>"
