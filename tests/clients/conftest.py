"""A server with the mock engine for all clients, and one with a real model where it is on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferd.models import store
from support.server import running


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    with running(model_aliases=[("claude-*", "mock/model")]) as (base, _):
        yield base


@pytest.fixture(scope="session")
def agent_url() -> Iterator[str]:
    """Its model says again what the last message says, and has tools and thinking."""
    with running(worker_factory="support.mock_agent:build") as (base, _):
        yield base


@pytest.fixture(scope="session")
def smollm2_url() -> Iterator[str]:
    """Its model is called smollm2."""
    path = Path(os.environ.get("INFERD_TEST_MODELS", "")) / store.alias_file_name("smollm2")
    if not path.is_file() and not store.is_local("smollm2"):
        pytest.skip("smollm2 is not on this machine (inferd pull smollm2)")
    path = path if path.is_file() else store.resolve("smollm2")
    with running(models=[str(path)], model_aliases=[("smollm2", path.stem)], worker_factory="") as (base, _):
        yield base
