"""Log probabilities in their three shapes: of chat, of completions, and vLLM's prompt_logprobs."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from typing import Any

from inferd.types import PositionLogprobs, TokenLogprob

FLOOR = -9999.0  # JSON has no infinity; clients know this value
Pieces = Mapping[int, bytes]
_new_decoder = codecs.getincrementaldecoder("utf-8")


def floored(value: float) -> float:
    return value if value > FLOOR else FLOOR  # also for nan


class ChatLogprobs:
    """as_ids: name tokens "token_id:17", which is unambiguous where parts of characters are not."""

    def __init__(self, *, as_ids: bool) -> None:
        self._as_ids = as_ids

    def render(self, positions: Sequence[PositionLogprobs], pieces: Pieces) -> dict[str, Any]:
        content = []
        for position in positions:
            entry = self._entry(position.chosen, pieces)
            entry["top_logprobs"] = [self._entry(token, pieces) for token in position.top]
            content.append(entry)
        return {"content": content, "refusal": None}

    def _entry(self, token: TokenLogprob, pieces: Pieces) -> dict[str, Any]:
        piece = pieces.get(token.token_id, b"")
        text = f"token_id:{token.token_id}" if self._as_ids else piece.decode("utf-8", "replace")
        return {"token": text, "logprob": floored(token.logprob), "bytes": list(piece)}


class CompletionLogprobs:
    """Four lists with one entry for each token; knows how much text came before."""

    def __init__(self, *, as_ids: bool) -> None:
        self._as_ids = as_ids
        self._decoder = _new_decoder("replace")
        self._num_characters = 0

    def render(self, positions: Sequence[PositionLogprobs], pieces: Pieces) -> dict[str, Any]:
        ids = [position.chosen.token_id for position in positions]
        return self._lists([pieces.get(token_id, b"") for token_id in ids], ids, positions, pieces)

    def render_prompt(
        self,
        token_ids: Sequence[int],
        own_pieces: Sequence[bytes],
        positions: Sequence[PositionLogprobs | None],
        pieces: Pieces,
    ) -> dict[str, Any]:
        """The echoed prompt. Nothing came before its first token: no logprob."""
        return self._lists(own_pieces, token_ids, positions, pieces)

    def _lists(
        self,
        own_pieces: Sequence[bytes],
        token_ids: Sequence[int],
        positions: Sequence[PositionLogprobs | None],
        pieces: Pieces,
    ) -> dict[str, Any]:
        return {
            "tokens": [self._name(i, piece) for i, piece in zip(token_ids, own_pieces, strict=True)],
            "token_logprobs": [None if p is None else floored(p.chosen.logprob) for p in positions],
            "top_logprobs": [None if p is None else self._top(p, pieces) for p in positions],
            "text_offset": [self._offset(piece) for piece in own_pieces],
        }

    def _top(self, position: PositionLogprobs, pieces: Pieces) -> dict[str, float]:
        named: dict[str, float] = {}
        for token in (*position.top, position.chosen):
            name = self._name(token.token_id, pieces.get(token.token_id, b""))
            named.setdefault(name, floored(token.logprob))
        return named

    def _name(self, token_id: int, piece: bytes) -> str:
        if self._as_ids:
            return f"token_id:{token_id}"
        try:
            return piece.decode()
        except UnicodeDecodeError:  # different parts of characters must stay different keys
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)

    def _offset(self, piece: bytes) -> int:
        offset = self._num_characters
        self._num_characters += len(self._decoder.decode(piece))
        return offset


def prompt_logprobs(positions: Sequence[PositionLogprobs | None], pieces: Pieces) -> list[dict[str, Any] | None]:
    """vLLM's shape: for each position, token id to its entry."""

    def entry(token: TokenLogprob) -> dict[str, Any]:
        text = pieces.get(token.token_id, b"").decode("utf-8", "replace")
        return {"logprob": floored(token.logprob), "rank": token.rank, "decoded_token": text}

    return [
        None if position is None else {str(t.token_id): entry(t) for t in (position.chosen, *position.top)}
        for position in positions
    ]
