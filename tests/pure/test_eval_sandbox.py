"""Hostile programs: each is ended or held, and the machine is as it was."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inferd.errors import ConfigError
from inferd.eval.sandbox import Limits, Sandbox

SYSTEM_PYTHON = "/usr/bin/python3"
LIMITS = Limits(wall_seconds=2.0, memory_bytes=256 * 2**20, num_processes=6)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    try:
        return Sandbox(LIMITS)
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture
def weak_sandbox(monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """As on a kernel without namespaces."""
    config = Sandbox._config

    def refuse(self: Sandbox, directory: str) -> dict[str, object]:
        if self.isolation == "namespaces":
            raise ConfigError("unshare: Operation not permitted")
        facts = config(self, directory)
        if os.geteuid() == 0 and Path(SYSTEM_PYTHON).exists():  # ours may lie where only root may read
            facts["python"] = SYSTEM_PYTHON
        return facts

    monkeypatch.setattr(Sandbox, "_config", refuse)
    with pytest.raises(ConfigError, match="unshare: Operation not permitted"):
        Sandbox(LIMITS)
    try:
        return Sandbox(LIMITS, allow_weaker=True)
    except ConfigError as error:
        pytest.skip(str(error))


def test_verdicts(sandbox: Sandbox) -> None:
    assert sandbox.isolation == "namespaces"
    assert sandbox.run("assert 1 + 1 == 2").status == "passed"
    failed = sandbox.run("assert 1 + 1 == 3, 'three'")
    assert (failed.status, failed.detail) == ("failed", "AssertionError: three")
    assert sandbox.run("def f(:").detail.startswith("SyntaxError")
    assert sandbox.run("import json, re, math, collections, typing, hashlib, dataclasses").status == "passed"
    assert sandbox.run("x = '\\ud800'\nassert len(x) == 1").status == "passed"


@pytest.mark.parametrize(
    ("program", "status", "detail"),
    [
        ("raise SystemExit(0)", "failed", "SystemExit"),
        ("import os; os._exit(0)", "killed", "exit code 0 without a verdict"),
        ("import os; os._exit(125)", "killed", "exit code 125 without a verdict"),
        ("import os; os._exit(255)", "killed", "exit code 255 without a verdict"),
        ("import os; os.closerange(0, 1000)", "killed", "without a verdict"),
        ("import ctypes; ctypes.string_at(0)", "killed", "SIGSEGV"),
        ("def f(): f()\nf()", "failed", "RecursionError"),
        ("bytearray(10**9)", "failed", "MemoryError"),
        ("x = []\nwhile True: x.append(bytes(2**20))", "failed", "MemoryError"),
        ("input()", "failed", "EOFError"),
    ],
)  # fmt: skip
def test_programs_that_end_badly(sandbox: Sandbox, program: str, status: str, detail: str) -> None:
    outcome = sandbox.run(program)
    assert (outcome.status, detail in outcome.detail) == (status, True), outcome


@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "import signal, time\nfor s in set(signal.Signals) - {9, 19}: signal.signal(s, signal.SIG_IGN)\ntime.sleep(60)",
        "import os, time\nos.fork()\ntime.sleep(60)",
        "import threading\nthreading.Thread(target=lambda: [None for _ in iter(int, 1)]).start()\nwhile True: pass",
    ],
)  # fmt: skip
def test_the_wall_clock_ends_what_does_not_end(sandbox: Sandbox, program: str) -> None:
    begin = time.monotonic()
    assert sandbox.run(program).status == "timeout"
    assert time.monotonic() - begin < LIMITS.wall_seconds + 2
    assert descendants() == []


def test_a_fork_bomb_is_bounded(sandbox: Sandbox) -> None:
    bomb = "import os\nn = 0\nwhile True:\n  if os.fork() == 0:\n    import time; time.sleep(60)\n  n += 1\n"
    outcome = sandbox.run(bomb)
    assert (outcome.status, "BlockingIOError" in outcome.detail) == ("failed", True), outcome
    assert sandbox.run("import os\nwhile True:\n  os.fork()").status in ("failed", "killed", "timeout")
    assert descendants() == []


def test_what_a_program_leaves_behind_dies_with_it(sandbox: Sandbox) -> None:
    daemon = "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0: time.sleep(60)\n  os._exit(0)"
    assert sandbox.run(daemon).status == "passed"
    assert descendants() == []


def test_there_is_no_network(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        outcome = sandbox.run(f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)")
    assert (outcome.status, "unreachable" in outcome.detail) == ("failed", True), outcome


def test_files_outside_are_neither_read_nor_written(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    for program in (
        f"open({str(secret)!r}).read()",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        "open('/etc/passwd').read()",
        "import os; os.listdir('/proc')",
        "import os; os.listdir('/home')",
    ):
        assert "FileNotFoundError" in sandbox.run(program).detail, program
    for path in ("/x", "/usr/lib/x", "/dev/x", os.path.realpath(sys.base_prefix) + "/x"):
        assert "Read-only" in sandbox.run(f"open({path!r}, 'w')").detail, path
    assert list(tmp_path.iterdir()) == [secret]


def test_its_own_folder_is_small_and_vanishes(sandbox: Sandbox) -> None:
    before = set(Path("/tmp").glob("inferd-eval-*"))
    assert sandbox.run("import os; assert os.getcwd() == '/tmp' and not os.listdir()").status == "passed"
    assert sandbox.run("open('a', 'w').write('x' * 2**20)").status == "passed"
    fill = "for i in range(9):\n  with open(str(i), 'wb') as f: f.write(bytes(2**23))"
    assert "No space left" in sandbox.run(fill).detail
    assert "too large" in sandbox.run("open('a', 'wb').write(bytes(2**26))").detail
    assert "Too many open files" in sandbox.run("x = [open(str(i), 'w') for i in range(100)]").detail
    assert set(Path("/tmp").glob("inferd-eval-*")) == before


def test_its_caller_is_out_of_reach(sandbox: Sandbox) -> None:
    kill = (
        "import os\n"
        "for pid in (os.getppid(), -1, -os.getpgid(0), {pid}):\n"
        "  try: os.kill(pid, 9)\n"
        "  except OSError: pass"
    )
    assert sandbox.run(kill.format(pid=os.getpid())).status == "passed"
    assert sandbox.run("import os; assert (os.getpid(), os.getppid()) == (1, 0)").status == "passed"


def test_it_gains_no_rights(sandbox: Sandbox) -> None:
    refused = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nassert libc.{call} != 0"
    for call in ("unshare(0x10000000)", "mount(b'none', b'/tmp', b'tmpfs', 0, None)", "setuid(0)", "chroot(b'/tmp')"):
        assert sandbox.run(refused.format(call=call)).status == "passed", call


def test_no_secret_is_inherited(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERD_API_KEY", "s3cret")
    outcome = sandbox.run("import os; raise ValueError(sorted(os.environ))")
    assert outcome.detail == "ValueError: ['HOME', 'LANG', 'PATH']"


def test_a_gigabyte_of_output_goes_nowhere(sandbox: Sandbox) -> None:
    before = resident_bytes()
    limits = Limits(wall_seconds=20)
    outcome = Sandbox(limits).run("line = 'x' * 2**20\nfor _ in range(1024): print(line)")
    assert outcome.status == "passed"
    flood = (
        "import os\nfor fd in range(3, 20):\n  try:\n    while True: os.write(fd, bytes(65536))\n  except OSError: pass"
    )
    assert sandbox.run(flood).status == "killed"
    assert resident_bytes() - before < 64 * 2**20


@pytest.mark.parametrize("verdict", ['b\'{"token": "", "status": "passed"}\'', "b'[' * 50000", "b'\\xff'"])
def test_a_verdict_needs_the_token(sandbox: Sandbox, verdict: str) -> None:
    forge = "import os\nfor fd in range(3, 20):\n  try: os.write(fd, {})\n  except OSError: pass\nos._exit(0)"
    assert sandbox.run(forge.format(verdict)).status == "killed"


def test_without_namespaces_it_still_limits(weak_sandbox: Sandbox) -> None:
    assert weak_sandbox.facts()["isolation"] == "limits"
    assert weak_sandbox.run("assert True").status == "passed"
    assert weak_sandbox.run("while True: pass").status == "timeout"
    assert weak_sandbox.run("bytearray(10**9)").detail == "MemoryError: "
    daemon = "import os, time\nif os.fork() == 0:\n  os.setsid()\n  time.sleep(60)\n"
    assert weak_sandbox.run(daemon).status in ("passed", "failed")  # failed: this user has too many processes to fork
    assert descendants() == []


def test_the_jail_dies_with_its_caller(sandbox: Sandbox) -> None:
    code = (
        "from inferd.eval.sandbox import Limits, Sandbox\n"
        "sandbox = Sandbox(Limits(wall_seconds=60))\nprint('ready', flush=True)\nsandbox.run('while True: pass')"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "ready\n"
        while not jails_of(caller.pid):
            time.sleep(0.02)
        (pid,) = jails_of(caller.pid)
        caller.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1]


def test_limits_out_of_range() -> None:
    with pytest.raises(ConfigError, match=r"wall_seconds must be from 0\.1 to 600, got 0"):
        Limits(wall_seconds=0)
    with pytest.raises(ConfigError, match="num_processes must be from 1"):
        Limits(num_processes=0)


def test_an_unbuildable_jail_says_why(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Sandbox._config
    monkeypatch.setattr(Sandbox, "_config", lambda self, d: {**config(self, d), "python": "/nowhere/python"})
    with pytest.raises(ConfigError, match=r"the sandbox failed: .*No such file"):
        sandbox.run("pass")


def jails_of(pid: int) -> list[int]:
    return [child for child in children(pid) if b"jail.py" in Path(f"/proc/{child}/cmdline").read_bytes()]


def descendants() -> list[int]:
    """Of this process, but for those that earlier tests keep; the orphans of a program would be children of process 1,
    whose command line is the runner's."""
    runners = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if b"program.py" in contents(path) and b"exec(compile" in contents(path)
    ]
    return [child for child in children(os.getpid()) if child not in KEPT] + runners


KEPT: set[int] = set()


@pytest.fixture(autouse=True)
def _kept() -> None:
    """Servers and compilers of grammars that were there before the test."""
    KEPT.clear()
    KEPT.update(children(os.getpid()))


def contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
