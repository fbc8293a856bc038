"""Sizes and durations as people write them."""

from __future__ import annotations

import re

from inferd.errors import ConfigError

_BYTES = {"": 1, "B": 1} | {
    prefix + unit: base**power
    for base, unit, prefixes in ((1024, "iB", "KMGT"), (1000, "B", "kMGT"))
    for power, prefix in enumerate(prefixes, 1)
}
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)")


def parse_bytes(text: str) -> int:
    """A count of bytes, also as 512MiB or 2GB. Raises ConfigError."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None or match[2] not in _BYTES:
        units = ", ".join(unit for unit in _BYTES if len(unit) > 1)
        raise ConfigError(f"{text!r} is no size: write bytes, or a number with one of {units}")
    return int(float(match[1]) * _BYTES[match[2]])


def parse_seconds(text: str) -> float:
    """Seconds, also as 250ms, 5m, 2h or 1h30m. Raises ConfigError."""
    parts = re.findall(r"(\d+(?:\.\d+)?) ?(ms|[smhd]?)", text.strip())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip().replace(" ", ""):
        raise ConfigError(f"{text!r} is no duration: write seconds, or numbers with one of ms, s, m, h, d")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)
