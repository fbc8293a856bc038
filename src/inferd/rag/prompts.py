"""The prompt with numbered sources, and the citations in what the model made of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from inferd.rag.store import Hit

SYSTEM = (
    "Answer the question from the sources below. After each statement name its source by number in square brackets, "
    "as in [1]. If the sources do not hold the answer, say so."
)
_MARK = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")


def messages_of(question: str, sources: Sequence[Hit], system: str | None = None) -> list[dict[str, Any]]:
    listed = "\n\n".join(f"[{number}] ({hit.document})\n{hit.text}" for number, hit in enumerate(sources, 1))
    return [
        {"role": "system", "content": system or SYSTEM},
        {"role": "user", "content": f"Sources:\n\n{listed}\n\nQuestion: {question}"},
    ]


def citations_in(answer: str, num_sources: int) -> list[dict[str, int]]:
    """Where the answer names a source that there is: its number, and the mark's place in characters."""
    marks = ((mark, int(number)) for mark in _MARK.finditer(answer) for number in re.findall(r"\d+", mark[1]))
    return [
        {"source": number, "begin": mark.start(), "end": mark.end()}
        for mark, number in marks
        if 1 <= number <= num_sources
    ]
