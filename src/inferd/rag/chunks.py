"""A document becomes chunks: whole sentences as far as they fit, with an overlap, so that nothing falls between two."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_WORDS = 160  # about 220 tokens of English: what a 256-token encoder reads whole
OVERLAP_WORDS = 30
_WORD = re.compile(r"\S+")
_END = re.compile(r"[.!?:;]['\")\]]*$|\n\s*\n")


@dataclass(frozen=True, slots=True)
class Chunk:
    """text is document[begin:end], in characters."""

    begin: int
    end: int
    text: str


def split(document: str, max_words: int = MAX_WORDS, overlap: int = OVERLAP_WORDS) -> list[Chunk]:
    """In order; every word is in at least one chunk. [] for a text without words."""
    words = [match.span() for match in _WORD.finditer(document)]
    return [Chunk(words[i][0], words[j - 1][1], document[words[i][0] : words[j - 1][1]])
            for i, j in _ranges(document, words, max_words, overlap)]  # fmt: skip


def _ranges(document: str, words: list[tuple[int, int]], max_words: int, overlap: int) -> Iterator[tuple[int, int]]:
    begin = 0
    while begin < len(words):
        end = _sentence_end(document, words, begin, min(begin + max_words, len(words)))
        yield begin, end
        if end == len(words):
            return
        begin = max(end - overlap, begin + 1)


def _sentence_end(document: str, words: list[tuple[int, int]], begin: int, end: int) -> int:
    """The last end of a sentence in the second half of the range; the range's own end where there is none."""
    if end == len(words):
        return end
    for at in range(end, begin + (end - begin) // 2, -1):
        behind = document[words[at - 1][0] : words[at][0]]
        if _END.search(document[slice(*words[at - 1])]) or "\n\n" in behind:
            return at
    return end
