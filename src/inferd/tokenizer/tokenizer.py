"""Tokenizer: text to ids and back, byte-exact. Its state is frozen; any thread may use it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from inferd.tokenizer.control import ControlTexts
from inferd.tokenizer.detokenizer import IncrementalDetokenizer


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What each id stands for. token_bytes: (num_tokens,); control ids are never part of plain text."""

    token_bytes: tuple[bytes, ...]
    control_ids: frozenset[int]
    bos_token_id: int | None
    eos_token_ids: frozenset[int]
    add_bos: bool
    strips_leading_space: bool = False  # SentencePiece puts one before the text; decoding takes it away


class Encoder(Protocol):
    """Ids of a piece of text."""

    def __call__(self, text: str) -> list[int]: ...


class Tokenizer:
    """plain leaves control strings text; recognising, when it is given, turns them into their ids in its own way, else
    they are cut out and what lies between is encoded by itself."""

    def __init__(
        self, plain: Encoder, vocabulary: Vocabulary, vocab_size: int, recognising: Encoder | None = None
    ) -> None:
        self._plain = plain
        self._recognising = recognising
        self._vocabulary = vocabulary
        self._vocab_size = vocab_size
        texts = {vocabulary.token_bytes[i].decode("utf-8", "replace"): i for i in vocabulary.control_ids}
        self.control = ControlTexts(texts)

    @property
    def vocab_size(self) -> int:
        """Width of the logits; ids at or above num_tokens are padding and decode to nothing."""
        return self._vocab_size

    @property
    def num_tokens(self) -> int:
        return len(self._vocabulary.token_bytes)

    @property
    def bos_token_id(self) -> int | None:
        return self._vocabulary.bos_token_id

    @property
    def eos_token_ids(self) -> frozenset[int]:
        return self._vocabulary.eos_token_ids

    @property
    def add_bos(self) -> bool:
        return self._vocabulary.add_bos

    def is_special(self, token_id: int) -> bool:
        return token_id in self._vocabulary.control_ids

    def encode(self, text: str, *, add_special_tokens: bool = True, parse_special: bool = False) -> list[int]:
        """Ids of a text. parse_special: control strings become their ids instead of text.

        Lone surrogates, which no UTF-8 has, become U+FFFD.
        """
        text = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        if not parse_special:
            ids = self._plain(text)
        else:
            ids = self._recognising(text) if self._recognising is not None else self._cut_and_encode(text, guard="")
        return self._with_bos(ids) if add_special_tokens else ids

    def encode_guarded(self, text: str, guard: str, *, add_special_tokens: bool = False) -> list[int]:
        """Ids of a rendered chat template: control strings count, unless `guard` breaks them (then they are text)."""
        ids = self._cut_and_encode(text, guard)
        return self._with_bos(ids) if add_special_tokens else ids

    def _cut_and_encode(self, text: str, guard: str) -> list[int]:
        ids: list[int] = []
        at = 0
        for begin, end, token_id in self.control.find(text):
            self._append_plain(ids, text[at:begin], guard)
            ids.append(token_id)
            at = end
        self._append_plain(ids, text[at:], guard)
        return ids

    def _append_plain(self, ids: list[int], text: str, guard: str) -> None:
        if text:
            ids += self.encode(text.replace(guard, "") if guard else text, add_special_tokens=False)

    def _with_bos(self, ids: list[int]) -> list[int]:
        bos = self._vocabulary.bos_token_id
        if not self._vocabulary.add_bos or bos is None or ids[:1] == [bos]:
            return ids
        return [bos, *ids]

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token stands for; a control token's text; b"" for padding ids."""
        known = self._vocabulary.token_bytes
        return known[token_id] if 0 <= token_id < len(known) else b""

    def token_text(self, token_id: int) -> str:
        """For display beside a logprob: a part of a character shows as U+FFFD."""
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        detokenizer = self.detokenizer(skip_special_tokens=skip_special_tokens)
        return detokenizer.push(ids) + detokenizer.flush()

    def detokenizer(self, *, skip_special_tokens: bool = True) -> IncrementalDetokenizer:
        return IncrementalDetokenizer(
            self._visible_bytes if skip_special_tokens else self._all_bytes,
            strips_leading_space=self._vocabulary.strips_leading_space,
        )

    def _visible_bytes(self, ids: Iterable[int]) -> bytes:
        control = self._vocabulary.control_ids
        return b"".join(self.token_bytes(i) for i in ids if i not in control)

    def _all_bytes(self, ids: Iterable[int]) -> bytes:
        return b"".join(map(self.token_bytes, ids))
