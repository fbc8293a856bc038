"""Runs a command against a server of its own, whose URL becomes the last argument: with_server.py COMMAND..."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from common import server


def main() -> int:
    with server("smollm2") as (url, _):
        return subprocess.run([*sys.argv[1:], url], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
