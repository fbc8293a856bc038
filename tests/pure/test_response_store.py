"""The store of responses, without a server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inferd.errors import ConfigError, InvalidRequestError
from inferd.ledger import responses
from inferd.ledger.responses import ResponseStore, StoredResponse


def stored(name: str, *, previous: str | None = None, tenant: str = "t", text: str = "x", done: bool = True):
    return StoredResponse(
        id=name,
        tenant=tenant,
        previous_id=previous,
        is_finished=done,
        body={"id": name, "text": text},
        input=[{"a": 1}],
    )


def lost(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "text": "lost"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ResponseStore]:
    store = ResponseStore(tmp_path / "responses.db", 60, lost)
    yield store
    store.close()


def test_what_was_put_is_found_by_its_tenant_alone(store: ResponseStore):
    store.put(stored("a"))
    assert store.get("a", "t").result() == stored("a")
    assert store.get("a", "other").result() is None
    assert store.delete("a", "other").result() is False
    assert store.delete("a", "t").result() is True
    assert store.get("a", "t").result() is None


def test_a_later_put_replaces_the_body(store: ResponseStore):
    store.put(stored("a", done=False))
    store.put(stored("a", text="y"))
    assert store.get("a", "t").result() == stored("a", text="y")


def test_another_tenant_cannot_replace_it(store: ResponseStore):
    store.put(stored("a"))
    with pytest.raises(Exception, match="UNIQUE"):
        store.put(stored("a", tenant="other", text="y")).result()
    assert store.get("a", "t").result() == stored("a")


def test_a_chain_is_in_order_and_ends_where_one_is_gone(store: ResponseStore):
    for name, previous in (("a", None), ("b", "a"), ("c", "b")):
        store.put(stored(name, previous=previous))
    assert [one.id for one in store.chain("c", "t").result()] == ["a", "b", "c"]
    store.delete("a", "t")
    with pytest.raises(InvalidRequestError, match="goes on from a deleted response"):
        store.chain("c", "t").result()
    with pytest.raises(InvalidRequestError, match="there is no response 'c'"):
        store.chain("c", "other").result()


def test_a_chain_has_a_limit(store: ResponseStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(responses, "MAX_CHAIN_SIZE", 60)
    store.put(stored("a", text="y" * 20))
    store.put(stored("b", previous="a", text="y" * 20))
    assert len(store.chain("a", "t").result()) == 1
    with pytest.raises(InvalidRequestError, match="more than 60 bytes"):
        store.chain("b", "t").result()


def test_nothing_outlives_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(responses, "PURGE_SECONDS", 0.05)
    store = ResponseStore(tmp_path / "responses.db", 0.1, lost)
    store.put(stored("a", text="a-secret")).result()
    assert on_disk(tmp_path, "a-secret")
    deadline = time.monotonic() + 5
    while on_disk(tmp_path, "a-secret"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert store.get("a", "t").result() is None
    store.close()


def test_deleted_means_overwritten(store: ResponseStore, tmp_path: Path):
    store.put(stored("a", text="first-secret" * 1000, done=False))
    store.put(stored("a", text="second-secret" * 10)).result()
    store.put(stored("b", text="stays")).result()
    assert store.delete("a", "t").result()
    assert not on_disk(tmp_path, "first-secret")
    assert not on_disk(tmp_path, "second-secret")
    assert on_disk(tmp_path, "stays")


def test_a_restart_keeps_what_ended_and_ends_what_did_not(tmp_path: Path):
    path = tmp_path / "responses.db"
    first = ResponseStore(path, 60, lost)
    first.put(stored("a"))
    first.put(stored("b", done=False))
    first.close()
    second = ResponseStore(path, 60, lost)
    assert second.get("a", "t").result() == stored("a")
    assert second.get("b", "t").result() == stored("b", text="lost")
    second.close()


def test_one_server_writes(store: ResponseStore, tmp_path: Path):
    with pytest.raises(ConfigError, match="INFERD_HOME"):
        ResponseStore(tmp_path / "responses.db", 60, lost)


def test_only_its_user_reads_it(store: ResponseStore, tmp_path: Path):
    store.put(stored("a")).result()
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("responses.db*")}
    assert set(modes.values()) == {0o600}


def on_disk(folder: Path, text: str) -> bool:
    return any(text.encode() in path.read_bytes() for path in folder.iterdir())
