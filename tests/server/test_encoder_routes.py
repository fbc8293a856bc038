"""Vectors and scores over HTTP in every shape, with the clients that speak them: MiniLM, and small random heads."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from huggingface_hub import InferenceClient

from support.models import model_path
from support.server import running
from support.tiny_encoders import make

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "encoders.npz")
TEXTS = [str(text) for text in GOLDEN["texts"]][:3]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """minilm, a cross-encoder and a classifier of three labels; names: minilm's folder, cross, labels."""
    folder = tmp_path_factory.mktemp("models")
    models = [
        str(model_path("minilm")),
        str(make(folder / "cross", "bert", 1)),
        str(make(folder / "labels", "bert", 3)),
    ]
    with running(models=models, worker_factory="") as (base, _):
        yield base


def post(url: str, path: str, status: int = 200, **body: Any) -> Any:
    reply = httpx.post(url + path, json=body, timeout=30)
    assert reply.status_code == status, reply.text
    return reply.json()


def assert_close(rows: Any, at: slice = slice(0, 3)) -> None:
    np.testing.assert_allclose(np.array(rows), GOLDEN["minilm.vectors"][at], atol=5e-3)


@pytest.mark.parametrize("encoding_format", [None, "float", "base64"])
def test_openai(url: str, encoding_format: Any) -> None:
    """Without a format the client asks for base64 and decodes it itself."""
    client = openai.OpenAI(base_url=url + "/v1", api_key="none")
    options = {} if encoding_format is None else {"encoding_format": encoding_format}
    reply = client.embeddings.create(model="all-MiniLM-L6-v2", input=TEXTS, **options)
    rows = [one.embedding for one in reply.data]
    if encoding_format == "base64":
        rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
    assert_close(rows)
    assert [one.index for one in reply.data] == [0, 1, 2]
    assert reply.usage.prompt_tokens == reply.usage.total_tokens == int(GOLDEN["minilm.starts"][3])


def test_openai_dimensions_ids_and_one_text(url: str) -> None:
    client = openai.OpenAI(base_url=url + "/v1", api_key="none")
    cut = client.embeddings.create(model="all-MiniLM-L6-v2", input=TEXTS[0], dimensions=32).data[0].embedding
    expected = GOLDEN["minilm.vectors"][0, :32] / np.linalg.norm(GOLDEN["minilm.vectors"][0, :32])
    np.testing.assert_allclose(cut, expected, atol=5e-3)
    ids = GOLDEN["minilm.ids"][: GOLDEN["minilm.starts"][1]].tolist()
    for given in (ids, [ids, ids]):
        rows = [one.embedding for one in client.embeddings.create(model="all-MiniLM-L6-v2", input=given).data]
        assert_close(rows[:1], slice(0, 1))
        assert len(rows) == (1 if given is ids else 2)


def test_openai_errors(url: str) -> None:
    client = openai.OpenAI(base_url=url + "/v1", api_key="none")
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="all-MiniLM-L6-v2", input=["ok", "word " * 400])
    assert caught.value.code == "context_length_exceeded"
    assert "input[1] has 402" in caught.value.message
    with pytest.raises(openai.BadRequestError, match="dimensions must be from 1 to 384"):
        client.embeddings.create(model="all-MiniLM-L6-v2", input="a", dimensions=1000)
    with pytest.raises(openai.BadRequestError, match="input must not be empty"):
        client.embeddings.create(model="all-MiniLM-L6-v2", input=[])
    with pytest.raises(openai.BadRequestError, match="labels; it makes no vectors"):
        client.embeddings.create(model="labels", input="a")
    with pytest.raises(openai.BadRequestError, match="makes vectors and scores"):
        client.chat.completions.create(model="all-MiniLM-L6-v2", messages=[{"role": "user", "content": "a"}])
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="none", input="a")


def test_a_long_text_is_cut_only_when_asked(url: str) -> None:
    cut = post(url, "/v1/embeddings", input="word " * 400, truncate_prompt_tokens=-1)
    assert cut["usage"]["total_tokens"] == 256
    assert len(post(url, "/embed", inputs="word " * 400, truncate=True)[0]) == 384
    assert "256 tokens" in post(url, "/embed", 422, inputs="word " * 400)["error"]
    assert post(url, "/v1/embeddings", input="a", nonsense=1)["warnings"] == ["unknown field 'nonsense' was ignored"]


def test_the_hub_client_of_tei(url: str) -> None:
    client = InferenceClient(base_url=None, model=url)
    row = np.array(client.feature_extraction(TEXTS[0], model=url + "/embed"))
    assert_close(row.reshape(1, -1), slice(0, 1))
    similar = post(url, "/similarity", inputs={"source_sentence": TEXTS[0], "sentences": TEXTS[1:]})
    vectors = GOLDEN["minilm.vectors"]
    np.testing.assert_allclose(similar, vectors[1:3] @ vectors[0], atol=5e-3)


def test_tei(url: str) -> None:
    assert_close(post(url, "/embed", inputs=TEXTS))
    states = post(url, "/embed_all", inputs=TEXTS)
    assert [len(one) for one in states] == np.diff(GOLDEN["minilm.starts"])[:3].tolist()
    mean = np.array(states[0]).mean(axis=0)
    assert_close([mean / np.linalg.norm(mean)], slice(0, 1))
    assert "sparse" in post(url, "/embed_sparse", 422, inputs="a")["error"]
    one = post(url, "/predict", model="labels", inputs="w1 w2")
    assert {entry["label"] for entry in one} == {"label 0", "label 1", "label 2"}
    assert [e["score"] for e in one] == sorted((e["score"] for e in one), reverse=True)
    assert sum(entry["score"] for entry in one) == pytest.approx(1)
    many = post(url, "/predict", model="labels", inputs=[["w1 w2"], ["w1", "w2"]])
    assert many[0] == one
    assert len(many) == 2
    hits = post(url, "/rerank", model="all-MiniLM-L6-v2", query=TEXTS[0], texts=TEXTS[1:], return_text=True)
    assert [(hit["index"], hit["text"]) for hit in hits] == [(0, TEXTS[1]), (1, TEXTS[2])]


@pytest.mark.parametrize(("path", "has_text"), [
    ("/rerank", True), ("/v1/rerank", True), ("/v2/rerank", False), ("/reranking", False), ("/v1/reranking", False),
])  # fmt: skip
def test_rerank(url: str, path: str, has_text: bool) -> None:
    documents = [TEXTS[2], TEXTS[1]]
    reply = post(url, path, model="all-MiniLM-L6-v2", query=TEXTS[0], documents=documents)
    best, worst = reply["results"]
    assert (best["index"], worst["index"]) == (1, 0)
    assert best["relevance_score"] > worst["relevance_score"]
    assert ("document" in best) == has_text
    assert len(post(url, path, query=TEXTS[0], documents=documents, top_n=1)["results"]) == 1
    shown = post(url, path, query=TEXTS[0], documents=[{"text": "a"}], return_documents=True)["results"]
    assert shown[0]["document"] == {"text": "a"}


def test_a_cross_encoder_reads_pairs(url: str) -> None:
    reply = post(url, "/v1/rerank", model="cross", query="w1 w2", documents=["w3", "w4 w5"])
    scores = {one["index"]: one["relevance_score"] for one in reply["results"]}
    one_by_one = post(url, "/score", model="cross", text_1="w1 w2", text_2=["w3", "w4 w5"])
    assert [entry["score"] for entry in one_by_one["data"]] == [scores[0], scores[1]]
    pairs = post(url, "/v1/score", model="cross", text_1=["w1 w2", "w1 w2"], text_2=["w3", "w4 w5"])
    assert [entry["score"] for entry in pairs["data"]] == [scores[0], scores[1]]
    assert all(0 < score < 1 for score in scores.values())
    assert "as many as text_2" in post(url, "/score", 400, text_1=["a", "b"], text_2=["c"])["error"]["message"]
    assert "3 labels" in post(url, "/rerank", 400, model="labels", query="a", documents=["b"])["error"]["message"]


def test_classify(url: str) -> None:
    reply = post(url, "/classify", model="labels", input=["w1 w2", "w3"])
    first = reply["data"][0]
    assert first["num_classes"] == 3
    assert first["label"] == f"label {int(np.argmax(first['probs']))}"
    assert "no labels" in post(url, "/classify", 400, model="all-MiniLM-L6-v2", input="a")["error"]["message"]


def test_cohere(url: str) -> None:
    kinds = ["float", "int8", "ubinary", "base64"]
    reply = post(url, "/v2/embed", texts=TEXTS, input_type="search_document", embedding_types=kinds)
    made = reply["embeddings"]
    assert_close(made["float"])
    rows = np.array(made["float"])
    np.testing.assert_array_equal(made["int8"], np.rint(np.clip(rows, -1, 1) * 127).astype(int))
    np.testing.assert_array_equal(made["ubinary"], np.packbits(rows > 0, axis=1))
    assert reply["meta"]["billed_units"]["input_tokens"] > 0


def test_calls_are_counted(url: str) -> None:
    def calls() -> Any:
        models = httpx.get(url + "/inferd/state").json()["models"]
        return next(model["calls"] for model in models if model["kind"] == "encode")

    before = calls()
    post(url, "/v1/embeddings", input=TEXTS)
    post(url, "/v1/embeddings", 400, input="word " * 400)
    after = calls()
    assert after["num_success"] == before["num_success"] + 1
    assert after["rows"] == before["rows"] + 3
    assert after["failures"]["refused"] == before["failures"]["refused"] + 1


def test_llama_server_and_vllm(url: str) -> None:
    assert_close([one["embedding"][0] for one in post(url, "/embedding", content=TEXTS)])
    assert_close([one["embedding"] for one in post(url, "/pooling", input=TEXTS)["data"]])
    assert "embd_normalize" in post(url, "/embedding", 400, content="a", embd_normalize=0)["error"]["message"]
