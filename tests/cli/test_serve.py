"""inferd serve: options become configuration; a real process from its first line to its exit code."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner

from inferd.cli.main import cli
from inferd.cli.options import ByteSize
from inferd.cli.serve import serve
from inferd.gateway.config import ServerConfig

pytestmark = pytest.mark.usefixtures("home")


def parse(monkeypatch: pytest.MonkeyPatch, *arguments: str, **environment: str) -> ServerConfig:
    """The configuration that `inferd serve ARGUMENTS` would start with; every model is a file of 10 bytes."""
    seen: list[ServerConfig] = []
    home = Path(os.environ["INFERD_HOME"])
    home.mkdir(exist_ok=True)
    (home / "file").write_bytes(b"0123456789")
    monkeypatch.setattr("inferd.cli.serve.ensure_local", lambda name: home / "file")
    monkeypatch.setattr("inferd.gateway.app.serve", lambda config, on_ready: seen.append(config) or 0)
    result = CliRunner().invoke(cli, ["serve", "--port", "0", *arguments], env=environment)
    assert result.exit_code == 0, result.output
    return seen[0]


def test_defaults_are_those_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse(monkeypatch)
    assert config == ServerConfig(models=config.models, port=0)
    assert [(model.model, model.num_bytes) for model in config.models] == [("smollm2", 10)]


def test_a_file_and_options_over_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "server.yaml"
    file.write_text(
        "host: ::1\ninsecure: true\nmax_queue_len: 5\nengine: {max_num_seqs: 7, seed: 3}\nmodels: [a.gguf]\n"
    )
    config = parse(monkeypatch, "b.gguf", "--config", str(file), "--max-queue-len", "9", "--seed", "4")
    assert [model.model for model in config.models] == ["a.gguf", "b.gguf"]
    assert (config.host, config.insecure, config.port) == ("::1", True, 0)
    assert (config.max_queue_len, config.engine.max_queue_len) == (9, 9)
    assert (config.engine.max_num_seqs, config.engine.seed) == (7, 4)


def test_every_option_reaches_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse(
        monkeypatch, "a.gguf", "--served-model-name", "x", "--served-model-name", "y", "--host", "::1", "--insecure",
        "--max-model-len", "100", "--max-num-seqs", "3", "--max-num-batched-tokens", "77", "--kv-cache-memory", "2GiB",
        "--num-threads", "1", "--no-enable-prefix-caching", "--seed", "5", "--executor", "reference",
        "--speculative", "off", "--itl-target", "0.1", "--encoder-dtype", "q8_0", "--memory-budget", "4GiB",
        "--idle-timeout", "1h30m", "--load-timeout", "9", "--on-demand",
        "--max-queue-len", "9", "--drain-timeout", "1.5", "--cors-origin", "https://a.example",
        "--allowed-host", "b.example", INFERD_API_KEY="one two",
    )  # fmt: skip
    assert config.models[0].names[:2] == ("x", "y")
    assert (config.host, config.api_keys, config.insecure) == ("::1", ("one", "two"), True)
    assert (config.max_queue_len, config.engine.max_queue_len, config.drain_timeout) == (9, 9, 1.5)
    assert (config.cors_origins, config.allowed_hosts) == (("https://a.example",), ("b.example",))
    assert (config.memory_budget, config.idle_timeout, config.load_timeout) == (4 * 2**30, 5400, 9)
    assert not config.preload
    engine = config.engine
    assert engine.encoder_dtype == "q8_0"
    assert (engine.max_model_len, engine.max_num_seqs, engine.max_num_batched_tokens) == (100, 3, 77)
    assert (engine.kv_cache_memory, engine.num_threads, engine.seed) == (2 * 2**30, 1, 5)
    assert (engine.enable_prefix_caching, engine.executor) == (False, "reference")
    assert (engine.speculative, engine.itl_target) == ("off", 0.1)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--max-num-seqs", "0"], "max_num_seqs"), (["--host", "0.0.0.0"], "api_key"), (["--port", "70000"], "port"),
        (["a", "b", "--served-model-name", "x"], "--served-model-name"), (["--kv-cache-memory", "2XB"], "no size"),
    ],
)  # fmt: skip
def test_misuse_ends_with_two(arguments: list[str], word: str) -> None:
    result = CliRunner().invoke(cli, ["serve", *arguments])
    assert result.exit_code == 2
    assert word in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("text", "num_bytes"), [("7", 7), ("1.5KiB", 1536), ("2 GiB", 2**31), ("3MB", 3_000_000), ("5B", 5)]
)
def test_sizes(text: str, num_bytes: int) -> None:
    assert ByteSize().convert(text, None, None) == num_bytes


@pytest.mark.parametrize("text", ["", "-1", "GiB", "1Gi", "1e3", "nan"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(click.BadParameter):
        ByteSize().convert(text, None, None)


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "inferd", "serve", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **environment})


@contextmanager
def served(*arguments: str, **environment: str) -> Iterator[tuple[dict[str, Any], subprocess.Popen[str]]]:
    with start(*arguments, "--port", "0", "--json", **environment) as process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            yield json.loads("".join(next(lines) for _ in range(7))), process
        finally:
            process.kill()


def test_a_server_from_start_to_end(smollm2: str) -> None:
    with served(smollm2, "--served-model-name", "tiny", INFERD_API_KEY="secret") as (ready, process):
        assert ready["models"] == ["tiny"]
        assert ready["start_seconds"] > 0
        assert httpx.get(ready["url"] + "/v1/models").status_code == 401
        headers = {"authorization": "Bearer secret"}
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        answer = httpx.post(ready["url"] + "/v1/chat/completions", json=body, headers=headers, timeout=60)
        assert answer.json()["usage"]["completion_tokens"] == 4
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_a_taken_port_is_said_at_once(smollm2: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with start(smollm2, "--port", str(port)) as process:
            stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (1, "")
    assert stderr == f"error: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


def test_the_help_of_serve_lists_every_option() -> None:
    text = CliRunner().invoke(cli, ["serve", "--help"]).stdout
    assert all(option.opts[0] in text for option in serve.params if isinstance(option, click.Option))
