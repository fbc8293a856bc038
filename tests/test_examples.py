"""Every example runs as a user would run it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.models import model_path
from support.server import serving

EXAMPLES = Path(__file__).parents[1] / "examples"
OFFLINE = {  # name -> what its output must hold
    "offline": "The capital of France is",
    "batch_prompts": "32 answers",
    "logprobs": "rank 1",
    "token_ids": "control tokens",
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(model_path("smollm2"), "--served-model-name", "smollm2") as base:
        yield base + "/v1"


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("name", OFFLINE)
def test_offline_example(name: str) -> None:
    assert OFFLINE[name] in run(name, str(model_path("smollm2")))


def test_chat_stream(url: str) -> None:
    assert "tokens]" in run("chat_stream", url, "smollm2")


def test_all_examples_are_run_and_short() -> None:
    files = {path.stem: path for path in EXAMPLES.glob("*.py")}
    assert set(files) == {*OFFLINE, "chat_stream"}
    assert all(len(path.read_text().splitlines()) < 40 for path in files.values())
