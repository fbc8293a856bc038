"""Text that comes in pieces, read as if all of it were there: a reader is a generator that pauses where it needs more.

What a reader finds depends on the text alone, never on where it was cut.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
Reading = Generator[None, None, T]

_SPACE = re.compile(r"\s*")
_OUTSIDE = re.compile(r'["{}\[\]]')  # what counts outside of a JSON string
_INSIDE = re.compile(r'["\\\x00-\x1f]')  # and inside of one
_PLAIN_VALUE = re.compile(r"[-+.\w]*")
_CLOSER = {"{": "}", "[": "]"}


class Markers:
    """Texts to look for. None is the beginning of another, or a part of it."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = frozenset(texts)
        self._pattern = re.compile("|".join(map(re.escape, sorted(self.texts, key=len, reverse=True))) or r"(?!)")
        self._begins = {text[:size] for text in self.texts for size in range(1, len(text))}
        self._max_size = max(map(len, self._begins), default=0)

    def search(self, text: str, at: int) -> re.Match[str] | None:
        return self._pattern.search(text, at)

    def safe_end(self, text: str, at: int) -> int:
        """Where the part of text[at:] ends that cannot belong to a marker, whatever comes."""
        for size in range(min(self._max_size, len(text) - at), 0, -1):
            if text[-size:] in self._begins:
                return len(text) - size
        return len(text)


class Source:
    """at: the cursor in text. Between `hold` and `release` or `rewind` nothing that was read is forgotten."""

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.is_complete = False
        self._is_held = False

    def add(self, text: str) -> None:
        if not self._is_held and self.at:
            self.text, self.at = self.text[self.at :], 0
        self.text += text

    def hold(self) -> None:
        self.text, self.at, self._is_held = self.text[self.at :], 0, True

    def rewind(self) -> None:
        """To where `hold` was."""
        self.at, self._is_held = 0, False

    def release(self) -> None:
        self._is_held = False

    def more(self) -> Reading[bool]:
        """Pauses until there is more; False at the end of the text."""
        if self.is_complete:
            return False
        yield
        return not self.is_complete

    def peek(self) -> Reading[str]:
        """The next character; "" at the end."""
        while self.at >= len(self.text):
            if not (yield from self.more()):
                return ""
        return self.text[self.at]

    def space(self) -> Reading[str]:
        """Skips white space and returns it."""
        found = ""
        while True:
            match = _SPACE.match(self.text, self.at)
            assert match is not None
            found += match.group()
            self.at = match.end()
            if self.at < len(self.text) or not (yield from self.more()):
                return found

    def takes(self, literal: str) -> Reading[bool]:
        """Skips `literal` if the text goes on with it."""
        while True:
            ahead = self.text[self.at : self.at + len(literal)]
            if ahead == literal:
                self.at += len(literal)
                return True
            if not literal.startswith(ahead) or not (yield from self.more()):
                return False

    def until(self, markers: Markers, limit: int | None = None) -> Reading[tuple[str, str]]:
        """(the text before a marker, the marker), the cursor behind it; the marker is "" when none comes, or none
        within the first `limit` characters. The limit is for text that is held."""
        found = ""
        while True:
            match = markers.search(self.text, self.at)
            end = match.start() if match else markers.safe_end(self.text, self.at)
            found, self.at = found + self.text[self.at : end], end
            if limit is not None and len(found) > limit:
                return found, ""
            if match:
                self.at = match.end()
                return found, match.group()
            if not (yield from self.more()):
                found, self.at = found + self.text[self.at :], len(self.text)
                return found, ""

    def string(self) -> Reading[str | None]:
        """A JSON string, decoded; None when there is none. Its line breaks need not be escaped."""
        if (yield from self.peek()) != '"':
            return None
        raw: list[str] = []
        if not (yield from self._scan(raw.append)):
            return None
        try:
            return str(json.loads("".join(raw)))
        except ValueError:
            return None

    def value(self) -> Reading[str | None]:
        """The text of any JSON value; None when there is none. Only brackets and quotation marks are looked at."""
        raw: list[str] = []
        first = yield from self.peek()
        if first and first in '"{[':
            return "".join(raw) if (yield from self._scan(raw.append)) else None
        while True:
            match = _PLAIN_VALUE.match(self.text, self.at)
            assert match is not None
            raw.append(match.group())
            self.at = match.end()
            if self.at < len(self.text) or not (yield from self.more()):
                return "".join(raw) or None

    def container(self, emit: Callable[[str], None]) -> Reading[bool]:
        """A JSON object or list, piece by piece as it comes, from its opening bracket, where the cursor is. False when
        a bracket does not match, the cursor at it, or when the end never comes."""
        return (yield from self._scan(emit))

    def _scan(self, emit: Callable[[str], None]) -> Reading[bool]:
        closers: list[str] = []
        is_inside = False
        while True:
            match = (_INSIDE if is_inside else _OUTSIDE).search(self.text, self.at)
            end = match.start() if match else len(self.text)
            if end > self.at:
                emit(self.text[self.at : end])
                self.at = end
            if match is None or (match.group() == "\\" and end + 1 == len(self.text)):
                if not (yield from self.more()):
                    emit(self.text[self.at :])
                    self.at = len(self.text)
                    return False
                continue
            mark = self.text[end : end + 2] if match.group() == "\\" else match.group()
            if mark == '"':
                is_inside = not is_inside
            elif not is_inside and mark in _CLOSER:
                closers.append(_CLOSER[mark])
            elif not is_inside and (not closers or closers.pop() != mark):
                return False
            self.at = end + len(mark)
            emit(json.dumps(mark)[1:-1] if mark < " " else mark)
            if not closers and not is_inside:
                return True
