"""What the kernel says of the processor."""

from __future__ import annotations

import platform


def cpuinfo(key: str) -> str:
    """The value of the first line of /proc/cpuinfo with that key; "" when there is none."""
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() == key:
                    return value.strip()
    except OSError:
        pass
    return ""


def cpu_model() -> str:
    return cpuinfo("model name") or platform.processor() or platform.machine()
