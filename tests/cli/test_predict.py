"""`inferd predict`: tables through a model, refused rows, and runs that were killed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import onnx_models


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "inferd", "predict", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, check=False)


def facts(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout))


def write_table(path: Path, rows: list[list[Any]]) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def read_table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = onnx_models.linear(tmp_path / "linear.onnx")
    (tmp_path / "inferd.yaml").write_text("features: {x: [b, a, c]}\nlabels: {y: ['no', 'yes']}\n")
    return path


def test_columns_go_by_name_and_outputs_by_label(tmp_path: Path, model: Path) -> None:
    rows = [["id", "a", "note", "b", "c"], ["r,1", 1, 'two\n"lines"', 2, 3], ["r2", 4.5, "", -1e-3, ""]]
    table = write_table(tmp_path / "in.csv", rows)
    assert facts(model, table, "-o", tmp_path / "out.csv", "--keep", "id", "--keep", "note")["rows"] == 2
    got = read_table(tmp_path / "out.csv")
    assert list(got[0]) == ["id", "note", "y_no", "y_yes", "best"]
    assert [got[0]["id"], got[0]["note"], got[1]["id"]] == ["r,1", 'two\n"lines"', "r2"]
    w, b = np.arange(6).reshape(3, 2) - 2, np.array([0.5, -0.5])
    assert [float(got[0]["y_no"]), float(got[0]["y_yes"])] == (np.array([2, 1, 3]) @ w + b).tolist()
    assert got[1]["y_no"] == "nan"  # an empty cell
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "inferd.yaml", "linear.onnx", "out.csv"]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([["a", "b"], [1, 2]], [], "has no column 'c'"),
        ([["a", "b", "c"], [1, "x", 3]], [], "line 2, column 'b': 'x' is no value of FP32"),
        ([["a", "b", "c"], [1, 2, 3], [1, 2]], [], "line 3: must hold 3 values, got 2"),
        ([["a", "a", "c"], [1, 2, 3]], [], "each column once"),
        ([["a", "b", "c"], [1, 2, 3]], ["--features", "x=a,b"], "takes 3 columns, got 2"),
        ([["a", "b", "c"], [1, 2, 3]], ["--features", "x"], "INPUT=COLUMN"),
        ([["a", "b", "c"], [1, 2, 3]], ["--keep", "z"], "has no column 'z'"),
        ([["a", "b", "c"], [1, 2, 3]], ["--model-version", "7"], "version must be one of 1"),
        ([], [], "has no header"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, model: Path, rows: list[list[Any]], options: list[str], message: str
) -> None:
    result = run(model, write_table(tmp_path / "in.csv", rows), "-o", tmp_path / "out.csv", *options)
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out.csv").exists()


def test_a_quote_that_is_not_closed(tmp_path: Path, model: Path) -> None:
    (tmp_path / "in.csv").write_text('a,b,c\n1,2,3\n"4,5,6\n')
    assert "line 3: a quote is not closed" in run(model, tmp_path / "in.csv", "-o", tmp_path / "out.csv").stderr


def test_rows_that_depend_on_each_other_are_computed_one_by_one(tmp_path: Path) -> None:
    path = onnx_models.centred(tmp_path / "centred.onnx")
    table = write_table(tmp_path / "in.csv", [["a", "b", "c"], [1, 2, 3], [4, 5, 6]])
    facts(path, table, "-o", tmp_path / "out.csv")
    assert [row["y_0"] for row in read_table(tmp_path / "out.csv")] == ["0.0", "0.0"]


def test_a_finished_output_is_not_written_over(tmp_path: Path, model: Path) -> None:
    table = write_table(tmp_path / "in.csv", [["a", "b", "c"], [1, 2, 3]])
    (tmp_path / "out.csv").write_text("mine")
    assert "is there already" in run(model, table, "-o", tmp_path / "out.csv").stderr
    assert (tmp_path / "out.csv").read_text() == "mine"


def big_job(tmp_path: Path) -> list[object]:
    """About two seconds of work, 300 rows in chunks of 10; every row is another."""
    path = onnx_models.slow(tmp_path / "slow.onnx", size=600, num_products=60)
    rng = np.random.default_rng(0)
    rows = [[f"c{i}" for i in range(600)], *rng.integers(0, 9, (300, 600)).tolist()]
    table = write_table(tmp_path / "in.csv", rows)
    return [path, table, "--chunk-rows", 10, "-o"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_ended_goes_on_where_it_was(tmp_path: Path, number: int) -> None:
    job = big_job(tmp_path)
    facts(*job, tmp_path / "whole.csv")
    journal, num_ended, resumed = tmp_path / "out.csv.journal", 0, 0
    for num_lines in (3, 8):  # the identity, and as many chunks
        process = subprocess.Popen(command(*job, tmp_path / "out.csv"), stderr=subprocess.PIPE)
        while process.poll() is None and not (journal.exists() and len(journal.read_bytes().splitlines()) >= num_lines):
            time.sleep(0.002)
        os.kill(process.pid, number)
        process.communicate()
        num_ended += journal.exists()
    resumed = facts(*job, tmp_path / "out.csv")["resumed_rows"]
    assert num_ended == 2
    assert 70 <= resumed < 300
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not journal.exists()


def test_another_job_does_not_go_on(tmp_path: Path, model: Path) -> None:
    table = write_table(tmp_path / "in.csv", [["a", "b", "c"], [1, 2, 3], [4, "x", 6]])
    run(model, table, "-o", tmp_path / "out.csv", "--chunk-rows", 1)
    assert (tmp_path / "out.csv.journal").exists()
    assert "line 3" in run(model, table, "-o", tmp_path / "out.csv", "--chunk-rows", 1).stderr
    write_table(table, [["a", "b", "c"], [1, 2, 3], [4, 5, 6]])
    assert "is of another source" in run(model, table, "-o", tmp_path / "out.csv", "--chunk-rows", 1).stderr
    (tmp_path / "out.csv.journal").unlink()
    assert facts(model, table, "-o", tmp_path / "out.csv")["rows"] == 2


def test_a_text_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    table = write_table(tmp_path / "in.csv", [["a"], [1]])
    assert "no predictive model" in run(tmp_path / "m.gguf", table, "-o", tmp_path / "out.csv").stderr
