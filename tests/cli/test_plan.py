"""plan: options to report, in this process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from inferd.cli.plan import plan
from inferd.planner.tables import read_table

pytestmark = pytest.mark.usefixtures("home")
FP8 = ("--model", "llama-3-70b", "--hardware", "h200:8", "--precision", "fp8")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(plan, arguments)


def facts(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def fails(*arguments: str, code: int = 2) -> str:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.stderr
    return result.stderr


def test_a_full_report() -> None:
    text = run(*FP8, "--rate", "20").stdout
    for part in ("Memory of one device", "Service at the planned rate", "Break-even against APIs", "Sources"):
        assert part in text
    assert "[" not in text.splitlines()[0]


def test_options_reach_the_plan() -> None:
    base = facts(*FP8)
    assert base["fits"]
    assert facts(*FP8, "--tp", "4")["tp"] == 4
    assert facts(*FP8, "--kv-precision", "fp8")["figures"]["kv_per_token"]["value"] == 160
    assert facts(*FP8, "--rate", "500")["nodes"] > base["nodes"]
    dear = facts(*FP8, "--usd-per-kwh", "0.3", "--pue", "2", "--years", "5")["figures"]
    assert dear["cost.electricity"]["value"] > base["figures"]["cost.electricity"]["value"]
    assert facts(*FP8, "--cost", "network_usd=12345")["figures"]["cost.network"]["value"] == 12345
    assert set(facts(*FP8, "--rent-usd-h", "30")["figures"]) >= {"cost.rent"}
    assert "break_even.gpt-4o-mini" in facts(*FP8, "--api", "gpt-4o-mini")["figures"]


def test_a_model_that_does_not_fit_exits_with_1() -> None:
    result = run("--model", "llama-3-70b", "--hardware", "h100-sxm", "--precision", "fp8", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["fits"] is False


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--model", "llama-3-70b"), "--hardware is missing"),
        (("--hardware", "h200:8"), "--model is missing"),
        ((*FP8, "--rate", "-1"), "rate must be from"),
        ((*FP8, "--tp", "5"), "tp must divide"),
        ((*FP8, "--ttft-s", "0"), "ttft_s must be from 0.001 to 3600 s"),
        ((*FP8, "--cached-fraction", "1.2"), "cached_fraction must be from 0 to 0.99"),
        ((*FP8, "--precision", "fp12"), "precision: 'fp12' is not known; did you mean"),
        ((*FP8, "--hardware", "h300:8"), "hardware: 'h300' is not known"),
        ((*FP8, "--cost", "network=5"), "--cost: 'network' is not known"),
        ((*FP8, "--cost", "network_usd=x"), "write NAME=NUMBER"),
        ((*FP8, "--api", "gpt-9"), "gpt-4o"),
        ((*FP8, "--utilization", "0"), "utilization must be from 0.001 to 1"),
        (("compare", "--model", "llama-3-70b"), "--hardware"),
        (("article", "--id", "B1"), "id: 'B1'"),
        (("--model", "lama-3-70b", "--hardware", "h200:8"), "did you mean llama-3-70b"),
        (("calibrate", "smollm2", "--batches", "1"), "two batches"),
        (("calibrate", "smollm2", "--batches", "1,x"), "--batches must be numbers from 1 to 256"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_allowed(arguments: tuple[str, ...], says: str) -> None:
    assert says in fails(*arguments)


def test_a_gguf_file_is_planned_as_it_is(smollm2: str) -> None:
    told = facts("--model", smollm2, "--hardware", "epyc-9654", "--rate", "0.1")
    assert told["precision"] == "the file's own format"
    gigabytes = told["figures"]["weights_total"]["value"]
    assert 0.98 < gigabytes * 1e9 / Path(smollm2).stat().st_size < 1.0
    assert told["figures"]["parameters"]["value"] == pytest.approx(0.1345, rel=1e-3)


def test_a_config_json_is_a_model(tmp_path: Path) -> None:
    config = {
        "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 8192,
    }  # fmt: skip
    path = tmp_path / "my-llama" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(config))
    by_file, by_folder = (facts("--model", str(p), "--hardware", "h100-sxm") for p in (path, path.parent))
    assert by_file == by_folder
    assert by_file["model"] == "my-llama"
    assert by_file["figures"]["parameters"]["value"] == pytest.approx(8.030, rel=1e-3)
    path.write_text(json.dumps(config | {"hidden_size": None}))
    assert "hidden_size" in fails("--model", str(path), "--hardware", "h100-sxm")


def test_compare_lists_one_row_for_each_node() -> None:
    arguments = ("compare", "--model", "llama-3-8b", "--hardware", "h100-sxm", "--hardware", "l40s")
    lines = run(*arguments).stdout.splitlines()
    assert len(lines) == 3
    assert [report["hardware"] for report in facts(*arguments)] == ["1x H100 SXM5 80GB", "1x L40S"]
    assert run(*arguments, "--markdown").stdout.startswith("| hardware |")


def test_the_article_lists_61_claims_with_the_verdicts_of_the_audit() -> None:
    audit = [(row["id"], row["verdict"]) for row in read_table("article_audit")]
    assert [(finding["id"], finding["verdict"]) for finding in facts("article")] == audit
    assert run("article").stdout.splitlines()[-1] == "61 claims"
    assert run("article", "--id", "A30", "--markdown").stdout.count("\n") == 3


def test_catalogues_are_listed() -> None:
    assert "h200-sxm" in run("hardware").stdout
    assert len(facts("hardware")) == len(read_table("hardware_catalogue"))
    assert "deepseek-v3" in run("models").stdout
    assert {model["name"] for model in facts("models")} >= {"llama-3-405b", "mixtral-8x7b", "smollm2-135m"}


def test_a_plot_without_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    assert "inferd[plots]" in fails(*FP8, "--plot", str(tmp_path / "x.png"), code=1)
    assert "plot must end in .png" in fails(*FP8, "--plot", str(tmp_path / "x.gif"))


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_plot_is_drawn(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"plan{suffix}"
    assert run(*FP8, "--plot", str(path)).exit_code == 0
    assert path.stat().st_size > 5000


def test_calibrate_writes_a_file_that_plan_reads(smollm2: str, tmp_path: Path) -> None:
    path = tmp_path / "local.json"
    quick = ("--batches", "1,4", "--prompts", "16,64", "--repeat", "1")
    told = facts("calibrate", smollm2, "--output", str(path), *quick, "--check")
    assert [anchor["batch"] for anchor in told["decode"]] == [1, 4, 4]
    assert {row["what"].partition(",")[0] for row in told["check"]} >= {"ITL at batch 3", "prompt of 256 tokens"}
    assert all(row["predicted"] > 0 < row["measured"] for row in told["check"])
    report = facts(
        "--model", smollm2, "--hardware", "reference-machine", "--calibration", str(path), "--rate", "0.05",
        "--server-usd", "1000", "--node-watts", "80", "--max-batch", "4",
    )  # fmt: skip
    assert report["figures"]["itl_1"]["label"] == "calibrated"
    assert report["figures"]["usd_output"]["value"] > 0


def test_a_calibration_that_is_not_there(tmp_path: Path) -> None:
    assert "nowhere.json" in str(run(*FP8, "--calibration", str(tmp_path / "nowhere.json")).exception)
