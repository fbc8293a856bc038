"""Writes docs/reference/compatibility.md from what a server with smollm2 and minilm answers."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]


def main() -> None:
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]
    from common import server

    from compat import pairs, probes
    from compat.document import rendered

    with server("smollm2", "minilm") as (url, _), httpx.Client(base_url=url, timeout=60) as client:
        text = rendered(probes.table(client), asyncio.run(pairs.table(url)))
    (ROOT / "docs" / "reference" / "compatibility.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
