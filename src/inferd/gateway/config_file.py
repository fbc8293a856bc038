"""A server's configuration from a YAML file: the fields of ServerConfig, its models, and options of their engines.

memory_budget: 4GiB
idle_timeout: 10m
models:
  - model: smollm2
    names: [chat]
  - model: qwen2.5-coder:1.5b
    preload: false
    engine: {kv_cache_memory: 512MiB}
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

from inferd.config import EngineConfig
from inferd.errors import ConfigError
from inferd.gateway.config import ModelConfig, ServerConfig
from inferd.units import parse_bytes, parse_seconds
from inferd.yaml_file import read_yaml

MAX_FILE_BYTES = 2**20
_SIZES = frozenset({"memory_budget", "kv_cache_memory", "max_body_size"})
_TIMES = frozenset(
    """idle_timeout load_timeout drain_timeout body_timeout keep_alive stuck_after kill_after
    response_retention""".split()
)
_WRITTEN = {"served_names": "names"}  # field -> key
_NOT_WRITTEN = frozenset({"num_bytes", "has_kv_cache", "worker_factory", "api_keys", "key_weights"})  # not for a file
T = TypeVar("T")


def read_config_file(path: Path) -> dict[str, Any]:
    """Fields of ServerConfig as the file sets them; `models` holds ModelConfig, `engine` an EngineConfig.

    Raises ConfigError naming the key and what is allowed.
    """
    values = read_yaml(path, MAX_FILE_BYTES)
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name} must hold keys and values, such as models: [...]")
    return _server(values, path.name)


def _server(values: dict[str, Any], where: str) -> dict[str, Any]:
    engine, models = values.pop("engine", None) or {}, values.pop("models", None) or []
    if not isinstance(models, list):
        raise ConfigError(f"{where}: models must be a list")
    made: dict[str, Any] = _checked(values, ServerConfig, where)
    made["engine"] = _made(engine, EngineConfig, f"{where}: engine")
    made["models"] = tuple(_model(one, engine, f"{where}: models[{at}]") for at, one in enumerate(models))
    return made


def _model(value: Any, shared: dict[str, Any], where: str) -> ModelConfig:
    if isinstance(value, str):
        return ModelConfig(model=value)
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a name, or keys and values")
    engine = value.pop("engine", None) or {}
    model = _made(value, ModelConfig, where)
    if not isinstance(engine, dict):
        raise ConfigError(f"{where}: engine must hold keys and values")
    return replace(model, engine=_made({**shared, **engine}, EngineConfig, f"{where}: engine")) if engine else model


def _made(values: Any, kind: type[T], where: str) -> T:
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must hold keys and values")
    checked = _checked(values, kind, where)
    try:
        return kind(**checked)
    except (TypeError, ConfigError) as error:  # a TypeError: a key that must be there is not
        raise ConfigError(f"{where}: {error}") from None


def _checked(values: dict[Any, Any], kind: type, where: str) -> dict[str, Any]:
    """Known keys only, each of its type; sizes and durations as numbers. null counts as absent."""
    hints = get_type_hints(kind)
    known = {_WRITTEN.get(name, name): name for name in hints if name not in _NOT_WRITTEN}
    checked = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{where}: {str(key)[:80]!r} is no option; there are {', '.join(sorted(known))}")
        if value is None:
            continue
        try:
            checked[known[key]] = msgspec.convert(_number(key, value), hints[known[key]])
        except (msgspec.ValidationError, ConfigError) as error:
            raise ConfigError(f"{where}: {key}: {error}") from None
    return checked


def _number(key: str, value: Any) -> Any:
    if not isinstance(value, str) or key not in _SIZES | _TIMES:
        return value
    return parse_bytes(value) if key in _SIZES else parse_seconds(value)
