"""The predictive examples as a user would run them, line by line of their README."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.server import free_port, serving

FOLDER = Path(__file__).parents[1] / "examples" / "predictive"


def run(*command: object) -> str:
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def example(name: str, *arguments: object) -> str:
    return run(sys.executable, FOLDER / f"{name}.py", *arguments)


def share(text: str) -> float:
    """The first percentage of a text."""
    found = re.search(r"([\d.]+)%", text)
    assert found, text
    return float(found[1])


def test_a_score_for_a_row(tmp_path: Path) -> None:
    assert share(example("tabular_train", tmp_path / "screening")) > 90
    with serving(tmp_path / "screening") as url:
        lines = example("tabular_ask", url.removeprefix("http://"), "screening").splitlines()
    scores = [tuple(map(float, re.findall(r"\d\.\d+", line))) for line in lines]
    assert len(scores) == 5
    assert all(abs(malignant + benign - 1) < 0.002 for malignant, benign in scores)
    assert scores[0][0] > 0.9  # the first tumours of the data are malignant


def test_an_image_to_a_class(tmp_path: Path) -> None:
    assert share(example("images_train", tmp_path / "digits")) > 95
    port = free_port()
    with serving(tmp_path / "digits", "--grpc-port", port):
        answers = re.findall(r"read (\d) .* written (\d)", example("images_ask", f"127.0.0.1:{port}", "digits"))
    assert len(answers) == 20
    assert sum(read == written for read, written in answers) >= 18


def test_which_machines_will_fail(tmp_path: Path) -> None:
    assert share(example("maintenance_train", tmp_path / "m", 20_000)) > 80
    output = tmp_path / "failures.csv"
    told = run(
        sys.executable, "-m", "inferd", "predict", tmp_path / "m", tmp_path / "m" / "fleet.csv", "-o", output,
        "--keep", "row",
    )  # fmt: skip
    assert "20000 rows" in told
    with open(output, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == list(range(20_000))
    assert list(rows[0]) == ["row", "label", "probabilities_runs", "probabilities_fails"]
    assert 0 < sum(float(row["probabilities_fails"]) > 0.5 for row in rows) < 5000


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_each_is_in_the_readme(path: Path) -> None:
    assert path.name in (FOLDER / "README.md").read_text()
