"""inferd batch run: with a server of its own, killed and started again, and with one that runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from support.server import running

RUN = [sys.executable, "-m", "inferd", "batch", "run"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RUN, *arguments], capture_output=True, text=True, timeout=120, check=False)


def write(path: Path, count: int, **fields: Any) -> Path:
    def line(i: int) -> dict[str, Any]:
        body = {"model": "any", "prompt": f"Number {i}", "max_tokens": 8, **fields}
        return {"custom_id": f"{i}", "method": "POST", "url": "/v1/completions", "body": body}

    path.write_text("".join(json.dumps(line(i)) + "\n" for i in range(count)))
    return path


def ids(path: Path) -> list[str]:
    return sorted((json.loads(line)["custom_id"] for line in path.read_text().splitlines()), key=int)


def test_a_server_of_its_own_that_is_killed_goes_on(smollm2: str, home: Path) -> None:
    file, out = write(home / "in.jsonl", 300, max_tokens=30, ignore_eos=True), home / "out.jsonl"
    command = [*RUN, str(file), "-o", str(out), "--model", smollm2]
    journal = home / "out.jsonl.journal" / "jobs.db"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not journal.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1.0)
        process.kill()
    assert not out.exists()
    ended = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert (told["status"], told["total"], told["completed"], told["failed"]) == ("completed", 300, 300, 0)
    assert ids(out) == [f"{i}" for i in range(300)]
    assert not journal.parent.exists()


def test_a_running_server_and_what_goes_wrong(home: Path) -> None:
    out = home / "in.output.jsonl"
    with running(batch_dir=str(home / "batches")) as (url, _):
        done = run(str(write(home / "in.jsonl", 5, model="mock/model")), "--url", url)
        assert (done.returncode, ids(out)) == (0, ["0", "1", "2", "3", "4"]), done.stderr
        assert done.stdout == f"5 answers in {out}\n"
        failed = run(str(write(home / "in.jsonl", 2)), "--url", url)
        assert failed.returncode == 1
        assert "2 lines have no answer" in failed.stderr
        assert ids(home / "in.output.jsonl.errors") == ["0", "1"]
        assert not out.exists()
        (home / "in.jsonl").write_text("{\n")
        refused = run(str(home / "in.jsonl"), "--url", url)
        assert (refused.returncode, "line 1: This line is not valid JSON." in refused.stderr) == (1, True)
    assert run(str(home / "in.jsonl"), "--url", url, "--model", "x").returncode == 2
    gone = run(str(home / "in.jsonl"), "--url", url)
    assert (gone.returncode, "does not answer" in gone.stderr) == (1, True)
