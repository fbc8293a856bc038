"""SequenceText: the text of one output as it grows; whole characters only, stop strings held back."""

from __future__ import annotations

from inferd.tokenizer.stop_strings import StopStringMatcher
from inferd.tokenizer.tokenizer import Tokenizer
from inferd.types import SamplingParams


class SequenceText:
    def __init__(self, tokenizer: Tokenizer, sampling: SamplingParams) -> None:
        self._detokenizer = tokenizer.detokenizer(skip_special_tokens=sampling.skip_special_tokens)
        self._stops = StopStringMatcher(sampling.stop, include=sampling.include_stop_str_in_output)

    def push(self, token_id: int, *, may_stop: bool) -> tuple[str, str | None]:
        """(the text that is now certain, the stop string that ended it or None).

        Without may_stop (before min_tokens) the text passes unexamined.
        """
        text = self._detokenizer.push((token_id,))
        return self._stops.push(text) if may_stop else (text, None)

    def finish(self) -> str:
        """What is still held back: an unfinished character shows as U+FFFD, a stop string that never came is text."""
        text, _ = self._stops.push(self._detokenizer.flush())
        return text + self._stops.flush()
