"""ServerConfig: the options of one gateway, checked once."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from inferd.config import EngineConfig
from inferd.errors import ConfigError
from inferd.metrics.cost import HostPrice, owned_price_per_hour
from inferd.metrics.requests import MAX_TARGET, MIN_TARGET, Targets

MIN_WEIGHT, MAX_WEIGHT = 0.01, 100.0  # of a tenant's share
MAX_RETENTION = 10 * 366 * 86400.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One model and the names that clients may call it; the first is the one answers carry."""

    model: str  # a path or a name that the worker's factory understands
    served_names: tuple[str, ...] = ()
    adapters: dict[str, str] = field(default_factory=dict)  # LoRA: name that clients may call -> path
    sla_ttft: float | None = None  # seconds; None: the server's
    sla_itl: float | None = None
    engine: EngineConfig | None = None  # None: the server's
    num_bytes: int = 0  # of its files, where they are known: what its memory is estimated by
    has_kv_cache: bool = True  # whether its memory holds one; only a model that makes text does
    preload: bool | None = None  # load at the start, not with the first request; None: the server's
    idle_timeout: float | None = None  # seconds; None: the server's
    max_in_flight: int | None = None  # requests; None: no limit of its own

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.served_names, self.model_name, _stem(self.model))))

    @property
    def model_name(self) -> str:
        """The name without the directories of a local path."""
        is_path = self.model.endswith((".gguf", ".onnx")) or self.model.startswith(("/", ".", "~"))
        return _stem(self.model) if is_path else self.model


def _stem(path: str) -> str:
    """Of the file or folder, without the suffix of a model file."""
    return os.path.basename(path.rstrip("/")).removesuffix(".gguf").removesuffix(".onnx")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    models: tuple[ModelConfig, ...]
    host: str = "127.0.0.1"
    port: int = 8000  # 0: any free one
    grpc_port: int | None = None  # of KServe's protocol over gRPC; None: not served; needs the extra grpc
    model_aliases: tuple[tuple[str, str], ...] = ()  # (pattern with * and ?, served name), the first that fits counts
    lora_dirs: tuple[str, ...] = ()  # below these, adapters may be loaded by a request; none: they may not
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    key_weights: tuple[tuple[str, float], ...] = field(default=(), repr=False)  # of keys whose share is not 1
    insecure: bool = False
    preload: bool = True  # load the models at the start, as far as the budget goes
    memory_budget: int | None = None  # bytes of all loaded models; None: no limit
    idle_timeout: float | None = None  # seconds without a request after which a model leaves memory; None: never
    load_timeout: float = 120.0  # seconds that a request waits for its model to be loaded
    max_queue_len: int = 1024  # requests in flight; more get 503
    drain_timeout: float = 30.0  # seconds
    max_body_size: int = 8 * 2**20
    body_timeout: float = 30.0  # seconds until the whole body must be there
    keep_alive: float = 15.0  # seconds between comment lines of a silent stream
    stuck_after: float = 10.0
    kill_after: float = 60.0
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    sla_ttft: float = 0.2  # seconds to the first token that a good request keeps to
    sla_itl: float = 0.03  # mean seconds between its tokens
    price_per_hour: float | None = None  # of the host; or by purchase_price; None: nothing is priced
    purchase_price: float | None = None  # of the host
    amortisation_years: float = 3.0  # in which the purchase is written off
    power_watts: float = 0.0  # what the host draws on average
    electricity_price: float = 0.0  # of a kWh
    currency: str = "USD"  # of the prices
    usage_ledger: bool | None = None  # keep the usage of every request; auto: where the host has a price
    batch_dir: str | None = None  # where files and batches are kept; None: a folder of the home directory
    max_batch_requests: int = 64  # requests of batches that run at once
    response_retention: float = 30 * 86400.0  # seconds that responses may be asked for again; 0: none are kept
    otlp_endpoint: str | None = None  # URL that takes traces as OTLP over HTTP; needs the extra otel
    pipelines: tuple[str, ...] = ()  # files that declare them
    engine: EngineConfig = field(default_factory=EngineConfig)
    worker_factory: str = ""  # "module:function" in place of the loader for the kind of a model's file

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError("models must name at least one model")
        names = [name for model in self.models for name in (*model.names, *model.adapters)]
        if len(set(names)) != len(names):
            raise ConfigError(f"served names must be unique, got {sorted(names)}")
        for pattern, name in self.model_aliases:
            if not pattern or name not in names:
                raise ConfigError(f"model_aliases must map a pattern to one of {sorted(names)}, got {pattern}={name}")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port must be from 0 to 65535, got {self.port}")
        if self.grpc_port is not None and not 1 <= self.grpc_port <= 65535:
            raise ConfigError(f"grpc_port must be from 1 to 65535, got {self.grpc_port}")
        if self.max_queue_len < 1:
            raise ConfigError(f"max_queue_len must be at least 1, got {self.max_queue_len}")
        for option in ("drain_timeout", "body_timeout", "keep_alive", "stuck_after", "kill_after", "max_body_size",
                       "load_timeout", "memory_budget", "idle_timeout"):  # fmt: skip
            value = getattr(self, option)
            if value is not None and value <= 0:
                raise ConfigError(f"{option} must be above 0, got {value}")
        if any(not key for key in self.api_keys):
            raise ConfigError("api_key must not be empty")
        for key, weight in self.key_weights:
            if key not in self.api_keys:
                raise ConfigError("key_weight must name one of the keys in api_key")
            _check_range("key_weight", weight, MIN_WEIGHT, MAX_WEIGHT)
        _check_range("max_batch_requests", self.max_batch_requests, 1, 1024)
        _check_range("response_retention", self.response_retention, 0, MAX_RETENTION)
        self._check_prices()
        _check_targets(self)
        for model in self.models:
            _check_targets(model)
        if not (self.is_loopback or self.api_keys or self.insecure):
            raise ConfigError(f"host {self.host} is open to the network: set api_key, or insecure to do without")

    def targets_of(self, model: ModelConfig) -> Targets:
        ttft = self.sla_ttft if model.sla_ttft is None else model.sla_ttft
        return Targets(ttft, self.sla_itl if model.sla_itl is None else model.sla_itl)

    def alias_of(self, name: str) -> str | None:
        """The served name that a name stands for which is none itself."""
        return next((served for pattern, served in self.model_aliases if fnmatchcase(name, pattern)), None)

    @property
    def host_price(self) -> HostPrice | None:
        if self.purchase_price is not None:
            power = self.power_watts, self.electricity_price
            return HostPrice(owned_price_per_hour(self.purchase_price, self.amortisation_years, *power), self.currency)
        return None if self.price_per_hour is None else HostPrice(self.price_per_hour, self.currency)

    @property
    def keeps_usage(self) -> bool:
        return self.host_price is not None if self.usage_ledger is None else self.usage_ledger

    def _check_prices(self) -> None:
        if self.price_per_hour is not None and self.purchase_price is not None:
            raise ConfigError("price_per_hour and purchase_price exclude each other")
        limits = (("price_per_hour", 0, 1e6), ("purchase_price", 0, 1e9), ("amortisation_years", 0.1, 50),
                  ("power_watts", 0, 1e6), ("electricity_price", 0, 1000))  # fmt: skip
        for option, low, high in limits:
            _check_range(option, getattr(self, option), low, high)
        if self.purchase_price is None and (self.power_watts or self.electricity_price):
            raise ConfigError("power_watts and electricity_price need purchase_price")
        if not re.fullmatch("[A-Z]{3}", self.currency):
            raise ConfigError(f"currency must be three capital letters, got {self.currency!r}")

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def checked_hosts(self) -> frozenset[str] | None:
        """Host header values that are let in; None: all. A page of another site must not reach a keyless server."""
        if self.allowed_hosts:
            return frozenset(self.allowed_hosts)
        if self.is_loopback and not self.api_keys:
            return frozenset({"localhost", "127.0.0.1", "[::1]", self.host})
        return None


def _check_range(option: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise ConfigError(f"{option} must be from {low:g} to {high:g}, got {value:g}")


def _check_targets(owner: ServerConfig | ModelConfig) -> None:
    for option in ("sla_ttft", "sla_itl"):
        _check_range(option, getattr(owner, option), MIN_TARGET, MAX_TARGET)
