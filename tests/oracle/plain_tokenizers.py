"""The tokenizer algorithms written plainly from their definitions: a second opinion beside the libraries.

Byte-level BPE: cut at added tokens, normalise, cut by the regular expression, merge by rank. SentencePiece BPE: spaces
become U+2581, user-defined pieces are found first (longest match), then the adjacent pair whose joined piece scores
best is merged (the leftmost of equals) until none is a piece; what is left and unknown falls back to bytes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

import regex

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_DIGITS = r"\p{N}"  # applied first: every digit stands alone
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# tokenizer.ggml.pre -> the expressions that cut in turn, and whether text is NFC-normalised
_CUTS = {"smollm": ((_DIGITS, _GPT2), False), "qwen2": ((_QWEN2,), True), "gpt-2": ((_GPT2,), False)}


class PlainTokenizer:
    """Built from GGUF metadata (keys "tokenizer.ggml.*")."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        tokens = metadata["tokenizer.ggml.tokens"]
        types = metadata["tokenizer.ggml.token_type"]
        ids = {token: i for i, token in enumerate(tokens)}
        controls = {tokens[i]: i for i, kind in enumerate(types) if kind == _CONTROL}
        users = {tokens[i]: i for i, kind in enumerate(types) if kind == _USER_DEFINED}
        self._levels: list[tuple[Any, dict[str, int]]]
        if metadata["tokenizer.ggml.model"] == "gpt2":
            self._prepare, self._encode_piece = str, _ByteLevel(metadata, ids).encode
            self._levels = [(_matcher(controls | users), controls | users)]
        else:
            self._prepare, self._encode_piece = _escape_spaces, _SentencePiece(metadata, ids).encode
            escaped = {_escape_spaces(text): i for text, i in users.items()}
            self._levels = [(_matcher(controls), controls), (_matcher(escaped), escaped)]
        self._users = [(_matcher(users), users)] if len(self._levels) == 1 else self._levels[1:]

    def encode(self, text: str, *, parse_special: bool) -> list[int]:
        if parse_special and len(self._levels) == 2:  # control tokens first, then what SentencePiece itself sees
            parts = _cut(text, *self._levels[0])
            return [i for part in parts for i in ([part] if isinstance(part, int) else self._encode(part, self._users))]
        return self._encode(text, self._levels if parse_special else self._users)

    def _encode(self, text: str, levels: list[tuple[Any, dict[str, int]]]) -> list[int]:
        parts = _cut(self._prepare(text), *levels[0])
        return [i for part in parts for i in ([part] if isinstance(part, int) else self._encode_piece(part))]


def _escape_spaces(text: str) -> str:
    return text.replace(" ", "\u2581")


def _cut(text: str, pattern: Any, ids: Mapping[str, int]) -> list[str | int]:
    """Texts, and the ids of the added tokens between them."""
    parts: list[str | int] = []
    at = 0
    for match in pattern.finditer(text):
        parts += [text[at : match.start()], ids[match.group()]]
        at = match.end()
    return [*parts, text[at:]]


def _matcher(texts: Iterable[str]) -> Any:
    longest_first = sorted((text for text in texts if text), key=len, reverse=True)
    return regex.compile("|".join(map(regex.escape, longest_first)) or "(?!)")


def _byte_letters() -> dict[int, str]:
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in kept)
    return {byte: chr(byte) for byte in kept} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}


class _ByteLevel:
    def __init__(self, metadata: Mapping[str, Any], ids: dict[str, int]) -> None:
        merges = (merge.split(" ") for merge in metadata["tokenizer.ggml.merges"])
        self._ids = ids
        self._ranks = {tuple(merge): rank for rank, merge in enumerate(merges)}
        self._cuts, self._nfc = _CUTS[metadata["tokenizer.ggml.pre"]]
        self._letters = _byte_letters()
        self._merge_word = lru_cache(100_000)(self._merge)

    def encode(self, text: str) -> list[int]:
        pieces = [unicodedata.normalize("NFC", text) if self._nfc else text]
        for cut in self._cuts:
            pieces = [part for piece in pieces for part in _isolate(cut, piece)]
        return [i for piece in pieces for i in self._merge_word(piece)]

    def _merge(self, piece: str) -> tuple[int, ...]:
        """Bytes that are no token are dropped: SmolLM2 lacks 31 that valid UTF-8 hardly uses."""
        symbols = [letter for letter in map(self._letters.__getitem__, piece.encode()) if letter in self._ids]
        while len(symbols) > 1:
            ranks = [self._ranks.get(pair, 1 << 60) for pair in pairwise(symbols)]
            best = min(ranks)
            if best == 1 << 60:
                break
            at = ranks.index(best)
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
        return tuple(self._ids[symbol] for symbol in symbols)


def _isolate(pattern: str, text: str) -> list[str]:
    """The matches and what lies between them."""
    parts, at = [], 0
    for match in regex.finditer(pattern, text):
        parts += [text[at : match.start()], match.group()]
        at = match.end()
    return [part for part in (*parts, text[at:]) if part]


class _SentencePiece:
    def __init__(self, metadata: Mapping[str, Any], ids: dict[str, int]) -> None:
        self._ids = ids
        types, scores = metadata["tokenizer.ggml.token_type"], metadata["tokenizer.ggml.scores"]
        self._scores = {token: scores[i] for token, i in ids.items() if types[i] == _NORMAL}

    def encode(self, text: str) -> list[int]:
        """The text has its spaces escaped and holds no user-defined piece; Gemma puts no space before it."""
        symbols = list(text)
        while len(symbols) > 1:
            joined = [a + b for a, b in pairwise(symbols)]
            at = max(range(len(joined)), key=lambda i: (self._scores.get(joined[i], -1e30), -i))
            if joined[at] not in self._scores:
                break
            symbols[at : at + 2] = [joined[at]]
        return [i for symbol in symbols for i in self._to_ids(symbol)]

    def _to_ids(self, symbol: str) -> list[int]:
        if symbol in self._scores:
            return [self._ids[symbol]]
        return [self._ids[f"<0x{byte:02X}>"] for byte in symbol.encode()]
