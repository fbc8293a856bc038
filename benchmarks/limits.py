"""What this machine can do at most: builds and runs machine.cpp. limits.py prints it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("machine.cpp")


def limits() -> dict[str, float]:
    """threads, int8_tops[_1] (10^12 operations/s, a multiply and an add are two), read_gb_s[_1]; _1: one thread."""
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "machine")
        options = ["-O3", "-std=c++20", "-march=native", "-pthread", "-o", program]
        subprocess.run(["g++", *options, str(SOURCE)], check=True)
        figures: dict[str, float] = json.loads(subprocess.run([program], check=True, capture_output=True).stdout)
        return figures


if __name__ == "__main__":
    print(json.dumps(limits(), indent=2))
