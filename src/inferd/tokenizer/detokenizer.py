"""Ids to text as they come, without ever emitting a part of a character."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable

_new_decoder = codecs.getincrementaldecoder("utf-8")


class IncrementalDetokenizer:
    """The pieces concatenated equal decoding everything at once; bytes that are no UTF-8 become U+FFFD likewise."""

    def __init__(self, to_bytes: Callable[[Iterable[int]], bytes], *, strips_leading_space: bool) -> None:
        self._to_bytes = to_bytes
        self._decoder = _new_decoder("replace")
        self._strip_pending = strips_leading_space

    def push(self, token_ids: Iterable[int]) -> str:
        """The text that these ids complete; "" while a character is open."""
        return self._decoder.decode(self._strip(self._to_bytes(token_ids)))

    def flush(self) -> str:
        """What is still held back; the detokenizer is done."""
        return self._decoder.decode(b"", final=True)

    def _strip(self, data: bytes) -> bytes:
        if self._strip_pending and data:
            self._strip_pending = False
            return data.removeprefix(b" ")
        return data
