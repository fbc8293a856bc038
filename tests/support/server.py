"""A server with the mock engine in a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import json, sys
from inferd.config import EngineConfig
from inferd.gateway.app import serve
from inferd.gateway.config import ModelConfig, ServerConfig
options = json.loads(sys.argv[1])
for name in ("api_keys", "cors_origins", "allowed_hosts", "lora_dirs"):
    options[name] = tuple(options.get(name, ()))
options["model_aliases"] = tuple(map(tuple, options.get("model_aliases", ())))
options["engine"] = EngineConfig(**options.get("engine", {}))
adapters = options.pop("adapters", {})
models = tuple(ModelConfig(model=model, adapters=adapters) for model in options.pop("models", ["mock/model"]))
config = ServerConfig(models=models, port=0, **{"worker_factory": "support.mock_engine:build", **options})
sys.exit(serve(config, on_ready=lambda url: print(url, flush=True)))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(**options: Any) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Options of ServerConfig; models: their names or paths, adapters: of each of them, engine: a dict of
    EngineConfig's. Yields the base URL and the gateway's process. What it keeps goes to a folder that is gone
    afterwards, unless INFERD_HOME names one."""
    with TemporaryDirectory() as home:
        environment = {"INFERD_HOME": home, **os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"}
        yield from _running(environment, options)


@contextmanager
def serving(model: Path, *options: object) -> Iterator[str]:
    """The base URL of `inferd serve`, as a user starts it."""
    command = [sys.executable, "-m", "inferd", "serve", str(model), "--port", "0", "--json", *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        text = ""
        for line in iter(process.stdout.readline, ""):
            text += line
            if line.startswith("}"):
                break
        yield str(json.loads(text)["url"])
        process.terminate()


def _running(environment: dict[str, str], options: dict[str, Any]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-c", CODE, json.dumps(options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()
