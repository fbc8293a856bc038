"""The parts of a step, each alone: matrix products of the three models' shapes, attention, fork and join of the pool,
beside the machine's limits. micro.py [--rows 1,8,12,32,96,512] builds the native programs and runs them.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from common import report
from limits import limits

ROOT = Path(__file__).parents[1]
PROGRAMS = ("bench_gemm", "bench_attention", "bench_pool")


def build(folder: Path) -> None:
    subprocess.run(["cmake", "-S", ROOT, "-B", folder, "-DINFERD_NATIVE_TESTS=ON"], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", folder, "-j2", "--target", *PROGRAMS], check=True, capture_output=True)


def rows_of(program: Path, pattern: str, *args: str) -> list[dict[str, Any]]:
    """The named groups of every line of the program's output that fits; numbers as numbers."""
    text = subprocess.run([program, *args], check=True, capture_output=True, text=True).stdout
    found = [match.groupdict() for match in re.finditer(pattern, text)]
    if not found:
        raise RuntimeError(f"{program.name} printed nothing that was expected: {text[:200]}")
    return [{key: value if key == "shape" else float(value) for key, value in row.items() if value} for row in found]


GEMM = (
    r"(?P<shape>\S.*?) +m +(?P<rows>\d+) +(?P<us>[\d.]+) us +(?P<gops>[\d.]+) GOPS +(?P<gb_s>[\d.]+) GB/s"
    r"(?: +(?P<percent_of_peak>[\d.]+) % of peak (?P<peak_gops>\d+))?"
)
ATTENTION = (
    r"rows +(?P<rows>\d+) dim +(?P<dim>\d+) keys +(?P<keys>\d+) +(?P<gmac_s>[\d.]+) G/s"
    r"(?: +(?P<percent_of_peak>[\d.]+) % of the port peak)? +(?P<gb_s>[\d.]+) GB/s"
)
POOL = r"threads (?P<threads>\d+) pieces +(?P<pieces>\d+) of (?P<piece_us>\d+) us +(?P<us>[\d.]+) us"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="1,8,12,32,96,512")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder)
        figures = {
            "limits": limits(),
            "gemm_one_thread": rows_of(folder / "bench_gemm", GEMM, args.rows),
            "attention_one_thread": rows_of(folder / "bench_attention", ATTENTION),
            "pool": rows_of(folder / "bench_pool", POOL),
        }
    report("micro", figures)


if __name__ == "__main__":
    main()
