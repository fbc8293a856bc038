"""The page and the plans over HTTP, without a browser."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from inferd import dashboard
from support.server import running

BROWSER = {"accept": "text/html,*/*;q=0.8"}  # others are told whose API is spoken here
KEY = "key-of-the-page-tests"
LABELS = {"measured", "calibrated", "derived", "assumed", "unknown"}
PLAN = {"model": "llama-3-8b", "hardware": "h200", "precision": "fp8"}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running() as (url, _), httpx.Client(base_url=url, headers=BROWSER, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def keyed() -> Iterator[httpx.Client]:
    with running(api_keys=[KEY]) as (url, _), httpx.Client(base_url=url, headers=BROWSER) as client:
        yield client


def policy(answer: httpx.Response) -> dict[str, str]:
    rules = answer.headers["content-security-policy"].split("; ")
    return {name: value for name, _, value in (rule.partition(" ") for rule in rules)}


def test_the_page_lets_in_nothing_but_itself(client: httpx.Client) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    rules = policy(answer)
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["form-action"] == rules["base-uri"] == "'none'"
    assert not re.search(r"unsafe|https?:|\*", " ".join(rules.values()))
    for kind in ("script", "style"):
        bodies = re.findall(rf"<{kind}\b[^>]*>(.*?)</{kind}>", answer.text, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in bodies]
        assert rules[f"{kind}-src"] == (" ".join(f"'sha256-{digest}'" for digest in digests) or "'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_an_unchanged_page_is_not_sent_again(client: httpx.Client) -> None:
    etag = client.get("/").headers["etag"]
    again = client.get("/", headers={"if-none-match": etag})
    assert (again.status_code, again.content) == (304, b"")
    assert client.head("/").status_code == 200
    assert client.put("/").status_code == 405


def test_without_a_build_the_page_says_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dashboard, "_BUILT", tmp_path / "none.html")
    page = dashboard.page.__wrapped__()
    assert not page.is_built
    assert b"tools/build_web.sh" in page.html
    assert "script-src 'none'" in page.policy
    assert "style-src 'sha256-" in page.policy


def raw_status(base: httpx.URL, path: str) -> int:
    """Of a GET whose path is sent as it stands."""
    connection = HTTPConnection(base.host, base.port or 80, timeout=10)
    with closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status


def test_a_key_guards_all_but_the_page(keyed: httpx.Client) -> None:
    assert keyed.get("/").status_code == 200
    assert keyed.get("/?key=x").status_code == 200
    for path in ("//", "/.", "/%2f", "/..", "*", "/inferd/plan", "/inferd/state", "/index.html", "/v1/models"):
        assert raw_status(keyed.base_url, path) == 401, path
    assert keyed.post("/inferd/plan", json=PLAN).status_code == 401
    assert keyed.get("/inferd/plan", headers={"authorization": f"Bearer {KEY}"}).status_code == 200


def test_a_plan_has_labelled_figures_and_charts(client: httpx.Client) -> None:
    plan = client.post("/inferd/plan", json=PLAN).raise_for_status().json()
    assert plan["fits"] is True
    figures = {figure["key"]: figure for section in plan["sections"] for figure in section["figures"]}
    assert figures["goodput"]["value"] > 0
    assert {figure["label"] for figure in figures.values()} <= LABELS
    for chart in plan["charts"]:
        assert all(len(series["values"]) == len(chart["x"]["values"]) > 1 for series in chart["series"])
    assert plan["sources"]


def test_the_form_offers_what_a_plan_takes(client: httpx.Client) -> None:
    choices = client.get("/inferd/plan").raise_for_status().json()
    assert PLAN["model"] in choices["models"]
    assert PLAN["precision"] in choices["precisions"]
    hardware = choices["hardware"][0]["id"]
    assert client.post("/inferd/plan", json={**PLAN, "hardware": hardware}).status_code == 200


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "model must be a name"),
        ({"model": "nosuch"}, "nosuch"),
        ({"model": 7}, "model must be a name"),
        ({"hardware": "/etc/device.json"}, "hardware must be a name"),
        ({"hardware": "device.json"}, "hardware must be a name"),
        ({"hardware": "../../x"}, "hardware must be a name"),
        ({"hardware": "h200:0"}, "from 1 to"),
        ({"rate": -1}, "rate must be from"),
        ({"rate": "many"}, "rate must be a number"),
        ({"rate": True}, "rate must be a number"),
        ({"prompt_tokens": 1.5}, "prompt_tokens must be a whole number"),
        ({"prompt_tokens": 10**30}, "prompt_tokens must be a whole number"),
        ({"surprise": 1}, "surprise is not a field"),
    ],
)
def test_a_wrong_field_is_named(client: httpx.Client, fields: dict[str, Any], told: str) -> None:
    answer = client.post("/inferd/plan", json={**PLAN, **fields} if fields else {})
    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff", b'{"rate": NaN}', b'{"rate": 1e999}'])
def test_a_body_that_is_no_object_is_refused(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/inferd/plan", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
