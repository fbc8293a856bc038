"""The compatibility tables of the documents are what a server with real models answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from compat import pairs, probes
from compat.document import rendered
from support.models import model_path
from support.server import running

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "compatibility.md"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    models = [model_path("smollm2"), model_path("minilm")]
    aliases = [
        [name, path.name.removesuffix(".gguf")] for name, path in zip(("smollm2", "minilm"), models, strict=True)
    ]
    with running(models=list(map(str, models)), model_aliases=aliases, worker_factory="") as (base, _):
        yield base


def test_the_tables_are_true(url: str) -> None:
    """tools/compat_docs.py writes them."""
    with httpx.Client(base_url=url, timeout=60) as client:
        dialects = probes.table(client)
    features = asyncio.run(pairs.table(url))
    assert rendered(dialects, features) == DOCUMENT.read_text("utf-8")


def test_a_pair_in_which_a_feature_does_not_hold_is_seen(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        pairs.FEATURES, "greedy", ({"temperature": 0, "max_tokens": 2000, "stop": ["a"]}, lambda c: False)
    )

    async def one() -> str:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            return await pairs.pair(client, "greedy", "greedy")

    with pytest.raises(AssertionError, match="greedy does not hold"):
        asyncio.run(one())
