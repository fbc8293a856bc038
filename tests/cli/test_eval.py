"""inferd eval on the small model: figures, files that are continued, and mistakes in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from inferd.errors import ConfigError
from inferd.eval.sandbox import Sandbox

EVAL = [sys.executable, "-m", "inferd", "eval"]
TEXT = "It is a truth that a small model is measured with a small text, again and again. " * 40


def evaluate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*EVAL, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def figures(*arguments: str | Path) -> Any:
    done = evaluate(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    fixed = {"choices": list("1234"), "subject": "sums"}
    rows = [{"question": f"What is {i % 4} + 1?", "answer": i % 4, **fixed} for i in range(5)]
    for part in ("test", "dev"):
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    word_problems = [{"question": f"Ann has {i} apples and gets 1.", "answer": f"#### {i + 1}"} for i in (2, 3)]
    for name in ("words/test", "words/train"):
        path = tmp_path / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in word_problems))
    return tmp_path


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    try:
        Sandbox()
    except ConfigError as error:
        pytest.skip(str(error))
    path = tmp_path / "problems.jsonl"
    rows = [
        {
            "task_id": f"T/{i}",
            "prompt": f'def add_{i}(x: int) -> int:\n    """Return x + {i}."""\n',
            "entry_point": f"add_{i}",
            "test": f"def check(f):\n    assert f(1) == {i + 1}",
        }
        for i in range(3)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_quality_against_reference_model_and_file(smollm2: str, text: Path, tmp_path: Path) -> None:
    options = ("--text", text, "--window", "64", "--windows", "3")
    against = figures("quality", smollm2, *options, "--baseline", "reference", "-o", tmp_path / "r.json")
    assert 0 < against["summary"]["kl_nats_per_token"] < 0.02
    assert against["summary"]["same_top_token"] > 0.9
    assert 1 < against["summary"]["perplexity"]["value"] < 200
    assert against == json.loads((tmp_path / "r.json").read_text())
    file = tmp_path / "base"
    assert evaluate("quality", smollm2, *options, "--save-baseline", file).returncode == 0
    from_file = figures("quality", smollm2, *options, "--baseline", file)["summary"]
    from_model = figures("quality", smollm2, *options, "--baseline", smollm2)["summary"]
    assert (from_file["kl_nats_per_token"], from_file["same_top_token"]) == (0.0, 1.0)
    assert (from_model["kl_nats_per_token"], from_model["same_top_token"]) == (0.0, 1.0)
    assert from_model["perplexity"] == against["summary"]["perplexity"]


def test_what_a_result_records(smollm2: str, questions: Path) -> None:
    run = figures("mmlu", smollm2, "--data", questions, "--shots", "2", "--seed", "3")["run"]
    assert run["model"]["sha256"] == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert run["executor"]["name"] == "native"
    assert (run["prompt_format"], run["num_shots"], run["seed"]) == ("completion", 2, 3)
    assert run["sampling"]["temperature"] == 0
    assert {"inferd", "python", "numpy"} <= set(run["versions"])


def test_a_run_that_was_stopped_goes_on(smollm2: str, questions: Path, tmp_path: Path) -> None:
    options = ("gsm8k", smollm2, "--data", questions / "words", "--shots", "1", "--max-tokens", "24")
    path = tmp_path / "r.json"
    stopped = evaluate(*options, "-o", path, "--time-limit", "0.0001")
    assert (stopped.returncode, stopped.stderr) == (75, "")
    assert json.loads(path.read_text())["samples"] == {}
    whole = figures(*options)
    resumed = figures(*options, "-o", path)
    assert resumed["summary"] == whole["summary"]
    assert json.loads(path.read_text())["samples"] == whole["samples"]
    other = evaluate(*options, "-o", path, "--seed", "5")
    assert (other.returncode, other.stderr.count("\n")) == (1, 1)
    assert "seed was 0, and is 5 now" in other.stderr


def test_humaneval_runs_what_the_model_writes(smollm2: str, problems: Path) -> None:
    facts = figures("humaneval", smollm2, "--problems", problems, "--max-tokens", "96")
    assert facts["run"]["prompt_format"] == "chat"
    assert facts["run"]["sandbox"]["isolation"] == "namespaces"
    assert facts["summary"]["num_items"] == 3
    assert sum(facts["summary"]["statuses"].values()) == 3
    drawn = ("--temperature", "0.8", "-n", "10", "--seed", "1", "--max-tokens", "48")
    summary = figures("humaneval", smollm2, "--problems", problems, "--prompt-format", "completion", *drawn)["summary"]
    assert sum(summary["statuses"].values()) == 30
    assert 0 < summary["pass@1"] <= summary["pass@10"]
    assert summary["pass@10"] == summary["num_solved"] / 3  # with all ten answers there is nothing left to draw


def test_the_table_compares_with_the_first(smollm2: str, text: Path, questions: Path, tmp_path: Path) -> None:
    options = ("--folder", tmp_path / "f", "--text", text, "--windows", "1", "--mmlu", questions, "--limit", "2")
    twice = (f"first={smollm2}", f"second={smollm2}")
    stopped = evaluate("table", *twice, *options, "--time-limit", "0.0001")
    assert (stopped.returncode, stopped.stdout) == (75, "")
    first, second = figures("table", *twice, *options)
    assert (first["variant"], first["gain"]["decode_1"], first["gain"]["memory"]) == ("first", 1.0, 1.0)
    assert second["quality"]["kl_nats_per_token"] == 0.0
    assert second["mmlu"] == first["mmlu"]
    assert {run["model"]["sha256"][:8] for run in second["runs"].values()} == {"b179c952"}
    assert second["speed"]["decode_8_tok_s"] > second["speed"]["decode_1_tok_s"] > 0
    again = evaluate("table", *twice, *options)
    heads = again.stdout.splitlines()[0].split("  ")
    assert {"VARIANT", "MMLU", "PERPLEXITY", "KL", "MEMORY"} <= {head.strip() for head in heads}


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("mmlu", "MODEL", "--data", "DIR"), 1, "holds neither test.jsonl nor test/*_test.csv"),
        (("quality", "MODEL", "--text", "FILE"), 1, "window must be at most the"),
        (("quality", "MODEL", "--text", "FILE", "--window", "33"), 1, "window must be a multiple of 32"),
        (("quality", "MODEL", "--text", "FILE", "--baseline", "x", "--save-baseline", "y"), 2, "--save-baseline goes"),
        (("humaneval", "MODEL", "--problems", "FILE"), 1, "not valid JSON"),
        (("humaneval", "MODEL", "--problems", "FILE", "--timeout", "0"), 2, "wall_seconds must be from"),
        (("humaneval", "MODEL", "--problems", "FILE", "--temperature", "-1"), 2, "temperature must be"),
        (("table", "a=MODEL", "a=MODEL", "--folder", "DIR"), 2, "variants must have different names"),
        (("table", "a/b=MODEL", "--folder", "DIR"), 2, "a variant's name must be of letters"),
    ],
)
def test_mistakes_are_one_line(smollm2: str, tmp_path: Path, arguments: tuple[str, ...], code: int, what: str) -> None:
    (tmp_path / "file").write_text("a few words\n")
    values = {"MODEL": smollm2, "DIR": str(tmp_path), "FILE": str(tmp_path / "file")}
    given = (value.replace("=MODEL", f"={smollm2}") for value in arguments)
    done = evaluate(*[values.get(value, value) for value in given])
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert what in done.stderr
