"""Sandbox: runs generated programs where they can do no harm, and says how well it could shut them in."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

from inferd.errors import ConfigError
from inferd.eval import jail

Status = Literal["passed", "failed", "timeout", "killed"]
Isolation = Literal["namespaces", "limits"]

_MAX_VERDICT = 1 << 16
_GRACE_SECONDS = 5.0  # beyond the wall clock that the jail itself keeps
_SIGNALS = {signal.SIGXCPU: "CPU time", signal.SIGXFSZ: "file size", signal.SIGKILL: "CPU time or memory"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one program. Memory is address space of each process; processes include threads; disk is its /tmp."""

    wall_seconds: float = 5.0
    memory_bytes: int = 512 * 2**20
    disk_bytes: int = 32 * 2**20
    num_files: int = 64
    num_processes: int = 8

    def __post_init__(self) -> None:
        for name, low, high in (
            ("wall_seconds", 0.1, 600), ("memory_bytes", 2**26, 2**36), ("disk_bytes", 2**16, 2**34),
            ("num_files", 16, 4096), ("num_processes", 1, 1024),
        ):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} must be from {low} to {high}, got {value}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """passed: the program ran to its end. failed: it raised (detail: what). timeout: the wall clock ended it.
    killed: it ended without a verdict (detail: the signal or exit code)."""

    status: Status
    detail: str
    seconds: float


class Sandbox:
    """isolation "namespaces": no network, no file of this machine but Python's own and the system libraries, no other
    process, a file system in memory that vanishes. "limits": resource limits, time and an empty environment only; the
    network and the files this user may touch stay in reach. Not thread-safe.

    Raises ConfigError when the kernel refuses namespaces and allow_weaker is False, or when no program runs at all.
    """

    def __init__(self, limits: Limits | None = None, *, allow_weaker: bool = False) -> None:
        self.limits = limits or Limits()
        self.isolation: Isolation = "namespaces"
        problem = self._problem()
        if problem and allow_weaker:
            self.isolation = "limits"
            problem = self._problem()
        if problem:
            raise ConfigError(f"generated programs cannot be isolated here ({problem})")

    def facts(self) -> dict[str, Any]:
        return {"isolation": self.isolation, **asdict(self.limits)}

    def run(self, program: str) -> Outcome:
        """Runs Python source to its end. Raises ConfigError when the sandbox itself fails."""
        begin = time.perf_counter()
        token = secrets.token_hex(16)
        with tempfile.TemporaryDirectory(prefix="inferd-eval-", ignore_cleanup_errors=True) as directory:
            if self.isolation == "limits" and os.geteuid() == 0:
                os.chown(directory, jail.NOBODY, jail.NOBODY)
            code, output, error = self._run_jail(directory, json.dumps({"program": program, "token": token}))
        seconds = time.perf_counter() - begin
        if code == jail.CANNOT_BUILD and error:  # a program may end with that code too, but has no standard error
            raise ConfigError(f"the sandbox failed: {error.strip()}")
        return _outcome(code, output, token, seconds)

    def _problem(self) -> str:
        """Why a program that does nothing does not pass; "" when it does."""
        try:
            outcome = self.run("pass")
        except ConfigError as error:
            return str(error)
        return "" if outcome.status == "passed" else f"an empty program {outcome.status}: {outcome.detail}"

    def _run_jail(self, directory: str, job: str) -> tuple[int, bytes, str]:
        command = [sys.executable, "-I", "-S", jail.__file__, json.dumps(self._config(directory))]
        environment = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}
        with tempfile.TemporaryFile() as stdin:
            stdin.write(job.encode("utf-8", "surrogatepass"))
            stdin.seek(0)
            process = subprocess.Popen(
                command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=environment, cwd=directory, start_new_session=True,
            )  # fmt: skip
        try:
            return _collect(process, time.monotonic() + self.limits.wall_seconds + _GRACE_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()

    def _config(self, directory: str) -> dict[str, Any]:
        limits = self.limits
        return {
            "caller": os.getpid(),
            "namespaces": self.isolation == "namespaces",
            "directory": directory,
            "python": os.path.realpath(sys.executable),
            "python_prefix": os.path.realpath(sys.base_prefix),
            "wall_seconds": limits.wall_seconds,
            "disk_bytes": limits.disk_bytes,
            "limits": {
                "RLIMIT_CPU": math.ceil(limits.wall_seconds) + 1,
                "RLIMIT_AS": limits.memory_bytes,
                "RLIMIT_FSIZE": limits.disk_bytes,
                "RLIMIT_NOFILE": limits.num_files,
                "RLIMIT_NPROC": limits.num_processes,
                "RLIMIT_CORE": 0,
            },
        }


def _collect(process: subprocess.Popen[bytes], deadline: float) -> tuple[int, bytes, str]:
    """Exit code, at most _MAX_VERDICT bytes of output, errors. A program that floods the pipe is cut off."""
    assert process.stdout is not None
    assert process.stderr is not None
    output = b""
    while len(output) < _MAX_VERDICT:
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        piece = os.read(process.stdout.fileno(), _MAX_VERDICT - len(output)) if ready else b""
        if not piece:
            break
        output += piece
    if len(output) == _MAX_VERDICT:
        return jail.KILLED + signal.SIGPIPE, b"", ""
    try:
        code = process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return jail.TIME_IS_UP, b"", ""
    os.set_blocking(process.stderr.fileno(), False)
    return code, output, (process.stderr.read() or b"").decode(errors="replace")


def _outcome(code: int, output: bytes, token: str, seconds: float) -> Outcome:
    with contextlib.suppress(ValueError, RecursionError):
        verdict = json.loads(output)
        if isinstance(verdict, dict) and verdict.get("token") == token:
            status: Status = "passed" if verdict.get("status") == "passed" else "failed"
            return Outcome(status, str(verdict.get("detail", "")), seconds)
    if code == jail.TIME_IS_UP:
        return Outcome("timeout", f"still running after {seconds:.1f} s", seconds)
    number = code - jail.KILLED if code > jail.KILLED else -code if code < 0 else 0
    if number in set(signal.Signals):
        why = _SIGNALS.get(signal.Signals(number), "")
        return Outcome("killed", signal.Signals(number).name + (f" ({why})" if why else ""), seconds)
    return Outcome("killed", f"exit code {code} without a verdict", seconds)

