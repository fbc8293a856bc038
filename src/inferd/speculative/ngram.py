"""Prompt lookup: what followed the last few tokens the last time they occurred, in the prompt or in the output."""

from __future__ import annotations

from collections.abc import Sequence

MATCH_LENGTH = 3  # tokens; at 2, chat text matches by chance and acceptance falls under one half


class NgramIndex:
    """Of one sequence: where each run of MATCH_LENGTH tokens was last followed by something. Grows with it."""

    def __init__(self) -> None:
        self._follower: dict[tuple[int, ...], int] = {}  # run -> position of the token after it
        self._num_indexed = MATCH_LENGTH  # runs that end before this position are in

    def propose(self, token_ids: Sequence[int], count: int) -> tuple[int, ...]:
        """At most `count` guesses; () when the last tokens are new. A match near the end is continued periodically."""
        size = len(token_ids)
        if size <= MATCH_LENGTH:
            return ()
        for end in range(self._num_indexed, size):
            self._follower[tuple(token_ids[end - MATCH_LENGTH : end])] = end
        self._num_indexed = size
        start = self._follower.get(tuple(token_ids[size - MATCH_LENGTH :]))
        if start is None:
            return ()
        period = size - start
        return tuple(token_ids[start + i % period] for i in range(count))
