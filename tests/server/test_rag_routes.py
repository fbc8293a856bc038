"""Documents in, answers with sources out: over HTTP and from the command line, with real models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.models import model_path
from support.server import running

DOCUMENTS = {
    "cats.txt": "Cats purr when they are content. A cat sleeps for most of the day.",
    "trains.txt": "The night train to Vienna leaves at ten in the evening from platform four.",
    "bread.txt": "Bread dough rises because yeast makes carbon dioxide. Sourdough takes longer.",
}
KEYS = ["key-one", "key-two"]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = [str(model_path("smollm2")), str(model_path("minilm"))]
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFERD_HOME", str(home))
        with running(models=models, worker_factory="", api_keys=KEYS) as (base, _):
            yield base


def call(url: str, path: str, key: str = KEYS[0], status: int = 200, method: str = "POST", **body: Any) -> Any:
    options = {"json": body} if method == "POST" else {}
    reply = httpx.request(method, url + path, headers={"x-api-key": key}, timeout=60, **options)
    assert reply.status_code == status, reply.text
    return reply.json()


def index(url: str, collection: str, documents: dict[str, str] = DOCUMENTS, **options: Any) -> Any:
    listed = [{"name": name, "text": text} for name, text in documents.items()]
    return call(url, f"/v1/rag/collections/{collection}/documents", documents=listed, **options)


def test_the_best_document_is_found_and_unchanged_ones_are_left(url: str) -> None:
    assert index(url, "a")["indexed"] == 3
    again = index(url, "a", {**DOCUMENTS, "cats.txt": "Cats hunt mice."})
    assert (again["indexed"], again["unchanged"]) == (1, 2)
    found = call(url, "/v1/rag/search", collection="a", query="When does the train go?", top_k=2)
    assert found["sources"][0]["document"] == "trains.txt"
    assert len(found["sources"]) == 2
    assert set(found["stages"]) == {"embed", "retrieve"}
    shown = call(url, "/v1/rag/collections/a", method="GET")
    assert [one["name"] for one in shown["documents"]] == sorted(DOCUMENTS)


def test_an_answer_has_sources_and_stages(url: str) -> None:
    index(url, "b")
    body = {"collection": "b", "query": "Why does dough rise?", "top_k": 2, "max_tokens": 24, "temperature": 0}
    reply = call(url, "/v1/rag/answer", rerank_model=None, **body)
    assert reply["sources"][0]["document"] == "bread.txt"
    text = DOCUMENTS["bread.txt"]
    assert text[reply["sources"][0]["begin"] : reply["sources"][0]["end"]] == reply["sources"][0]["text"]
    assert reply["choices"][0]["message"]["content"]
    assert set(reply["stages"]) == {"embed", "retrieve", "generate"}
    reranked = call(url, "/v1/rag/answer", rerank_model="all-MiniLM-L6-v2", **body)
    assert reranked["sources"][0]["document"] == "bread.txt"
    assert "rerank" in reranked["stages"]


def test_a_stream_begins_with_sources_and_ends_with_the_result(url: str) -> None:
    index(url, "b")
    body = {"collection": "b", "query": "Why does dough rise?", "max_tokens": 12, "temperature": 0, "stream": True}
    with httpx.stream("POST", url + "/v1/rag/answer", json=body, headers={"x-api-key": KEYS[0]}, timeout=60) as stream:
        events = [line[6:] for line in stream.iter_lines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    chunks = [json.loads(event) for event in events]
    assert chunks[0]["object"] == "rag.sources"
    assert chunks[-1]["object"] == "rag.result"
    assert set(chunks[-1]["stages"]) == {"embed", "retrieve", "generate"}
    whole = call(url, "/v1/rag/answer", **{**body, "stream": False})
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
    assert text == whole["choices"][0]["message"]["content"]


def test_another_key_sees_nothing(url: str) -> None:
    index(url, "mine")
    assert "mine" not in [one["name"] for one in call(url, "/v1/rag/collections", KEYS[1], method="GET")["data"]]
    call(url, "/v1/rag/search", KEYS[1], 404, collection="mine", query="cats")
    call(url, "/v1/rag/collections/mine", KEYS[1], 404, method="DELETE")
    assert call(url, "/v1/rag/collections/mine/documents/cats.txt", method="DELETE")["deleted"]
    assert call(url, "/v1/rag/collections/mine", method="DELETE")["deleted"]
    call(url, "/v1/rag/search", KEYS[0], 404, collection="mine", query="cats")


@pytest.mark.parametrize(("body", "message"), [
    ({"collection": "b", "query": " "}, "query must not be empty"),
    ({"collection": "b", "query": "x", "top_k": 0}, "top_k must be from 1 to 100"),
    ({"collection": "b", "query": "x", "messages": []}, "messages: this route makes them"),
    ({"collection": "b", "query": "x", "temperature": -1}, "temperature must be a number from 0"),
    ({"query": "x"}, "collection: "),
])  # fmt: skip
def test_mistakes_are_named(url: str, body: dict[str, Any], message: str) -> None:
    index(url, "b")
    assert message in call(url, "/v1/rag/answer", status=400, **body)["error"]["message"]


def test_a_client_that_leaves_frees_the_engine(url: str) -> None:
    index(url, "b")
    headers, body = {"x-api-key": KEYS[0]}, {"collection": "b", "query": "Why does dough rise?", "stream": True}
    with httpx.stream("POST", url + "/v1/rag/answer", json={**body, "ignore_eos": True}, headers=headers) as answer:
        next(answer.iter_lines())
    deadline = time.monotonic() + 5
    while call(url, "/inferd/state", method="GET")["models"][0]["num_running"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_command_line(url: str, tmp_path: Path) -> None:
    for name, text in DOCUMENTS.items():
        (tmp_path / name).write_text(text)
    environment = {**os.environ, "INFERD_API_KEY": KEYS[0]}

    def inferd(*arguments: str) -> str:
        command = [sys.executable, "-m", "inferd", "rag", *arguments, "--url", url]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert "cli: 3 indexed in 3 chunks, 0 unchanged" in inferd("index", str(tmp_path), "-c", "cli")
    said = inferd("ask", "When does the night train leave?", "-c", "cli", "--top-k", "1", "--max-tokens", "16")
    assert "trains.txt, characters 0 to" in said
    assert "embed " in said
    assert "cli" in inferd("list")
    assert inferd("rm", "cli") == "removed cli\n"
