"""The deltas of one answer as segments, one after the other: what dialects make blocks or items of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from inferd.parsing.deltas import Content, Delta, Reasoning, ToolCallArguments, ToolCallBegin

Kind = Literal["text", "reasoning", "call"]


@dataclass(frozen=True, slots=True)
class Opened:
    kind: Kind
    call: ToolCallBegin | None = None  # of kind call


@dataclass(frozen=True, slots=True)
class Piece:
    """Of the segment that is open. Text of a call is JSON, its arguments."""

    text: str


@dataclass(frozen=True, slots=True)
class Closed:
    """text: the whole segment's."""

    kind: Kind
    text: str


Part = Opened | Piece | Closed


class Segments:
    """One segment is open at a time. Text of white space alone is none, unless it is all that was written."""

    def __init__(self) -> None:
        self._open: Kind | None = None
        self._pieces: list[str] = []
        self._spaces = ""  # of text that may come to be
        self._is_empty = True

    def push(self, deltas: Iterable[Delta]) -> list[Part]:
        parts: list[Part] = []
        for delta in deltas:
            if isinstance(delta, Content):
                parts += self._text(delta.text)
            elif isinstance(delta, Reasoning):
                parts += [] if self._open == "reasoning" else self._begin(Opened("reasoning"))
                parts += self._piece(delta.text)
            elif isinstance(delta, ToolCallBegin):
                parts += self._begin(Opened("call", delta))
            elif isinstance(delta, ToolCallArguments):
                parts += self._piece(delta.text)
        return parts

    def close(self) -> list[Part]:
        spaces = self._spaces
        if self._is_empty and spaces:
            return [*self._begin(Opened("text")), *self._piece(spaces), *self._end()]
        return self._end()

    def _text(self, text: str) -> list[Part]:
        if self._open == "text":
            return self._piece(text)
        spaces = self._spaces = self._spaces + text
        return [*self._begin(Opened("text")), *self._piece(spaces)] if spaces.strip() else []

    def _begin(self, opened: Opened) -> list[Part]:
        closed = self._end()
        self._open, self._spaces, self._is_empty = opened.kind, "", False
        return [*closed, opened]

    def _piece(self, text: str) -> list[Part]:
        if not text:
            return []
        self._pieces.append(text)
        return [Piece(text)]

    def _end(self) -> list[Part]:
        if self._open is None:
            return []
        closed = Closed(self._open, "".join(self._pieces))
        self._open = None
        self._pieces.clear()
        return [closed]
