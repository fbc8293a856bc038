"""A server's file: its options, its models, and what is said of mistakes in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferd.errors import ConfigError
from inferd.gateway.config import ServerConfig
from inferd.gateway.config_file import read_config_file
from inferd.units import parse_bytes, parse_seconds

GOOD = """
port: 0
memory_budget: 4GiB
idle_timeout: 1h30m
preload: false
engine: {max_num_seqs: 16}
models:
  - smollm2
  - model: qwen2.5-coder:1.5b
    names: [coder, "claude"]
    preload: true
    idle_timeout: 5m
    max_in_flight: 4
    engine: {kv_cache_memory: 512MiB}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "server.yaml"
    path.write_text(text)
    return path


def test_a_file_is_a_server(tmp_path: Path) -> None:
    config = ServerConfig(**read_config_file(written(tmp_path, GOOD)))
    assert (config.port, config.memory_budget, config.idle_timeout) == (0, 4 * 2**30, 5400)
    assert config.engine.max_num_seqs == 16
    first, second = config.models
    assert (first.names, first.engine) == (("smollm2",), None)
    assert second.names[:2] == ("coder", "claude")
    assert second.engine is not None
    assert (second.engine.kv_cache_memory, second.engine.max_num_seqs) == (512 * 2**20, 16)
    assert (second.preload, second.idle_timeout, second.max_in_flight) == (True, 300, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modles: []", "'modles' is no option; there are .*models"),
        ("models: smollm2", "models must be a list"),
        ("models: [{model: a, name: b}]", r"models\[0\]: 'name' is no option"),
        ("models: [{names: [b]}]", r"models\[0\]: .*missing .*'model'"),
        ("models: [{model: a, engine: {block_size: 7}}]", r"models\[0\]: engine: block_size must be a multiple of 16"),
        ("models: [a]\nmemory_budget: much", "memory_budget: 'much' is no size"),
        ("models: [a]\nidle_timeout: 5 weeks", "idle_timeout: '5 weeks' is no duration"),
        ("models: [3]", r"models\[0\] must be a name"),
        ("- a", "must hold keys and values"),
        ("a: [", "server.yaml: "),
        ("models: [{model: a, num_bytes: 3}]", "'num_bytes' is no option"),
        ("models: [{model: 3}]", r"models\[0\]: model: Expected `str`, got `int`"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config_file(written(tmp_path, text))


def test_a_wrong_type_of_the_server_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="port"):
        read_config_file(written(tmp_path, "port: eighty\nmodels: [a]"))


@pytest.mark.parametrize(("text", "seconds"), [("5m", 300), ("1h30m", 5400), ("250ms", 0.25), ("7", 7), ("1.5 s", 1.5)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(("text", "size"), [("512MiB", 2**29), ("2 GB", 2 * 10**9), ("10", 10), ("1.5kB", 1500)])
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "m", "5m junk", "-3", "1e3"])
def test_no_duration(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_seconds(text)
