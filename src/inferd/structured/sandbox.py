"""The parent's side of the child that tries grammars: it is started when needed and killed when it takes too long."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from inferd.errors import EngineError
from inferd.structured.grammar import Controls
from inferd.structured.schema import refusal

MAX_WALL_SECONDS = 10.0  # its own limit is 2 s of processor time


class Sandbox:
    """Any thread may ask; one question at a time."""

    def __init__(self, controls: Controls, vocab_size: int) -> None:
        self._hello = {
            "controls": dict(controls.ids),
            "eos_token_ids": sorted(controls.eos_token_ids),
            "vocab_size": vocab_size,
        }
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def grammar_of(self, kind: str, value: str) -> str:
        """Raises InvalidRequestError when it cannot be held to or is too much work, EngineError without a child."""
        with self._lock:
            answer = self._ask({"kind": kind, "value": value})
        if "error" in answer:
            raise refusal(answer["error"].removeprefix("structured_outputs: "))
        return answer["grammar"]

    def close(self) -> None:
        with self._lock:
            self._end()

    def _ask(self, job: dict[str, str]) -> dict[str, str]:
        for _ in range(2):  # one that was killed from outside between two questions is replaced once
            child = self._child or self._start()
            try:
                _write(child, job)
                break
            except BrokenPipeError:
                self._end()
        else:
            raise EngineError("the process that compiles grammars ends at once")
        line = _read_line(child, time.monotonic() + MAX_WALL_SECONDS)
        if line is None:
            code = self._end()
            slow = code in (-signal.SIGPROF, -signal.SIGKILL)
            raise refusal("it takes too long to compile" if slow else "it is nested too deeply or too large to compile")
        answer: dict[str, str] = json.loads(line)
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "inferd.structured.child"]
        try:
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
            )
        except OSError as error:
            raise EngineError(f"the process that compiles grammars cannot be started: {error.strerror}") from None
        self._child = child
        _write(child, self._hello)
        return child

    def _end(self) -> int | None:
        """How it ended: as subprocess.Popen.returncode."""
        child, self._child = self._child, None
        if child is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.05)  # it may be about to end by itself, and then its own reason counts
        child.kill()
        code = child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                stream.close()
        return code


def _write(child: subprocess.Popen[bytes], message: dict[str, Any]) -> None:
    assert child.stdin is not None
    data = memoryview(json.dumps(message).encode() + b"\n")
    while data:
        data = data[os.write(child.stdin.fileno(), data) :]


def _read_line(child: subprocess.Popen[bytes], deadline: float) -> bytes | None:
    """None when the child ended or the time is up."""
    assert child.stdout is not None
    fd, data, poll = child.stdout.fileno(), bytearray(), select.poll()
    poll.register(fd, select.POLLIN)
    while not data.endswith(b"\n"):
        ready = poll.poll(1000 * max(0.0, deadline - time.monotonic()))
        part = os.read(fd, 2**16) if ready else b""
        if not part:
            return None
        data += part
    return bytes(data)
