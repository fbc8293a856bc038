"""Control strings: the texts of control tokens, found in what a template wrote and broken in what users wrote."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping


class ControlTexts:
    def __init__(self, ids_by_text: Mapping[str, int]) -> None:
        self._ids_by_text = {text: token_id for text, token_id in ids_by_text.items() if text}
        self._sorted = sorted(self._ids_by_text)
        self._max_len = max(map(len, self._sorted), default=0)
        longest_first = sorted(self._sorted, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(self._sorted)

    def id_of(self, text: str) -> int | None:
        return self._ids_by_text.get(text)

    def find(self, text: str) -> Iterator[tuple[int, int, int]]:
        """(begin, end, token id) of each control string, left to right; the longest where several begin."""
        for match in self._pattern.finditer(text):
            yield match.start(), match.end(), self._ids_by_text[match.group()]

    def broken(self, text: str, guard: str) -> str:
        """text with guard inside every control string, and after an end that what follows could make one of."""
        text = self._pattern.sub(lambda match: match.group()[0] + guard + match.group()[1:], text)
        shown = text.rstrip()  # templates may trim
        if self._ends_in_a_begin(text):
            return text + guard
        return shown + guard + text[len(shown) :] if self._ends_in_a_begin(shown) else text

    def _ends_in_a_begin(self, text: str) -> bool:
        for size in range(1, min(self._max_len, len(text) + 1)):
            end = text[-size:]
            at = bisect_left(self._sorted, end)
            if at < len(self._sorted) and self._sorted[at].startswith(end):
                return True
        return False
