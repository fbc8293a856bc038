"""Real models for tests: a folder named by INFERD_TEST_MODELS, else the model store, else a pull into it."""

from __future__ import annotations

import os
from pathlib import Path

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
