"""What the benchmark scripts share: a server on a free port, results with the machine's name, the report file."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).parent / "results"
MODELS = "smollm2,gemma3:270m,qwen2.5-coder:1.5b"


def machine() -> dict[str, Any]:
    """CPU, cores, memory and kernels: what a figure means nothing without."""
    from inferd.executors.native import cpu_info
    from inferd.machine import cpu_model

    memory = round(psutil.virtual_memory().total / 2**30, 1)
    return {"cpu": cpu_model(), "cores": len(os.sched_getaffinity(0)), "memory_gib": memory, "isa": cpu_info()["isa"]}


def report(name: str, figures: dict[str, Any], *, print_only: bool = False) -> None:
    """Prints the figures and writes benchmarks/results/<name>.json."""
    if print_only:
        print(json.dumps(figures))
        return
    RESULTS.mkdir(exist_ok=True)
    body = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "command": shlex.join([Path(sys.argv[0]).name, *map(_public, sys.argv[1:])]),
    }
    text = json.dumps(body | {"figures": figures}, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(json.dumps(figures, indent=2))


def _public(argument: str) -> str:
    """Paths without the folders of the machine."""
    return Path(argument).name if argument.startswith("/") else argument


def weight_bytes(checkpoint: Any) -> int:
    """What one decode step must read: every matrix, the tied embedding as the head."""
    is_tied = checkpoint.spec.tied_head
    return sum(w.nbytes for name, w in checkpoint.weights.items() if name != "embed" or is_tied)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextlib.contextmanager
def server(model: str, *args: str, ready_timeout: float = 120, key: str = "") -> Iterator[tuple[str, psutil.Process]]:
    """`inferd serve` as a user starts it; yields its base URL and process, and checks that SIGTERM ends it with 0.

    key: one of those it is started with, if any.
    """
    port = free_port()
    command = [sys.executable, "-m", "inferd", "serve", model, "--port", str(port), *args]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_ready(url, ready_timeout, key)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        code = process.wait(60)
    if code != 0:
        raise RuntimeError(f"the server ended with {code}")


def wait_ready(url: str, timeout: float, key: str = "") -> float:
    """Seconds until /ready answers 200."""
    begin = time.perf_counter()
    question = urllib.request.Request(url + "/ready", headers={"authorization": f"Bearer {key}"} if key else {})
    while time.perf_counter() - begin < timeout:
        with contextlib.suppress(OSError), urllib.request.urlopen(question, timeout=5) as answer:
            if answer.status == 200:
                return time.perf_counter() - begin
        time.sleep(0.02)
    raise TimeoutError(f"{url} was not ready within {timeout} s")


def metric(url: str, name: str) -> float:
    """The sum of a metric's samples."""
    with urllib.request.urlopen(url + "/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{", 1)[0].split(" ", 1)[0] == name]
    if not values:
        raise KeyError(f"{url}/metrics has no {name}")
    return sum(values)


def tree_rss(process: psutil.Process) -> int:
    """Resident bytes of the gateway and its workers."""
    return sum(p.memory_info().rss for p in [process, *process.children(recursive=True)])
