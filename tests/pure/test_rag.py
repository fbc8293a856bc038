"""Chunks, the store of vectors, and citations."""

from __future__ import annotations

import random
import re
from array import array
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.errors import InvalidRequestError, ModelNotFoundError
from inferd.rag.chunks import Chunk, split
from inferd.rag.prompts import citations_in, messages_of
from inferd.rag.store import Hit, RagStore

WORDS = st.lists(st.sampled_from(["word", "end.", "Why?", "\n\n", "ünï", "a", "x" * 40]), max_size=400)


@given(WORDS, st.integers(1, 50), st.integers(0, 10))
def test_every_word_is_in_a_chunk(words: list[str], max_words: int, overlap: int) -> None:
    document = " ".join(words)
    chunks = split(document, max_words, overlap)
    covered = set()
    for chunk in chunks:
        assert document[chunk.begin : chunk.end] == chunk.text
        assert len(chunk.text.split()) <= max_words
        covered |= set(range(chunk.begin, chunk.end))
    assert all(i in covered for match in re.finditer(r"\S+", document) for i in range(*match.span()))
    assert len(chunks) <= max(1, len(document.split()))
    assert all(a.begin < b.begin for a, b in pairwise(chunks))


def test_chunks_end_with_sentences() -> None:
    document = " ".join(f"Sentence {i} has five words." for i in range(60))
    assert all(chunk.text.endswith(".") for chunk in split(document, 40, 10))


def unit(rng: random.Random, width: int = 8) -> array[float]:
    values = np.array([rng.gauss(0, 1) for _ in range(width)], np.float32)
    return array("f", (values / np.linalg.norm(values)).tolist())


def filled(path: Path) -> tuple[RagStore, dict[str, list[array[float]]]]:
    store, rng, vectors = RagStore(path), random.Random(2), {}
    for number in range(20):
        name = f"d{number}"
        chunks = [Chunk(i, i + 1, f"{name} {i}") for i in range(rng.randint(1, 5))]
        vectors[name] = [unit(rng) for _ in chunks]
        store.put("t", "c", "m", name, name, chunks, vectors[name])
    return store, vectors


def best(vectors: dict[str, list[array[float]]], query: array[float], count: int) -> list[str]:
    scored = [(float(np.dot(v, query)), f"{d} {i}") for d, rows in vectors.items() for i, v in enumerate(rows)]
    return [text for _, text in sorted(scored, reverse=True)[:count]]


def test_search_is_exact(tmp_path: Path) -> None:
    store, vectors = filled(tmp_path / "rag.db")
    collection = store.collection("t", "c")
    for seed in range(20):
        query = unit(random.Random(seed + 100))
        hits = store.search(collection, query, 7)
        assert [hit.text for hit in hits] == best(vectors, query, 7)
        assert hits == sorted(hits, key=lambda hit: -hit.score)


def test_a_change_is_seen_by_the_next_search_and_survives_a_restart(tmp_path: Path) -> None:
    store, vectors = filled(tmp_path / "rag.db")
    collection, query = store.collection("t", "c"), unit(random.Random(9))
    store.search(collection, query, 3)
    store.put("t", "c", "m", "d3", "new", [Chunk(0, 3, "d3 0")], [query])
    vectors["d3"] = [query]
    assert store.search(collection, query, 1)[0].score == pytest.approx(1.0, abs=1e-6)
    store.delete(collection, "d3")
    del vectors["d3"]
    store.close()
    again = RagStore(tmp_path / "rag.db")
    assert [hit.text for hit in again.search(again.collection("t", "c"), query, 5)] == best(vectors, query, 5)
    assert again.collection("t", "c").num_documents == 19


def test_tenants_do_not_see_each_other(tmp_path: Path) -> None:
    store, _ = filled(tmp_path / "rag.db")
    assert store.collections("other") == []
    with pytest.raises(ModelNotFoundError):
        store.collection("other", "c")
    assert not store.has("other", "c", "d1", "d1")
    assert store.has("t", "c", "d1", "d1")


def test_one_collection_has_vectors_of_one_model(tmp_path: Path) -> None:
    store, _ = filled(tmp_path / "rag.db")
    with pytest.raises(InvalidRequestError, match="vectors of m"):
        store.put("t", "c", "other", "x", "x", [Chunk(0, 1, "x")], [unit(random.Random(0))])
    assert store.collection("t", "c").num_documents == 20


def test_what_is_deleted_is_not_in_the_file(tmp_path: Path) -> None:
    store = RagStore(tmp_path / "rag.db")
    store.put("t", "c", "m", "d", "x", [Chunk(0, 9, "SECRETTEXT")], [unit(random.Random(0))])
    store.delete(store.collection("t", "c"))
    store.close()
    assert b"SECRETTEXT" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_citations() -> None:
    assert citations_in("So [1], and [2, 3] but not [9] or [x].", 3) == [
        {"source": 1, "begin": 3, "end": 6},
        {"source": 2, "begin": 12, "end": 18},
        {"source": 3, "begin": 12, "end": 18},
    ]
    messages = messages_of("Why?", [Hit("a.txt", 0, 5, "Because.", 0.5)])
    assert "[1] (a.txt)\nBecause." in messages[1]["content"]
    assert messages[1]["content"].endswith("Question: Why?")


def test_a_tenant_has_no_more_than_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, rows = RagStore(tmp_path / "rag.db"), [unit(random.Random(1))] * 3
    chunks = [Chunk(i, i + 1, "x") for i in range(3)]
    monkeypatch.setattr("inferd.rag.store.MAX_TENANT_COLLECTIONS", 1)
    monkeypatch.setattr("inferd.rag.store.MAX_TENANT_CHUNKS", 4)
    store.put("t", "c", "m", "a", "a", chunks, rows)
    for name, document, message in (("c", "b", "at most 4 chunks"), ("d", "a", "at most 1 collections")):
        with pytest.raises(InvalidRequestError, match=message):
            store.put("t", name, "m", document, "text", chunks, rows)
    assert [(c.name, c.num_chunks) for c in store.collections("t")] == [("c", 3)]  # what was refused left nothing
    store.put("t", "c", "m", "a", "new", chunks, rows)  # in place of what is there
    store.put("other", "c", "m", "a", "a", chunks, rows)
