"""A store of its own for each test, and the real model where an answer is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.models import model_path


@pytest.fixture(scope="session")
def smollm2() -> str:
    return str(model_path("smollm2"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INFERD_HOME", str(tmp_path))
    monkeypatch.delenv("INFERD_API_KEY", raising=False)
    return tmp_path
