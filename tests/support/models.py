"""Real models for tests: a folder named by INFERD_TEST_MODELS, else the model store, else a pull into it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inferd.errors import ModelNotFoundError
from inferd.models import store


def model_path(alias: str) -> Path:
    folder = os.environ.get("INFERD_TEST_MODELS")
    if folder:
        path = Path(folder) / store.alias_file_name(alias)
        if path.is_file():
            return path
    try:
        return store.resolve(alias)
    except ModelNotFoundError:
        return store.pull(alias, lambda what, done, total: None)


def local_model_path(alias: str) -> Path:
    """For the larger models: skips the test where the model would have to be pulled first; smollm2 is pulled."""
    folder = Path(os.environ.get("INFERD_TEST_MODELS", ""))
    if alias != "smollm2" and not (folder / store.alias_file_name(alias)).is_file() and not store.is_local(alias):
        pytest.skip(f"{alias} is not on this machine (inferd pull {alias})")
    return model_path(alias)
