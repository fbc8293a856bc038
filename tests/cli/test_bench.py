"""inferd bench from the command line, against a server with the mock engine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from inferd.bench.config import LoadConfig
from inferd.cli.bench import bench
from inferd.cli.main import cli
from support.server import running

VLLM_KEYS = {
    "date", "backend", "model_id", "num_prompts", "request_rate", "burstiness", "max_concurrency", "duration",
    "completed", "failed", "total_input_tokens", "total_output_tokens", "request_throughput", "request_goodput",
    "output_throughput", "total_token_throughput",
    *(f"{key}_{name}_ms" for key in ("mean", "median", "std", "p50", "p90", "p95", "p99")
      for name in ("ttft", "tpot", "itl", "e2el")),
}  # fmt: skip


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(api_keys=["secret"]) as (address, _):
        yield address


def invoke(*arguments: str) -> Result:
    environment = {"INFERD_API_KEY": None, "OPENAI_API_KEY": None}
    return CliRunner().invoke(cli, ["bench", *arguments], env=environment, catch_exceptions=False)


def serve(url: str, *arguments: str) -> Result:
    return invoke("serve", "--url", url, "--api-key", "secret", "--num-prompts", "5", "--input-len", "300",
                  "--output-len", "8", *arguments)  # fmt: skip


def test_a_report_has_the_keys_that_vllm_writes(url: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    result = serve(url, "--max-concurrency", "2", "--output", str(path), "--save-detailed", "--label", "mock")
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert set(report) >= VLLM_KEYS
    assert (report["completed"], report["failed"], report["total_output_tokens"]) == (5, 0, 40)
    assert (report["output_token_source"], report["chunk_token_source"]) == ("usage", "usage")
    assert report["url"] == url
    assert report["arguments"]["api_key"] == "***"
    assert "secret" not in path.read_text()
    assert len(report["ttfts"]) == len(report["itls"]) == 5
    assert report["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert "5 done, 0 failed" in result.stdout
    assert "time to first token" in result.stdout


def test_a_sweep_with_goodput_and_a_page(url: str, tmp_path: Path) -> None:
    paths = tmp_path / "s.json", tmp_path / "s.html"
    result = serve(url, "--request-rate", "50,100", "--goodput", "ttft:60000", "--goodput", "tpot:60000",
                   "--output", str(paths[0]), "--plot", str(paths[1]), "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report == json.loads(paths[0].read_text())
    assert [run["request_rate"] for run in report["runs"]] == [50.0, 100.0]
    assert [run["goodput_share"] for run in report["runs"]] == [1.0, 1.0]
    assert report["max_rate_within_goodput"] == 100.0
    assert paths[1].read_text().count("<svg") == 5
    drawn = invoke("plot", str(paths[0]), str(paths[0]), "--output", str(tmp_path / "both.html"))
    assert drawn.exit_code == 0
    assert "s p50" in (tmp_path / "both.html").read_text()


def test_an_unknown_model_and_a_wrong_key_end_in_one_line(url: str) -> None:
    for arguments, words in ((["--model", "nope"], "no model 'nope' there"), (["--api-key", "x"], "key was refused")):
        result = serve(url, *arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert words in result.stderr
        assert result.stderr.count("\n") == 1


def test_no_server_ends_in_one_line() -> None:
    result = invoke("serve", "--url", "http://127.0.0.1:9", "--num-prompts", "1")
    assert (result.exit_code, result.stderr) == (
        1, "error: http://127.0.0.1:9: cannot connect: Connection refused\n",
    )  # fmt: skip


def test_failures_are_told(url: str) -> None:
    """One in four prompts is longer than the context of the mock."""
    result = serve(url, "--input-len", "3300", "--range-ratio", "0.5", "--num-prompts", "12", "--num-warmups", "8")
    assert result.exit_code == 0, result.output
    assert "HTTP 400" in result.stderr
    assert "maximum context length" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["serve", "--request-rate", "0"], "request_rate"), (["serve", "--request-rate", "a"], "no list of numbers"),
        (["serve", "--goodput", "ttft"], "NAME:NUMBER"), (["serve", "--goodput", "x:1"], "goodput"),
        (["serve", "--extra-body", "[]"], "no"), (["serve", "--extra-body", "{"], "not JSON"),
        (["serve", "--plot", "a.pdf"], ".html or .png"), (["serve", "--output", "none/a.json"], "no folder"),
        (["serve", "--url", "nonsense"], "url must be"), (["serve", "--dataset", "azure"], "dataset_path"),
        (["offline", "x.gguf", "--batch-size", "0"], "batch_size"), (["cold-start", "."  , "--repeat", "0"], "repeat"),
    ],
)  # fmt: skip
def test_misuse_is_named(arguments: list[str], word: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code in (1, 2)
    assert word in result.stderr
    assert "Traceback" not in result.stderr


def test_a_file_that_is_no_report(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")
    result = invoke("plot", str(path), "--output", str(tmp_path / "a.html"))
    assert (result.exit_code, result.stderr) == (1, f"error: {path}: no report of inferd bench serve\n")


def test_every_field_of_the_configuration_has_its_option() -> None:
    command = bench.commands["serve"]
    names = {option.name for option in command.params if isinstance(option, click.Option)}
    assert set(LoadConfig.__dataclass_fields__) <= names


def test_offline(smollm2: str, tmp_path: Path) -> None:
    path = tmp_path / "o.json"
    result = invoke("offline", smollm2, "--batch-size", "1,2", "--input-len", "16", "--output-len", "4",
                    "--repeat", "1", "--max-model-len", "64", "--output", str(path))  # fmt: skip
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(path.read_text())
    assert [run["batch_size"] for run in report["runs"]] == [1, 2]
    assert all(run["decode_throughput"] > 0 for run in report["runs"])
    assert report["kernels"] in ("avx512", "avx2", "baseline")
    assert "PREFILL TOK/S" in result.stdout


def test_cold_start(smollm2: str) -> None:
    result = invoke("cold-start", smollm2, "--repeat", "1", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert 0 < report["run_first_token_s"] < 60
    assert 0 < report["serve_first_token_s"] < 60
