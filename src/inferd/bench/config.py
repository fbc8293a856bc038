"""What one `inferd bench serve` does, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from inferd.errors import ConfigError

Api = Literal["chat", "completions"]
Arrival = Literal["poisson", "gamma", "constant", "burst"]
DatasetName = Literal["random", "shared-prefix", "sharegpt", "mooncake", "azure"]

SYNTHETIC = ("random", "shared-prefix")
TRACES = ("mooncake", "azure")
GOODPUT_METRICS = ("ttft", "tpot", "e2el")
MAX_REQUESTS = 10_000_000


def _require(ok: bool, option: str, value: object, allowed: str) -> None:
    if not ok:
        raise ConfigError(f"{option} must be {allowed}, got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadConfig:
    """Options of a load. Raises ConfigError."""

    url: str
    model: str | None = None  # None: the first the server lists
    api: Api = "chat"
    api_key: str | None = None
    extra_body: dict[str, Any] = field(default_factory=dict)  # None as a value takes the field away
    headers: dict[str, str] = field(default_factory=dict)
    temperature: float = 0.0
    ignore_eos: bool = True
    timeout: float = 600.0  # seconds for a whole request

    dataset: DatasetName = "random"
    dataset_path: str | None = None
    input_len: int = 128  # tokens
    output_len: int | None = None  # tokens; None: 64, or as the dataset says
    range_ratio: float = 0.0  # lengths are uniform within +- this share
    prefix_len: int = 256  # tokens of a shared prefix
    num_prefixes: int = 1
    length_scale: float = 1.0  # of the lengths of a trace
    trace_speed: float = 1.0

    request_rates: tuple[float, ...] = ()  # requests per second; inf: all at once; (): inf, or as a trace says
    max_concurrency: tuple[int, ...] = ()  # most requests in flight; (): no bound
    arrival: Arrival = "poisson"
    burstiness: float = 1.0  # shape of gamma: 1 is Poisson, below 1 burstier
    burst_size: int = 8
    num_prompts: int = 100
    duration: float | None = None  # seconds of sending, instead of num_prompts
    num_warmups: int = 2
    goodput: dict[str, float] = field(default_factory=dict)  # milliseconds by metric
    goodput_share: float = 0.99
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_lengths()
        self._check_load()
        self._check_dataset()

    def _check_lengths(self) -> None:
        for name in ("input_len", "prefix_len"):
            _require(1 <= getattr(self, name) <= 10**7, name, getattr(self, name), "from 1 to 10000000 tokens")
        length = self.output_len
        _require(length is None or 1 <= length <= 10**7, "output_len", length, "from 1 to 10000000 tokens")
        _require(0 <= self.range_ratio < 1, "range_ratio", self.range_ratio, "at least 0 and below 1")
        _require(1 <= self.num_prefixes <= 10**6, "num_prefixes", self.num_prefixes, "from 1 to 1000000")
        for name in ("length_scale", "trace_speed"):
            value = getattr(self, name)
            _require(0 < value <= 1e6, name, value, "above 0 and at most 1000000")

    def _check_load(self) -> None:
        for rate in self.request_rates:
            _require(rate > 0, "request_rate", rate, "above 0, or inf")
        for count in self.max_concurrency:
            _require(1 <= count <= 65536, "max_concurrency", count, "from 1 to 65536")
        ok = len(self.request_rates) <= 1 or len(self.max_concurrency) <= 1
        _require(ok, "max_concurrency", self.max_concurrency, "one number when request_rate has several")
        _require(0 < self.burstiness <= 1000, "burstiness", self.burstiness, "above 0 and at most 1000")
        _require(1 <= self.burst_size <= 10**6, "burst_size", self.burst_size, "from 1 to 1000000")
        _require(1 <= self.num_prompts <= MAX_REQUESTS, "num_prompts", self.num_prompts, f"from 1 to {MAX_REQUESTS}")
        seconds = self.duration
        _require(seconds is None or 0 < seconds <= 1e6, "duration", seconds, "above 0 and at most 1000000 seconds")
        endless = seconds is not None and not self.max_concurrency and math.inf in (self.request_rates or (math.inf,))
        _require(not endless or self.is_replay, "duration", seconds, "absent when request_rate is inf without "
                 "max_concurrency: there would be no end of requests to send")  # fmt: skip
        _require(0 <= self.num_warmups <= 10**6, "num_warmups", self.num_warmups, "from 0 to 1000000")
        _require(0 < self.timeout <= 1e6, "timeout", self.timeout, "above 0 and at most 1000000 seconds")
        for name, limit in self.goodput.items():
            _require(name in GOODPUT_METRICS, "goodput", name, f"of {', '.join(GOODPUT_METRICS)}")
            _require(limit > 0, f"goodput {name}", limit, "above 0 milliseconds")
        _require(0 < self.goodput_share <= 1, "goodput_share", self.goodput_share, "above 0 and at most 1")

    def _check_dataset(self) -> None:
        needs_file = self.dataset not in SYNTHETIC
        given = self.dataset_path is not None
        _require(given or not needs_file, "dataset_path", self.dataset_path, f"a file for the dataset {self.dataset}")
        _require(needs_file or not given, "dataset_path", self.dataset_path, f"absent for the dataset {self.dataset}")

    @property
    def is_replay(self) -> bool:
        """Requests are sent when the trace says."""
        return self.dataset in TRACES and not self.request_rates and not self.max_concurrency

    @property
    def points(self) -> list[tuple[float, int | None]]:
        """(request rate, max concurrency) of every run of a sweep."""
        rates = self.request_rates or (math.inf,)
        return [(rate, bound) for rate in rates for bound in (self.max_concurrency or (None,))]
