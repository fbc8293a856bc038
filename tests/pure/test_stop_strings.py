"""The stop-string matcher against a naive search of the whole text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.tokenizer.stop_strings import StopStringMatcher

LETTERS = st.text("ab", min_size=1, max_size=5)
CHUNKS = st.lists(st.text("abc", max_size=4), max_size=12)


def naive(text: str, stops: list[str], include: bool) -> tuple[str, str | None]:
    """The stop string that ends first (the longest of those that end together), and the text before or through it."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            stop = max(ending, key=len)
            return text[: end if include else end - len(stop)], stop
    return text, None


@settings(max_examples=2000, deadline=None)
@given(CHUNKS, st.lists(LETTERS, max_size=4), st.booleans())
def test_equals_the_naive_search(chunks: list[str], stops: list[str], include: bool) -> None:
    matcher, released, found, pushed = StopStringMatcher(stops, include=include), "", None, ""
    for chunk in chunks:
        pushed += chunk
        text, found = matcher.push(chunk)
        released += text
        if found:
            break
        held = pushed[len(released) :]
        assert pushed.startswith(released)
        # no more is held back than may still become a stop string
        assert held == max((pushed[i:] for i in range(len(pushed) + 1) if starts_one(pushed[i:], stops)), key=len)
    if not found:
        released += matcher.flush()
    assert (released, found) == naive(pushed if found else "".join(chunks), stops, include)


def starts_one(text: str, stops: list[str]) -> bool:
    return any(stop.startswith(text) and stop != text for stop in stops) or not text


def test_without_stop_strings_all_passes_through() -> None:
    matcher = StopStringMatcher((), include=False)
    assert matcher.push("any") == ("any", None)
    assert matcher.flush() == ""
