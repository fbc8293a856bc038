"""One server for all tests that do it no harm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.server import running


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    with running() as (base, _):
        yield base
