"""Bars of tokens per second per engine, with inferd's share of the machine's limits: one SVG, no library."""

from __future__ import annotations

from typing import Any

COLOURS = {"inferd": "#1f6feb", "llamacpp": "#8c8c8c", "openvino": "#c9a227", "ctranslate2": "#6b9a5b"}
FIGURES = {"prefill_512": "prefill 512", "decode_1": "decode 1", "decode_8": "decode 8", "decode_32": "decode 32"}
WIDTH, ROW, LEFT, BAR = 860, 17, 190, 480


def roofline(models: dict[str, Any]) -> str:
    """models: compare() of peers.py by model name."""
    y, parts = 24, []
    for name, figures in models.items():
        parts.append(_text(10, y, name, bold=True))
        own = figures["tok_s"]["inferd"]
        shares = {
            "prefill_512": f"{100 * own['prefill_share_of_int8_peak']:.0f} % of the int8 peak",
            "decode_1": f"{100 * own['decode_1_share_of_read_bandwidth']:.0f} % of the read bandwidth",
        }
        for key, label in FIGURES.items():
            rates = {engine: rates[key] for engine, rates in figures["tok_s"].items()}
            most = max(rates.values())
            for engine, rate in rates.items():
                y += ROW
                size = BAR * rate / most
                parts.append(_text(20, y, f"{label} · {engine}"))
                colour = COLOURS.get(engine, "#999999")
                parts.append(f'<rect x="{LEFT}" y="{y - 11}" width="{size:.1f}" height="13" fill="{colour}"/>')
                note = f" tok/s, {shares[key]}" if engine == "inferd" and key in shares else " tok/s"
                parts.append(_text(LEFT + size + 6, y, f"{rate:.0f}{note}"))
            y += 8
        y += 2 * ROW
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}"'
    style = 'font-family="sans-serif" font-size="12">'
    return "\n".join([f"{head} {style}", '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>", ""])


def _text(x: float, y: float, text: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y}"{weight}>{text}</text>'
