"""GrammarCompiler: from what a request asks to a grammar its sequences can follow; each distinct one is compiled once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Protocol

from inferd.errors import InvalidRequestError
from inferd.structured.grammar import Controls
from inferd.structured.matcher import Matcher
from inferd.structured.sandbox import Sandbox
from inferd.structured.trial import new_matcher, new_tokenizer
from inferd.types import StructuredOutputs

MAX_CACHED = 128  # grammars
MAX_CACHED_SIZE = 2**20  # characters of all of them; compiled, a character takes at most about 100 bytes


class Tokenizer(Protocol):
    @property
    def vocab_size(self) -> int: ...
    @property
    def eos_token_ids(self) -> frozenset[int]: ...
    def encode(self, text: str, *, add_special_tokens: bool = True, parse_special: bool = False) -> list[int]: ...
    def token_bytes(self, token_id: int) -> bytes: ...
    def is_special(self, token_id: int) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grammar(StructuredOutputs):
    """StructuredOutputs that were compiled: what the engine takes."""

    start: Matcher

    def matcher(self) -> Matcher:
        """For one sequence, at its start."""
        return self.start.copy()


class GrammarCompiler:
    """Any thread may use it. The first grammar costs more: the child process and the index of the vocabulary."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._cache: OrderedDict[StructuredOutputs, Grammar] = OrderedDict()
        self._sandbox: Sandbox | None = None
        self._index: Any = None  # LLTokenizer

    def compile(self, asked: StructuredOutputs) -> Grammar:
        """Raises InvalidRequestError when it cannot be held to."""
        with self._lock:
            found = self._cache.pop(asked, None)
            if found is not None and not found.start.is_worn:
                self._cache[asked] = found
                return found
            sandbox, index = self._prepared()
            text = sandbox.grammar_of(asked.kind, asked.value)
            start = Matcher(new_matcher(index, text), self._tokenizer.vocab_size, self._tokenizer.eos_token_ids)
            grammar = Grammar(kind=asked.kind, value=asked.value, start=start)
            self._remember(asked, grammar)
            return grammar

    def close(self) -> None:
        with self._lock:
            if self._sandbox is not None:
                self._sandbox.close()
            self._sandbox = None

    def _prepared(self) -> tuple[Sandbox, Any]:
        tokenizer = self._tokenizer
        if not tokenizer.eos_token_ids:
            message = "structured_outputs need a model with a token that ends a text"
            raise InvalidRequestError(message, param="structured_outputs")
        if self._sandbox is None or self._index is None:
            ids = range(tokenizer.vocab_size)
            tokens = [tokenizer.token_bytes(i) for i in ids]
            controls = Controls(
                {tokens[i].decode("utf-8", "replace"): i for i in ids if tokenizer.is_special(i)},
                tokenizer.eos_token_ids,
            )
            self._index = self._index or new_tokenizer(tokens, controls, _Middle(tokenizer).encode)
            self._sandbox = self._sandbox or Sandbox(controls, tokenizer.vocab_size)
        return self._sandbox, self._index

    def _remember(self, asked: StructuredOutputs, grammar: Grammar) -> None:
        self._cache[asked] = grammar
        while len(self._cache) > MAX_CACHED or sum(len(key.value) for key in self._cache) > MAX_CACHED_SIZE:
            self._cache.popitem(last=False)


class _Middle:
    """Encodes text as it stands within a text, where no tokenizer puts a space before it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        ids = tokenizer.encode("a", add_special_tokens=False)
        adds_space = bool(ids) and tokenizer.token_bytes(ids[0]).startswith(b" ")
        self._before = "\n" if adds_space else ""
        self._num_before = len(tokenizer.encode(self._before, add_special_tokens=False)) if adds_space else 0

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(self._before + text, add_special_tokens=False)[self._num_before :]


def compiled(asked: StructuredOutputs | None) -> Grammar | None:
    """What the engine was given; compiling is not its work."""
    assert asked is None or isinstance(asked, Grammar), "structured_outputs must be compiled before the engine has them"
    return asked
