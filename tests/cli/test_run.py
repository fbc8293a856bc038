"""inferd run: one answer for programs, and a chat on a pseudo-terminal with Ctrl-C."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import pytest

RUN = [sys.executable, "-m", "inferd", "run"]
CTRL_C, CTRL_D = "\x03", "\x04"
EXITED = "<the program has ended>"


def run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RUN, *arguments], input=stdin, capture_output=True, text=True, timeout=120, check=False)


def test_one_answer_from_an_argument_or_a_pipe(smollm2: str) -> None:
    options = ("--temperature", "0", "--max-tokens", "12")
    given = run(smollm2, "What is the capital of France?", *options)
    piped = run(smollm2, *options, stdin="What is the capital of France?\n")
    assert (given.returncode, piped.returncode) == (0, 0), given.stderr + piped.stderr
    assert given.stdout.strip()
    assert piped.stdout == given.stdout
    assert given.stderr == ""  # figures are for people: only on a terminal


def test_json_tells_what_was_measured(smollm2: str) -> None:
    result = run(smollm2, "Tell me a story.", "--json", "--max-tokens", "3", "--system", "Be brief.")
    facts = json.loads(result.stdout)
    assert (facts["num_tokens"], facts["finish_reason"]) == (3, "length")
    assert facts["first_token_seconds"] > 0
    assert facts["tokens_per_second"] > 0


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "word"),
    [
        (["--temperature", "-1"], "hi", 2, "temperature must be"),
        (["--max-model-len", "0"], "hi", 2, "max_model_len must be"),
        (["--max-model-len", "64", "--max-tokens", "60"], "hi", 1, "maximum context length is 64"),
        ([], "", 2, "the prompt is empty"),
    ],
)
def test_errors_are_one_line(smollm2: str, arguments: list[str], stdin: str, code: int, word: str) -> None:
    result = run(smollm2, *arguments, stdin=stdin)
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert word in result.stderr


class Terminal:
    """A program on a terminal of its own, so that a typed Ctrl-C becomes a signal as it does for a person."""

    def __init__(self, *command: str) -> None:
        self._fd, side = pty.openpty()
        environment = {**os.environ, "TERM": "dumb"}
        self._process = subprocess.Popen(
            command, stdin=side, stdout=side, stderr=side, env=environment, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(side)
        self._unread = ""

    def expect(self, pattern: str, timeout: float = 60) -> str:
        """Reads until the pattern appears; returns everything up to its end."""
        deadline = time.monotonic() + timeout
        while (match := re.search(pattern, self._unread)) is None:
            ready, _, _ = select.select([self._fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {pattern!r} within {timeout} s in {self._unread!r}"
            self._unread += self._read()
        seen, self._unread = self._unread[: match.end()], self._unread[match.end() :]
        return seen

    def _read(self) -> str:
        try:
            return os.read(self._fd, 4096).decode(errors="replace")
        except OSError:  # the program has closed its side
            assert EXITED not in self._unread, "the program has ended"
            return EXITED

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def press_until(self, key: str, pattern: str) -> None:
        """As a person would: a signal between readline's prompt and its wait is noticed with the next one only."""
        for _ in range(10):
            self.type(key)
            with contextlib.suppress(AssertionError):
                self.expect(pattern, timeout=3)
                return
        raise AssertionError(f"no {pattern!r}")

    def exit_code(self) -> int:
        with contextlib.suppress(OSError):  # the other side of a closed terminal
            while os.read(self._fd, 4096):
                pass
        return self._process.wait(30)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)


@pytest.fixture
def chat(smollm2: str) -> Iterator[Terminal]:
    terminal = Terminal(*RUN, smollm2, "--temperature", "0")
    terminal.expect(">>> ")
    yield terminal
    terminal.close()


def test_ctrl_c_stops_the_answer_and_not_the_program(chat: Terminal) -> None:
    chat.type("Tell me a very long story about a dragon and a princess.\r")
    chat.expect(r"princess\.\r\n(?s:.){20}")
    chat.type(CTRL_C)
    chat.expect(r"\[\d+ tokens, [\d.]+ tok/s, first after \d+ ms, stopped\]")
    chat.expect(">>> ")
    chat.type("/set max_tokens 8\r")
    chat.expect(">>> ")
    chat.type("What is the capital of France?\r")
    chat.expect(r"\[8 tokens, [\d.]+ tok/s, first after \d+ ms\]")
    chat.expect(">>> ")
    chat.press_until(CTRL_C, "Ctrl-C again")
    chat.expect(">>> ")
    chat.press_until(CTRL_C, EXITED)
    assert chat.exit_code() == 0


def test_commands(chat: Terminal) -> None:
    for line, answer in [
        ("/help", "/bye +leave"),
        ("/set", "temperature 0.0"),
        ("/set temperature 0.7", "temperature 0.7"),
        ("/set temperature 700", "error: temperature must be a number from 0 to 100"),
        ("/set nonsense 1", "error: 'nonsense' cannot be set"),
        ("/set top_k many", "error: 'many' is no number"),
        ("/system You are a pirate.", "system message set"),
        ("/clear", "forgotten"),
        ("/dance", "/help lists the commands"),
    ]:
        chat.type(line + "\r")
        chat.expect(answer)
        chat.expect(">>> ")
    chat.type("/bye\r")
    assert chat.exit_code() == 0


def test_ctrl_d_leaves(chat: Terminal) -> None:
    chat.type(CTRL_D)
    assert chat.exit_code() == 0


def test_a_conversation_remembers_and_forgets(chat: Terminal) -> None:
    chat.type("/set max_tokens 4\r")
    chat.expect(">>> ")
    for line in ("Hello", "And again"):
        chat.type(line + "\r")
        chat.expect(r"\[4 tokens")
        chat.expect(">>> ")
    chat.type("/clear\r")
    chat.expect("forgotten")
    chat.expect(">>> ")
    chat.type("Hello\r")
    chat.expect(r"\[4 tokens")
