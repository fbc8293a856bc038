"""Tokenizers from metadata made by hand: errors by name, SentencePiece with a prefix space, byte fallback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from inferd.errors import MalformedFileError, UnsupportedModelError
from inferd.models.checkpoint import TokenizerSource
from inferd.tokenizer import Tokenizer, load_tokenizer

SPACE = "\u2581"
PIECES = [SPACE, "h", "e", "l", "o", "he", "ll", "hell", "hello", SPACE + "hello", "lo", SPACE * 2]


def sentencepiece(**changes: Any) -> dict[str, Any]:
    """<unk>, <s>, </s>, all bytes, then PIECES; earlier pieces score better."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
    metadata = {
        "model": "llama",
        "tokens": tokens,
        "scores": [0.0] * 259 + [-float(i) for i in range(len(PIECES))],
        "token_type": [2, 3, 3, *[6] * 256, *[1] * len(PIECES)],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in (metadata | changes).items() if value is not None}


def byte_level(**changes: Any) -> dict[str, Any]:
    letters = [chr(byte) for byte in range(0x21, 0x7F)] + ["\u0120", "\u010a"]
    tokens = [*letters, "ab", "<|endoftext|>", "<tool>"]
    types = [1] * (len(letters) + 1) + [3, 4]
    metadata = {"model": "gpt2", "pre": "gpt-2", "tokens": tokens, "token_type": types, "merges": ["a b"]}
    return {f"tokenizer.ggml.{key}": value for key, value in (metadata | changes).items() if value is not None}


def build(metadata: dict[str, Any], vocab_size: int = 300) -> Tokenizer:
    return load_tokenizer(TokenizerSource(gguf_metadata=metadata), vocab_size)


@pytest.mark.parametrize("pre", ["", "tekken", "gpt-4o", "QWEN2", "unknown\udcff"])
def test_unknown_cuts_fail_with_the_supported_ones(pre: str) -> None:
    message = r"tokenizer\.ggml\.pre = .*supported: default, gpt-2, smollm"
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        build(byte_level(pre=pre))
    str(caught.value).encode("utf-8")


@pytest.mark.parametrize("model", ["t5", "bert", "", None])
def test_unknown_models_fail_with_the_supported_ones(model: str | None) -> None:
    with pytest.raises(UnsupportedModelError, match=r"tokenizer\.ggml\.model.*gpt2, llama"):
        build(byte_level(model=model))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": None}, "tokens"),
        ({"tokens": "abc"}, "tokens"),
        ({"token_type": [1]}, "token_type"),
        ({"merges": None}, "merges"),
        ({"merges": ["ab"]}, "merges"),
        ({"merges": ["a nothere"]}, "merges"),
        ({"merges": [1]}, "merges"),
        ({"eos_token_id": 10**6}, "eos_token_id"),
        ({"eos_token_id": -1}, "eos_token_id"),
        ({"bos_token_id": True}, "bos_token_id"),
        ({"tokens": ["a"] * 99}, "twice|token_type"),
    ],
)
def test_wrong_metadata_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MalformedFileError, match=message):
        build(byte_level(**changes))


def test_more_tokens_than_logits_are_refused() -> None:
    with pytest.raises(MalformedFileError, match="vocabulary 20"):
        build(byte_level(), vocab_size=20)


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.token_text(i) for i in tokenizer.encode(text, add_special_tokens=False, parse_special=True)]


def test_sentencepiece_puts_a_space_before_the_text_and_takes_it_away() -> None:
    tokenizer = build(sentencepiece(add_space_prefix=True))
    assert pieces(tokenizer, "hello") == [" hello"]
    assert pieces(tokenizer, " hello") == [" ", " hello"]
    assert tokenizer.encode("hello")[0] == tokenizer.bos_token_id == 1
    for text in ("hello", " hello", "  hello  ", "", " ", "hé\n漢😀", "hello hello"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    stream = tokenizer.detokenizer()
    assert "".join(stream.push([i]) for i in tokenizer.encode("hello hello")) + stream.flush() == "hello hello"


def test_sentencepiece_merges_the_best_piece_first() -> None:
    tokenizer = build(sentencepiece(add_space_prefix=False))
    assert pieces(tokenizer, "hello") == ["hello"]
    assert pieces(tokenizer, "helo") == ["he", "lo"]
    assert pieces(tokenizer, "lllo") == ["ll", "lo"]
    assert pieces(tokenizer, "é") == ["\ufffd", "\ufffd"]
    assert tokenizer.decode(tokenizer.encode("é")) == "é"


@pytest.mark.parametrize("token", ["<0xZZ>", "<0x>", "x"])
def test_byte_tokens_must_be_bytes(token: str) -> None:
    metadata = sentencepiece()
    metadata["tokenizer.ggml.tokens"][10] = token
    with pytest.raises(MalformedFileError, match=r"byte token|<0xAB>"):
        build(metadata)


def test_user_defined_tokens_are_found_but_not_special() -> None:
    tokenizer = build(byte_level())
    ids = tokenizer.encode("a<tool>b")
    assert len(ids) == 3
    assert tokenizer.decode(ids) == "a<tool>b"
    assert not tokenizer.is_special(ids[1])


def test_lone_surrogates_become_replacement_characters() -> None:
    tokenizer = build(sentencepiece(add_space_prefix=False))
    assert tokenizer.decode(tokenizer.encode("h\ud800e")) == "h\ufffd\ufffd\ufffde"


def test_directory_tokenizer_equals_the_gguf_one(tmp_path: Path) -> None:
    gguf_form = build(byte_level())
    vocab = {token: i for i, token in enumerate(byte_level()["tokenizer.ggml.tokens"])}
    engine = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, [("a", "b")]))
    engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = tokenizers.decoders.ByteLevel()
    engine.add_tokens([tokenizers.AddedToken("<tool>", normalized=False)])
    engine.add_special_tokens([tokenizers.AddedToken("<|endoftext|>", normalized=False, special=True)])
    (tmp_path / "tokenizer.json").write_text(engine.to_str(), "utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<|endoftext|>"}}))
    tokenizer = load_tokenizer(TokenizerSource(directory=tmp_path), 300)
    for text in ("ab abc<tool>", "<|endoftext|>a\nb", ""):
        for special in (False, True):
            ids = gguf_form.encode(text, parse_special=special)
            assert tokenizer.encode(text, parse_special=special) == ids
            assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert tokenizer.eos_token_ids == gguf_form.eos_token_ids != frozenset()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"model": {"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}}']
)
def test_broken_tokenizer_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(MalformedFileError, match=r"tokenizer\.json"):
        load_tokenizer(TokenizerSource(directory=tmp_path), 300)


def test_a_directory_without_tokenizer_json_is_unsupported(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"tokenizer\.json"):
        load_tokenizer(TokenizerSource(directory=tmp_path), 300)
