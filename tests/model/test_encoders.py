"""Encoders against transformers' outputs, the native one against the reference, and the worker's service on top."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferd.config import EngineConfig
from inferd.encoder import Encoder
from inferd.errors import InvalidRequestError, MalformedFileError, UnsupportedModelError
from inferd.executors.encoder_base import EncoderBatch
from inferd.executors.encoder_native import NativeEncoder
from inferd.executors.encoder_reference import ReferenceEncoder
from inferd.models.encoder_loader import load_encoder
from inferd.tokenizer.encoder_tokenizer import EncoderTokenizer
from inferd.worker.encoding import EncoderService, open_encoder
from inferd.worker.protocol import Encode, PairPrompt, TextPrompt, TokenPrompt
from support.models import model_path
from support.tiny_encoders import FAMILIES, inputs, make

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "encoders.npz")
TEXTS = [str(text) for text in GOLDEN["texts"]]
# least cosine to fp32 of transformers on MiniLM; measured 0.999998, 0.99996, 0.9992
COSINES = {"f32": 0.99999, "bf16": 0.9999, "q8_0": 0.999}
EXACT = 2e-5  # of the reference's fp32
ROUNDED = 0.02  # keys and values of the native attention are bf16, whatever the type of the products


def batch_of(rows: list[list[int]], pooling: Any) -> EncoderBatch:
    ids = np.concatenate(rows).astype(np.int32)  # (T,)
    starts = np.cumsum([0, *map(len, rows)], dtype=np.int32)  # (S + 1,)
    return EncoderBatch(ids, np.zeros_like(ids), starts, pooling)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def native(path: Path, dtype: Any = "f32", num_threads: int = 2) -> NativeEncoder:
    return NativeEncoder(load_encoder(path), max_num_tokens=512, num_threads=num_threads, dtype=dtype)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_of_every_family(tmp_path: Path, family: str, pooling: str) -> None:
    path, expected = make(tmp_path / "m", family), GOLDEN[f"{family}.{pooling}"]
    batch = batch_of(inputs(), pooling)
    np.testing.assert_allclose(ReferenceEncoder(load_encoder(path)).encode(batch), expected, atol=EXACT)
    found = native(path).encode(batch)
    np.testing.assert_allclose(found, expected, atol=ROUNDED)
    assert cosines(found, expected).min() > 0.99999


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_of_every_family(tmp_path: Path, family: str) -> None:
    path, expected = make(tmp_path / "m", family, 3), GOLDEN[f"{family}.scores"]
    checkpoint = load_encoder(path)
    assert checkpoint.labels == ("label 0", "label 1", "label 2")
    batch = batch_of(inputs(), "cls")
    np.testing.assert_allclose(ReferenceEncoder(checkpoint).encode(batch), expected, atol=EXACT)
    np.testing.assert_allclose(native(path).encode(batch), expected, atol=ROUNDED)


@pytest.mark.parametrize("dtype", ["f32", "bf16", "q8_0"])
@pytest.mark.parametrize("pooling", ["none", "mean", "cls", "last"])
def test_a_row_is_the_same_alone_and_in_any_batch(tmp_path: Path, dtype: str, pooling: str) -> None:
    path = make(tmp_path / "m", "bert")
    encoder, alone = native(path, dtype), native(path, dtype, num_threads=1)
    rows = inputs()
    together = encoder.encode(batch_of([*rows, *rows[::-1]], pooling))
    single = [alone.encode(batch_of([row], pooling)) for row in [*rows, *rows[::-1]]]
    np.testing.assert_array_equal(together, np.concatenate(single))


def test_the_native_poolings_are_those_of_the_reference(tmp_path: Path) -> None:
    path = make(tmp_path / "m", "bert")
    reference = ReferenceEncoder(load_encoder(path))
    for pooling in ("none", "mean", "cls", "last"):
        batch = batch_of(inputs(), pooling)
        np.testing.assert_allclose(native(path).encode(batch), reference.encode(batch), atol=ROUNDED)


def test_a_batch_that_breaks_the_contract_is_refused(tmp_path: Path) -> None:
    encoder = native(make(tmp_path / "m", "bert"))
    for row in ([96], [-1], [5] * 41):
        with pytest.raises(ValueError, match=r"token_ids|starts|positions|tokens"):
            encoder.encode(batch_of([row], "mean"))


@pytest.fixture(scope="module")
def minilm() -> Path:
    return model_path("minilm")


@pytest.mark.parametrize("dtype", ["f32", "bf16", "q8_0"])
def test_minilm(minilm: Path, dtype: Any) -> None:
    """Text in, vectors out, against transformers."""
    service = open_encoder(str(minilm), EngineConfig(encoder_dtype=dtype))
    found = vectors(service, TEXTS, truncate=True)
    assert cosines(found, GOLDEN["minilm.vectors"]).min() >= COSINES[dtype]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_the_tokens_of_minilm(minilm: Path) -> None:
    tokenizer = EncoderTokenizer(minilm, 30522, 2)
    found = tokenizer.encode(TEXTS, max_tokens=256)
    starts, ids = GOLDEN["minilm.starts"], GOLDEN["minilm.ids"]
    assert [one.token_ids for one in found] == [ids[a:b].tolist() for a, b in pairwise(starts)]
    [pair] = tokenizer.encode([("what is it", "an answer")])
    assert pair.type_ids == [0] * 5 + [1] * 3


def vectors(service: EncoderService, texts: list[str], **options: Any) -> np.ndarray:
    call = Encode(call_id="c", inputs=[TextPrompt(text=text) for text in texts], **options)
    [reply] = service.run([service.pending(call)])
    return np.frombuffer(reply.rows, np.float32).reshape(-1, reply.width)


def test_calls_are_computed_together(minilm: Path) -> None:
    service = open_encoder(str(minilm), EngineConfig())
    calls = [
        Encode(call_id=str(i), inputs=[TextPrompt(text=t) for t in TEXTS[: i + 1]], truncate=True) for i in range(4)
    ]
    replies = service.run([service.pending(call) for call in calls])
    for call, reply in zip(calls, replies, strict=True):
        assert reply.call_id == call.call_id
        alone = vectors(service, TEXTS[: len(call.inputs)], truncate=True)
        np.testing.assert_array_equal(np.frombuffer(reply.rows, np.float32).reshape(-1, 384), alone)
        assert len(reply.num_tokens) == len(call.inputs)


def test_fewer_dimensions_are_normalized_again(minilm: Path) -> None:
    service = open_encoder(str(minilm), EngineConfig())
    whole, cut = vectors(service, TEXTS[:2]), vectors(service, TEXTS[:2], dimensions=64)
    expected = whole[:, :64] / np.linalg.norm(whole[:, :64], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"inputs": [TextPrompt(text="ok"), TextPrompt(text="word " * 400)]},
            r"at most 256 tokens. inputs\[1\] has 402",
        ),
        ({"inputs": [TextPrompt(text="x" * 2**20 + "x")]}, r"inputs\[0\] has 1048577 characters"),
        (
            {"inputs": [TokenPrompt(token_ids=(30522,))]},
            r"inputs\[0\] must hold token ids of this model, from 0 to 30521",
        ),
        ({"inputs": [TokenPrompt(token_ids=())]}, r"inputs\[0\] must not be empty"),
        ({"inputs": [TextPrompt(text="a")], "dimensions": 385}, "dimensions must be from 1 to 384, got 385"),
        ({"inputs": [PairPrompt(text="a", text_pair="b")], "task": "classify"}, "no labels to score"),
    ],
)
def test_what_cannot_be_served_is_named(minilm: Path, options: dict[str, Any], message: str) -> None:
    service = open_encoder(str(minilm), EngineConfig())
    with pytest.raises(InvalidRequestError, match=message):
        service.pending(Encode(call_id="c", **options))


def test_a_cross_encoder_scores_pairs(tmp_path: Path) -> None:
    """One label: the score is its sigmoid, as cross-encoders are trained."""
    path = make(tmp_path / "m", "bert", 1)
    service = open_encoder(str(path), EngineConfig(encoder_dtype="f32"))
    inputs = [PairPrompt(text="w1 w2", text_pair="w3"), PairPrompt(text="w1 w2", text_pair="w9 w9 w7")]
    [raw] = service.run([service.pending(Encode(call_id="c", inputs=inputs, task="classify", raw_scores=True))])
    [cooked] = service.run([service.pending(Encode(call_id="c", inputs=inputs, task="classify"))])
    values = np.frombuffer(raw.rows, np.float32)
    np.testing.assert_allclose(np.frombuffer(cooked.rows, np.float32), 1 / (1 + np.exp(-values)), rtol=1e-5)
    assert values[0] != values[1]


def test_a_broken_directory_names_what_is_wrong(tmp_path: Path) -> None:
    path = make(tmp_path / "m", "bert")
    config = (path / "config.json").read_text()
    for old, new, kind, message in (
        ('"num_hidden_layers": 2', '"num_hidden_layers": 3', MalformedFileError, "missing tensor encoder.layer.2"),
        (
            '"vocab_size": 96',
            '"vocab_size": 97',
            MalformedFileError,
            "word_embeddings.weight is 96 x 64, expected 97 x 64",
        ),
        ('"gelu"', '"mish"', UnsupportedModelError, "hidden_act = 'mish'"),
        (
            "BertModel",
            "BertForTokenClassification",
            UnsupportedModelError,
            "BertForTokenClassification is not supported",
        ),
    ):
        assert old in config
        (path / "config.json").write_text(config.replace(old, new))
        with pytest.raises(kind, match=message):
            load_encoder(path)


def test_an_encoder_without_a_server(minilm: Path, tmp_path: Path) -> None:
    encoder = Encoder(str(minilm))
    assert (encoder.dimensions, encoder.max_tokens, encoder.labels) == (384, 256, ())
    found = encoder.embed(TEXTS, truncate=True)
    assert cosines(found, GOLDEN["minilm.vectors"]).min() >= COSINES["bf16"]
    np.testing.assert_array_equal(encoder.embed(TEXTS[0]), found[:1])
    ids = GOLDEN["minilm.ids"][: GOLDEN["minilm.starts"][1]].tolist()
    np.testing.assert_array_equal(encoder.embed([ids]), found[:1])
    np.testing.assert_allclose(encoder.score(TEXTS[0], TEXTS[1:3]), found[1:3] @ found[0], atol=1e-6)
    with pytest.raises(InvalidRequestError, match="at least one input"):
        encoder.embed([])
    encoder.close()
    cross = Encoder(str(make(tmp_path / "cross", "bert", 1)))
    pairs = cross.classify([("w1 w2", "w3"), ("w1 w2", "w9")])
    np.testing.assert_array_equal(cross.score("w1 w2", ["w3", "w9"]), pairs[:, 0])
    several = Encoder(str(make(tmp_path / "labels", "bert", 3)))
    assert several.classify("w1").shape == (1, 3)
    with pytest.raises(InvalidRequestError, match="3 labels"):
        several.score("w1", ["w2"])
    with pytest.raises(InvalidRequestError, match="makes no vectors"):
        several.embed("w1")
