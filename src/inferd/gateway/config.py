"""ServerConfig: the options of one gateway, checked once."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field

from inferd.config import EngineConfig
from inferd.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One model and the names that clients may call it; the first is the one answers carry."""

    model: str  # a path or a name that the worker's factory understands
    served_names: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        stem = os.path.basename(self.model.rstrip("/")).removesuffix(".gguf")
        return tuple(dict.fromkeys((*self.served_names, self.model_name, stem)))

    @property
    def model_name(self) -> str:
        """The name without the directories of a local path."""
        is_path = self.model.endswith(".gguf") or self.model.startswith(("/", ".", "~"))
        return os.path.basename(self.model.rstrip("/")).removesuffix(".gguf") if is_path else self.model


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    models: tuple[ModelConfig, ...]
    host: str = "127.0.0.1"
    port: int = 8000  # 0: any free one
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    insecure: bool = False
    max_queue_len: int = 1024  # requests in flight; more get 503
    drain_timeout: float = 30.0  # seconds
    max_body_size: int = 8 * 2**20
    body_timeout: float = 30.0  # seconds until the whole body must be there
    keep_alive: float = 15.0  # seconds between comment lines of a silent stream
    stuck_after: float = 10.0
    kill_after: float = 60.0
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    engine: EngineConfig = field(default_factory=EngineConfig)
    worker_factory: str = "inferd.engine.build:build_engine"

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError("models must name at least one model")
        names = [name for model in self.models for name in model.names]
        if len(set(names)) != len(names):
            raise ConfigError(f"served names must be unique, got {sorted(names)}")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port must be from 0 to 65535, got {self.port}")
        if self.max_queue_len < 1:
            raise ConfigError(f"max_queue_len must be at least 1, got {self.max_queue_len}")
        for option in ("drain_timeout", "body_timeout", "keep_alive", "stuck_after", "kill_after", "max_body_size"):
            if getattr(self, option) <= 0:
                raise ConfigError(f"{option} must be above 0, got {getattr(self, option)}")
        if any(not key for key in self.api_keys):
            raise ConfigError("api_key must not be empty")
        if not (self.is_loopback or self.api_keys or self.insecure):
            raise ConfigError(f"host {self.host} is open to the network: set api_key, or insecure to do without")

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
