"""A declared pipeline over HTTP: columns, a predictive model, labels; and what is said of mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("onnxruntime")
from support.onnx_models import linear
from support.server import running

STEPS = """
name: choose
steps:
  - columns: {names: [a, b, c]}
  - scale: {subtract: 1, divide: [1, 2, 4]}
  - infer: {model: linear, output: y}
  - softmax
  - labels: {names: [left, right], top: 2}
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("p")
    model = linear(folder / "linear.onnx")
    (folder / "p.yaml").write_text(STEPS)
    with running(models=[str(model)], worker_factory="", pipelines=[str(folder / "p.yaml")]) as (base, _):
        yield base


def post(url: str, status: int = 200, path: str = "choose", **body: Any) -> Any:
    reply = httpx.post(f"{url}/v1/pipelines/{path}", json=body, timeout=30)
    assert reply.status_code == status, reply.text
    return reply.json()


def test_a_pipeline_runs_and_times_its_steps(url: str) -> None:
    rows = [{"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 5, "c": -3}]
    reply = post(url, input=rows)
    for row, best in zip(rows, reply["output"], strict=True):
        x = [row["a"] - 1, (row["b"] - 1) / 2, (row["c"] - 1) / 4]
        y = [sum(x[i] * (2 * i + j - 2) for i in range(3)) + (0.5, -0.5)[j] for j in range(2)]
        expected = ["left", "right"] if y[0] > y[1] else ["right", "left"]
        assert [entry["label"] for entry in best] == expected
        assert sum(entry["score"] for entry in best) == pytest.approx(1)
    assert [stage["step"] for stage in reply["stages"]] == ["columns", "scale", "infer", "softmax", "labels"]
    assert all(stage["seconds"] >= 0 for stage in reply["stages"])


def test_pipelines_are_listed(url: str) -> None:
    [one] = httpx.get(f"{url}/v1/pipelines").json()["data"]
    assert (one["id"], one["models"]) == ("choose", ["linear"])


def test_mistakes_are_named(url: str) -> None:
    assert "input[0].c must be a number" in post(url, 400, input=[{"a": 1, "b": 1}])["error"]["message"]
    assert "input must be given" in post(url, 400)["error"]["message"]
    assert "extra" in post(url, 400, input=1, extra=2)["error"]["message"]
    assert "no pipeline 'none'" in post(url, 404, "none", input=1)["error"]["message"]


def test_a_pipeline_of_a_model_that_is_not_served_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("steps: [{infer: {model: elsewhere}}]")
    with running(pipelines=[str(tmp_path / "p.yaml")]) as (base, process):
        assert base == ""
        assert process.wait(10) != 0
