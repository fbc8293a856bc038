"""From the start of a process to its first token, as a person at a terminal or a waiting client sees it."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from time import perf_counter, sleep
from typing import IO, Any, Literal

from inferd.errors import ConfigError, InferdError

Kind = Literal["run", "serve"]
POLL_SECONDS = 0.005


class ColdStartError(InferdError):
    """A process that was started brought no token; carries its last words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStartConfig:
    """Raises ConfigError."""

    model: Path  # a file or a folder
    kinds: tuple[Kind, ...] = ("run", "serve")
    repeat: int = 5
    is_cold: bool = False  # the model leaves the page cache before each start
    timeout: float = 120.0  # seconds to the first token
    program: tuple[str, ...] = (sys.executable, "-m", "inferd")

    def __post_init__(self) -> None:
        if not 1 <= self.repeat <= 1000:
            raise ConfigError(f"repeat must be from 1 to 1000, got {self.repeat}")
        if not 0 < self.timeout <= 86400:
            raise ConfigError(f"timeout must be above 0 and at most 86400 seconds, got {self.timeout:g}")


def measure(config: ColdStartConfig, on_start: Callable[[str], None] = lambda kind: None) -> dict[str, Any]:
    """Seconds of every start and their median for each kind. Raises ColdStartError.

    Unless `is_cold`, one start that is not counted brings the model and Python's files into the page cache.
    """
    figures: dict[str, Any] = {
        "is_cold": config.is_cold,
        "file_bytes": sum(p.stat().st_size for p in _files(config.model)),
    }
    for kind in config.kinds:
        starts: list[dict[str, float]] = []
        for number in range(config.repeat + (not config.is_cold)):
            on_start(kind)
            if config.is_cold:
                figures["resident_share_before"] = _evict(config.model)
            seconds = _run_once(config) if kind == "run" else _serve_once(config)
            if config.is_cold or number:
                starts.append(seconds)
        for name in starts[0]:
            values = sorted(start[name] for start in starts)
            figures[f"{kind}_{name}_s"] = statistics.median(values)
            figures[f"{kind}_{name}_all_s"] = [start[name] for start in starts]
    return figures


def _run_once(config: ColdStartConfig) -> dict[str, float]:
    arguments = ("run", str(config.model), "hello", "--max-tokens", "8")
    with _process(config.program + arguments, stdout=subprocess.PIPE) as (process, begin, last_words):
        assert process.stdout is not None
        watchdog = Timer(config.timeout, process.kill)
        watchdog.start()
        first = process.stdout.read(1)
        seconds = perf_counter() - begin
        process.stdout.read()
        code = process.wait()
        watchdog.cancel()
        if seconds >= config.timeout:
            raise ColdStartError(f"inferd run brought no token within {config.timeout:g} s")
        if code or not first:
            raise ColdStartError(f"inferd run ended with {code}: {last_words()}")
    return {"first_token": seconds}


def _serve_once(config: ColdStartConfig) -> dict[str, float]:
    """Until /ready, and until a streamed completion, asked again and again from the start on, brought text."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ("serve", str(config.model), "--port", str(port), "--served-model-name", "bench")
    # a completion: a base model has no chat template
    body = {"model": "bench", "prompt": "hello", "max_tokens": 8, "stream": True, "temperature": 0}
    url = f"http://127.0.0.1:{port}/v1/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with _process(config.program + arguments, stdout=subprocess.DEVNULL) as (process, begin, last_words):
        while perf_counter() - begin < config.timeout:
            if process.poll() is not None:
                raise ColdStartError(f"inferd serve ended with {process.returncode}: {last_words()}")
            if _has_token(request, config.timeout):
                return {"first_token": perf_counter() - begin}
            sleep(POLL_SECONDS)
    raise ColdStartError(f"inferd serve brought no token within {config.timeout:g} s")


def _has_token(request: urllib.request.Request, timeout: float) -> bool:
    """False while nothing listens or the model loads. Raises ColdStartError when the server refuses the request."""
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return any(line.startswith(b"data: {") and _text(line) for line in answer)
    except urllib.error.HTTPError as error:
        if error.code < 500:
            raise ColdStartError(f"HTTP {error.code}: {error.read().decode(errors='replace')[:200]}") from None
        return False
    except OSError:
        return False


def _text(line: bytes) -> str:
    choices = json.loads(line[6:]).get("choices") or [{}]
    return str(choices[0].get("text") or "")


@contextmanager
def _process(
    command: tuple[str, ...], stdout: int
) -> Iterator[tuple[subprocess.Popen[bytes], float, Callable[[], str]]]:
    """The process, when it was started, and a function for the last line it wrote to stderr."""
    with tempfile.TemporaryFile() as stderr:
        begin = perf_counter()
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr) as process:
            try:
                yield process, begin, lambda: _last_line(stderr)
            finally:
                process.terminate()


def _last_line(file: IO[bytes]) -> str:
    file.seek(0)
    lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _files(model: Path) -> list[Path]:
    return [path for path in sorted(model.rglob("*")) if path.is_file()] if model.is_dir() else [model]


def _evict(model: Path) -> float:
    """Asks the kernel to forget the files' pages; the share that is resident afterwards (other users keep pages)."""
    num_resident = num_pages = 0
    for path in _files(model):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            flags = _resident_pages(file)
        num_resident += sum(flags)
        num_pages += len(flags)
    return num_resident / max(1, num_pages)


def _resident_pages(file: IO[bytes]) -> list[bool]:
    """(num_pages,) whether each is in the page cache."""
    size = os.fstat(file.fileno()).st_size
    if not size:
        return []
    num_pages = -(-size // mmap.PAGESIZE)
    flags = (ctypes.c_ubyte * num_pages)()
    with mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as pages:
        first = ctypes.c_char.from_buffer(pages)
        code = ctypes.CDLL(None, use_errno=True).mincore(
            ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), flags
        )
        del first
    if code:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return [bool(flag & 1) for flag in flags]
