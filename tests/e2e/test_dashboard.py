"""The dashboard in a real browser, against a real gateway with the mock engine. The tests are the *.test.mjs files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server import running

HERE = Path(__file__).parent
WEB = HERE.parents[1] / "web"
PAGE = HERE.parents[1] / "src/inferd/dashboard/page.html"
CHROMIUM = os.environ.get("INFERD_E2E_CHROMIUM", "/usr/bin/chromium")
KEY = "key-of-the-browser-tests"


def missing() -> str | None:
    if shutil.which("node") is None:
        return "node is not there"
    if not PAGE.is_file() or not (WEB / "node_modules").is_dir():
        return "the page is not built: tools/build_web.sh"
    return None if Path(CHROMIUM).is_file() else f"{CHROMIUM} is not there"


pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    price = {"price_per_hour": 0.5, "usage_ledger": False}
    with running(**price) as (url, _), running(api_keys=[KEY]) as (keyed, _):
        yield {
            **os.environ,
            "INFERD_E2E_URL": url,
            "INFERD_E2E_KEYED_URL": keyed,
            "INFERD_E2E_KEY": KEY,
            "INFERD_E2E_CHROMIUM": CHROMIUM,
            "INFERD_E2E_PYTHON": sys.executable,
        }


@pytest.mark.parametrize("name", ["chat", "key", "tabs", "xss"])
def test_in_browser(name: str, environment: dict[str, str]) -> None:
    command = ["node", "--test", "--test-reporter=spec", str(HERE / f"{name}.test.mjs")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr


def test_pure_parts() -> None:
    run = subprocess.run(["node", "--test", "tests/"], cwd=WEB, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
