"""Texts and pairs of texts to the token ids an encoder reads, special tokens and token types included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

from inferd.errors import MalformedFileError, UnsupportedModelError
from inferd.models.safetensors_dir import read_json


@dataclass(frozen=True, slots=True)
class Encoding:
    """One input as the model reads it. type_ids: as long as token_ids."""

    token_ids: list[int]
    type_ids: list[int]


class EncoderTokenizer:
    """From tokenizer.json, else from the vocab.txt of a WordPiece vocabulary. Thread-safe."""

    def __init__(self, directory: Path, vocab_size: int, num_types: int) -> None:
        self._engine = _load(directory)
        self._engine.no_padding()
        self._engine.no_truncation()
        self._text = self._engine.to_str()
        self._num_types = num_types
        self._cutting: dict[tuple[int, bool], Any] = {}  # (length, from the left) -> an engine that cuts
        num_tokens = max(self._engine.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        if num_tokens > vocab_size:
            raise MalformedFileError(f"the tokenizer has {num_tokens} tokens, the model's vocabulary {vocab_size}")

    def encode(
        self, texts: Sequence[str | tuple[str, str]], *, max_tokens: int | None = None, from_left: bool = False
    ) -> list[Encoding]:
        """max_tokens: inputs are cut to it, of a pair the longer text first; from_left: at their begin."""
        engine = self._engine if max_tokens is None else self._cutter(max_tokens, from_left)
        found = engine.encode_batch(list(texts))
        if self._num_types > 1:
            return [Encoding(one.ids, one.type_ids) for one in found]
        return [Encoding(ids, [0] * len(ids)) for ids in (one.ids for one in found)]

    def token_text(self, token_id: int) -> str:
        return str(self._engine.id_to_token(token_id) or "")

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self._engine.decode(list(token_ids), skip_special_tokens=False))

    def _cutter(self, max_tokens: int, from_left: bool) -> Any:
        key = max_tokens, from_left
        if key not in self._cutting:
            engine = tokenizers.Tokenizer.from_str(self._text)
            side = "left" if from_left else "right"
            engine.enable_truncation(max_tokens, strategy="longest_first", direction=side)
            self._cutting[key] = engine
        return self._cutting[key]


def _load(directory: Path) -> Any:
    file, vocabulary = directory / "tokenizer.json", directory / "vocab.txt"
    try:
        if file.exists():
            return tokenizers.Tokenizer.from_str(file.read_text("utf-8"))
        if vocabulary.exists():
            config_file = directory / "tokenizer_config.json"
            config = read_json(config_file) if config_file.exists() else {}
            return _word_piece(vocabulary, config)
    except MalformedFileError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise MalformedFileError(f"{directory.name}: the tokenizer cannot be read: {error}") from None
    raise UnsupportedModelError(f"{directory.name} has neither tokenizer.json nor vocab.txt")


def _word_piece(vocabulary: Path, config: dict[str, Any]) -> Any:
    lowercase = bool(config.get("do_lower_case", True))
    strip = config.get("strip_accents")
    made = BertWordPieceTokenizer(
        str(vocabulary),
        lowercase=lowercase,
        strip_accents=lowercase if strip is None else bool(strip),
        handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
    )
    return tokenizers.Tokenizer.from_str(made.to_str())
