"""Models of a Hugging Face hub: which files of a repository are the model, and their way here, resumed and checked.

HF_ENDPOINT, HF_TOKEN and proxies work as in its library, which lists the files and connects.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from inferd.errors import MalformedFileError, ModelNotFoundError

Progress = Callable[[str, int, int], None]  # what, bytes done, bytes in all
# of a model directory: weights without pickle, configurations, tokenizers, templates
_DIRECTORY = ("*.safetensors", "*.json", "tokenizer.model", "vocab.txt", "merges.txt", "*.jinja")
_CHUNK = 1 << 16
MAX_TRIES = 5  # in a row that bring nothing


@dataclass(frozen=True, slots=True)
class HubFile:
    """digest: of the content, "sha256:..." or git's "blob:...", as the hub's listing states it."""

    name: str
    num_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class HubModel:
    repo: str
    commit: str
    files: tuple[HubFile, ...]

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)


def is_offline() -> bool:
    return any(os.environ.get(name, "0") not in ("", "0") for name in ("INFERD_OFFLINE", "HF_HUB_OFFLINE"))


def find(repo: str, revision: str | None, quant: str | None) -> HubModel:
    """The files of a model: one GGUF file where the repository has some, else the directory's.

    Raises ModelNotFoundError, which says what there is.
    """
    if is_offline():
        raise ModelNotFoundError(f"{repo} is not on this machine, and INFERD_OFFLINE forbids to fetch it")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=30)
    except HfHubHTTPError as error:
        raise ModelNotFoundError(f"{repo}: the hub answers {_status(error.response.status_code)}") from None
    except Exception as error:  # whatever its HTTP library raises for a host that is not there
        raise ModelNotFoundError(f"{repo}: the hub cannot be reached ({type(error).__name__})") from None
    files = [_hub_file(sibling) for sibling in info.siblings or () if _is_plain(sibling.rfilename)]
    return HubModel(repo, str(info.sha), tuple(_chosen(repo, files, quant)))


def download(model: HubModel, folder: Path, progress: Progress) -> None:
    """Fetches the files into `folder`, going on where an earlier try was cut off. Each is checked against its digest;
    one that does not match is deleted, and MalformedFileError raised."""
    done = 0
    for file in model.files:
        path, part = folder / file.name, folder / f"{file.name}.part"
        if not path.is_file():  # it was checked before it got its name
            _fetch(model, file, part, partial(_tell, progress, file.name, done, model.num_bytes))
            progress(f"checking {file.name}", done + file.num_bytes, model.num_bytes)
            if not _matches(part, file):
                part.unlink(missing_ok=True)
                raise MalformedFileError(f"{model.repo}: {file.name} is not what the hub's listing says it is")
            os.replace(part, path)
        done += file.num_bytes


def _tell(progress: Progress, name: str, base: int, total: int, count: int) -> None:
    progress(name, base + count, total)


def _fetch(model: HubModel, file: HubFile, path: Path, tell: Callable[[int], None]) -> None:
    """Goes on from what path has. The library's own download begins anew with each call, so only its client is used,
    which keeps the token from other hosts."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined]

    url = hf_hub_url(model.repo, file.name, revision=model.commit)
    num_idle = 0  # tries in a row that brought nothing
    while (begin := path.stat().st_size if path.exists() else 0) < file.num_bytes:
        headers = build_hf_headers() | ({"range": f"bytes={begin}-"} if begin else {})
        try:
            with get_session().stream("GET", url, headers=headers, follow_redirects=True) as reply:
                if reply.status_code not in (200, 206):
                    raise ModelNotFoundError(
                        f"{model.repo}: the hub answers {_status(reply.status_code)} for {file.name}"
                    )
                _append(reply.iter_bytes(_CHUNK), path, begin if reply.status_code == 206 else 0, file.num_bytes, tell)
        except ModelNotFoundError:
            raise
        except Exception as error:  # whatever its HTTP library raises for a connection that ends
            num_idle = 0 if path.exists() and path.stat().st_size > begin else num_idle + 1
            if num_idle >= MAX_TRIES:
                what = f"{file.name} was cut off ({type(error).__name__})"
                raise ModelNotFoundError(f"{model.repo}: {what}; pull again to go on from there") from None
            time.sleep(min(num_idle, 5))


def _append(chunks: Iterable[bytes], path: Path, begin: int, end: int, tell: Callable[[int], None]) -> None:
    with open(path, "r+b" if begin else "wb") as out:
        out.seek(begin)
        for chunk in chunks:
            begin += len(chunk)
            if begin > end:
                raise MalformedFileError(f"{path.stem}: more than the {end} bytes came that the hub's listing states")
            out.write(chunk)
            tell(begin)


def _status(status: int) -> str:
    hints = {401: " (private or missing; a token is read from HF_TOKEN)", 403: " (its terms must be accepted there)"}
    return f"{status}{hints.get(status, '')}"


def _is_plain(name: str) -> bool:
    return "/" not in name and "\\" not in name and not name.startswith(".")


def _hub_file(sibling: Any) -> HubFile:
    lfs = sibling.lfs
    digest = f"sha256:{lfs.sha256}" if lfs is not None else f"blob:{sibling.blob_id}"
    return HubFile(sibling.rfilename, int(sibling.size or 0), digest)


def _chosen(repo: str, files: list[HubFile], quant: str | None) -> Iterable[HubFile]:
    gguf = [file for file in files if file.name.endswith(".gguf")]
    if gguf:
        fitting = [file for file in gguf if quant is None or quant.lower() in file.name.lower()]
        if len(fitting) == 1:
            return fitting
        names = ", ".join(sorted(file.name for file in (fitting or gguf)))
        raise ModelNotFoundError(f"{repo}: {'several files fit' if fitting else 'no file fits'}, add :QUANT; {names}")
    directory = [file for file in files if any(fnmatchcase(file.name, pattern) for pattern in _DIRECTORY)]
    if not any(file.name.endswith(".safetensors") for file in directory):
        raise ModelNotFoundError(f"{repo} holds neither .gguf nor .safetensors files")
    return directory


def _matches(path: Path, file: HubFile) -> bool:
    if path.stat().st_size != file.num_bytes:
        return False
    kind, _, expected = file.digest.partition(":")
    if kind == "sha256":
        digest = hashlib.sha256()
    else:  # git's name of a blob
        digest = hashlib.sha1(b"blob %d\0" % file.num_bytes, usedforsecurity=False)
    with open(path, "rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == expected
