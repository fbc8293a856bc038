"""Where and when a measurement was made: what a figure means nothing without."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib.metadata import version
from typing import Any

from inferd.machine import cpu_model


def provenance() -> dict[str, Any]:
    """Time, command, versions and the machine this process runs on."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": " ".join(["inferd", *_without_keys(sys.argv[1:])]),
        "inferd_version": version("inferd"),
        "python_version": platform.python_version(),
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "host": platform.node(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": os.getloadavg()[0],  # of the minute before
    }


def _without_keys(arguments: list[str]) -> list[str]:
    """A report is passed on: no secret belongs in it."""
    shown = []
    secret = False
    for argument in arguments:
        shown.append("***" if secret else argument)
        secret = argument in ("--api-key", "--header")
    return [f"{a.partition('=')[0]}=***" if a.startswith(("--api-key=", "--header=")) else a for a in shown]
