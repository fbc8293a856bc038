"""The device catalogue: dense rates only, every price with its date, and how a user adds a device."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from inferd.errors import ConfigError
from inferd.planner.figure import Figure, unknown
from inferd.planner.precision import Rate
from inferd.planner.tables import Row, choose, joined, number, read_table, require

MAX_COUNT = 4096
# What an engine sees of a nominal size, where it was published: GiB (the memory measurements of vLLM on H100).
_USABLE_GIB = {"h100-sxm": 79.18}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One accelerator, or one CPU socket. Rates are dense, in TFLOP/s; None: not published, so not planned with."""

    id: str
    name: str
    kind: str  # gpu, asic, soc, cpu
    mem_gb: float  # 1e9 bytes
    mem_bw_gbps: float
    bf16_dense_tflops: float | None = None
    fp8_dense_tflops: float | None = None
    fp4_dense_tflops: float | None = None
    int8_dense_tops: float | None = None
    tdp_w: float | None = None
    scaleup_gbps_per_dir: float | None = None
    purchase_usd: float | None = None
    purchase_note: str = ""
    rent_usd_h_low: float | None = None
    rent_usd_h_high: float | None = None
    rent_note: str = ""
    confidence: str = ""
    source: str = ""

    @property
    def usable_bytes(self) -> Figure:
        if self.id in _USABLE_GIB:
            return Figure(_USABLE_GIB[self.id] * 2**30, "B", "measured", "as an engine on it reported")
        return Figure(self.mem_gb * 1e9, "B", "assumed", "nominal size x 1e9")

    def peak_flops(self, rate: Rate) -> Figure:
        """FLOP/s of one device; a format without arithmetic of its own runs at the next wider one."""
        wider: dict[Rate, tuple[Rate, ...]] = {
            "bf16": ("bf16",), "fp8": ("fp8", "bf16"), "fp4": ("fp4", "fp8", "bf16"), "int8": ("int8", "bf16"),
        }  # fmt: skip
        own: dict[Rate, float | None] = {
            "bf16": self.bf16_dense_tflops, "fp8": self.fp8_dense_tflops,
            "fp4": self.fp4_dense_tflops, "int8": self.int8_dense_tops,
        }  # fmt: skip
        for name in wider[rate]:
            if (tera := own[name]) is not None:
                return Figure(tera * 1e12, "FLOP/s", "derived", f"dense {name} rate of the data sheet")
        return unknown("FLOP/s", f"no {rate} rate of {self.id} is published")

    @property
    def bandwidth(self) -> float:
        """Bytes/s."""
        return self.mem_bw_gbps * 1e9


@cache
def catalogue() -> dict[str, Device]:
    return {row["id"]: _device(row) for row in read_table("hardware_catalogue")}


def _device(row: Row) -> Device:
    text = {"id", "name", "kind", "purchase_note", "rent_note", "confidence", "source"}
    values = {f.name: row[f.name] if f.name in text else number(row, f.name) for f in fields(Device)}
    return Device(**values)  # type: ignore[arg-type]  # the catalogue has every required number; tests read all of it


# Short names that can mean one catalogued card only; m4 or h20 are other cards than m4-max or h200.
_SHORT = {"h200": "h200-sxm", "b200": "b200-sxm", "gb200": "gb200-nvl72", "gaudi3": "gaudi3-oam"}


def device_named(name: str) -> Device:
    """By id or short name; a path to a .json file of Device fields; else ConfigError with what the name may mean.

    An unknown card is refused and never taken for another.
    """
    if name.endswith(".json"):
        return _device_from_file(Path(name))
    low = name.lower()
    begins = [key for key in catalogue() if key.startswith(low + "-")]
    if low not in _SHORT and begins:
        raise ConfigError(f"hardware: {name!r} may be {' or '.join(begins)}; name one")
    return choose("hardware", _SHORT.get(low, low), catalogue())


def _device_from_file(path: Path) -> Device:
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"hardware: {path} cannot be read as JSON: {error}") from None
    known = {f.name for f in fields(Device)}
    if not isinstance(values, dict) or set(values) - known:
        strays = joined(set(values) - known) if isinstance(values, dict) else type(values).__name__
        raise ConfigError(f"hardware: {path} has {strays}; the fields are {joined(known)}")
    missing = {"id", "name", "kind", "mem_gb", "mem_bw_gbps"} - set(values)
    if missing:
        raise ConfigError(f"hardware: {path} lacks {joined(missing)}")
    device = Device(**values)
    require("hardware: mem_gb", device.mem_gb, 0.1, 1e5, "GB")
    require("hardware: mem_bw_gbps", device.mem_bw_gbps, 0.1, 1e6, "GB/s")
    return device


@dataclass(frozen=True, slots=True)
class Node:
    """`count` equal devices joined by their scale-up link."""

    device: Device
    count: int

    @property
    def name(self) -> str:
        return f"{self.count}x {self.device.name}"


def node_named(text: str) -> Node:
    """ "h200:8" -> eight H200; without a count, one. Raises ConfigError."""
    name, _, count = text.rpartition(":") if ":" in text else (text, "", "1")
    if not count.isdecimal() or not 1 <= int(count) <= MAX_COUNT:
        raise ConfigError(f"hardware: {text!r}: the count after ':' must be from 1 to {MAX_COUNT}, as in h200:8")
    return Node(device_named(name), int(count))
