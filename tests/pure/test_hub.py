"""Pulls from a hub: the library's real client against a hub on this machine."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferd.errors import MalformedFileError, ModelNotFoundError
from inferd.models import store
from support.fake_hub import Hub, serving

BIG = random.Random(1).randbytes(3_000_000)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as made:
        monkeypatch.setenv("INFERD_HOME", str(tmp_path / "home"))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", made.url)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
                            made.url + "/{repo_id}/resolve/{revision}/{filename}")  # fmt: skip
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", made.url)
        made.files["acme/tiny"] = {
            "tiny.Q4_0.gguf": BIG[:2000], "tiny.Q8_0.gguf": BIG, "README.md": b"x", "evil/../x.gguf": b"x",
        }  # fmt: skip
        made.files["acme/dir"] = {
            "config.json": b"{}", "model.safetensors": BIG[:5000], "pytorch_model.bin": b"pickle",
            "tokenizer.json": b"[]",
        }  # fmt: skip
        yield made


def quiet(what: str, done: int, total: int) -> None:
    pass


def test_one_file_by_its_quantization(hub: Hub) -> None:
    seen = []
    path = store.pull("acme/tiny:Q8_0", lambda what, done, total: seen.append((done, total)))
    assert path.read_bytes() == BIG
    assert path.name == "tiny.Q8_0.gguf"
    assert seen[-1] == (len(BIG), len(BIG))
    assert len(hub.ranges) == 1
    assert store.pull("acme/tiny:Q8_0", quiet) == path  # no second download
    assert len(hub.ranges) == 1
    assert [model.name for model in store.list_models()] == ["acme/tiny"]


def test_a_directory_without_pickles(hub: Hub) -> None:
    path = store.pull("acme/dir", quiet)
    assert sorted(file.name for file in path.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_cut_is_mended_on_the_way(hub: Hub) -> None:
    hub.cuts = [1_000_000]
    assert store.pull("acme/tiny:Q8_0", quiet).read_bytes() == BIG
    assert 0 < begin_of(hub.ranges[-1]) <= 1_000_000


def test_a_pull_goes_on_where_the_last_one_ended(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.cuts = [1_000_000, *[0] * 20]
    with pytest.raises(ModelNotFoundError, match="pull again to go on from there"):
        store.pull("acme/tiny:Q8_0", quiet)
    hub.cuts, hub.ranges = [], []
    assert store.pull("acme/tiny:Q8_0", quiet).read_bytes() == BIG
    assert len(hub.ranges) == 1
    assert begin_of(hub.ranges[0]) > 0


def begin_of(given: str) -> int:
    return int(given.removeprefix("bytes=").partition("-")[0] or 0)


def test_a_wrong_content_is_not_kept(hub: Hub) -> None:
    hub.lies["tiny.Q8_0.gguf"] = BIG[::-1]
    with pytest.raises(MalformedFileError, match=r"tiny.Q8_0.gguf is not what"):
        store.pull("acme/tiny:Q8_0", quiet)
    assert not store.is_local("acme/tiny:Q8_0")
    del hub.lies["tiny.Q8_0.gguf"]
    assert store.pull("acme/tiny:Q8_0", quiet).read_bytes() == BIG


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acme/tiny", r"several files fit, add :QUANT; tiny.Q4_0.gguf, tiny.Q8_0.gguf"),
        ("acme/tiny:Q5_K", r"no file fits, add :QUANT; tiny.Q4_0.gguf"),
        ("acme/nothing", "the hub answers 404"),
        ("no-such-alias", "no model 'no-such-alias' can be fetched"),
    ],
)
def test_what_cannot_be_had_is_said(hub: Hub, name: str, message: str) -> None:
    with pytest.raises(ModelNotFoundError, match=message):
        store.pull(name, quiet)


def test_offline_nothing_is_asked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERD_OFFLINE", "1")
    with pytest.raises(ModelNotFoundError, match="INFERD_OFFLINE"):
        store.pull("acme/tiny:Q8_0", quiet)
    assert hub.ranges == []


def test_the_command_line(hub: Hub, tmp_path: Path) -> None:
    environment = {
        "HF_ENDPOINT": hub.url,
        "INFERD_HOME": str(tmp_path / "home"),
        "PATH": "/usr/bin",
    }
    command = [sys.executable, "-m", "inferd", "pull", "acme/tiny:Q4_0", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"name": "acme/tiny:Q4_0"' in done.stdout
