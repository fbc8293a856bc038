"""The nouns that cross boundaries. Imports nothing else of inferd but the error tree; everything here is frozen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from inferd.errors import InvalidRequestError

FinishReason = Literal["stop", "length", "abort", "error"]
StructuredKind = Literal["json_object", "json_schema", "regex", "choice", "grammar", "lazy"]

MAX_LOGPROBS = 100
MAX_N = 64
MAX_STOP_STRINGS = 16
MAX_STOP_STRING_LEN = 1024
MAX_BIAS_ENTRIES = 1024
MAX_SEED = 2**64 - 1
MAX_GRAMMAR_LEN = 2**18


def _check(ok: bool, param: str, value: object, allowed: str) -> None:
    if not ok:
        raise InvalidRequestError(f"{param} must be {allowed}, got {_shown(value)}", param=param)


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**80:
        return "an integer of more than 80 digits"  # str() refuses those of more than 4,300
    return str(value)[:80]


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return _is_int(value) or (isinstance(value, float) and math.isfinite(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredOutputs:
    """What the text of an output must be. value, by kind:

    json_object: nothing. json_schema: the schema as JSON text. regex: the expression. choice: a JSON list of texts.
    grammar: Lark or GBNF. lazy: a JSON list of {"begin": text, "schema": {...}, "end": text}: free text until a `begin`
    was written, then what its schema allows and `end`, then free text again.
    """

    kind: StructuredKind
    value: str = ""

    def __post_init__(self) -> None:
        kinds = get_args(StructuredKind)
        _check(self.kind in kinds, "structured_outputs", self.kind, f"one of {', '.join(kinds)}")
        size = len(self.value)
        _check(size <= MAX_GRAMMAR_LEN, "structured_outputs", f"{size}", f"at most {MAX_GRAMMAR_LEN} characters")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the output of one request is chosen. Names and defaults are vLLM's. A bad value raises InvalidRequestError.

    Order: raw logits -> logprobs are taken here -> allowed ids, bias, bad words -> repetition, frequency, presence
    penalties -> temperature -> min_p -> top_k -> top_p -> typical_p -> draw. temperature 0 is greedy (lowest id wins).
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0 or -1: off
    min_p: float = 0.0
    typical_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    max_tokens: int | None = 16  # None: as many as the context holds
    min_tokens: int = 0
    logprobs: int | None = None  # 0: only the chosen token's
    prompt_logprobs: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    allowed_token_ids: tuple[int, ...] | None = None
    bad_words: tuple[str, ...] = ()
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    structured_outputs: StructuredOutputs | None = None

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_lists()

    def _check_numbers(self) -> None:
        def number(name: str, low: float, high: float, allowed: str) -> None:
            value = getattr(self, name)
            _check(_is_finite(value) and low <= value <= high, name, value, allowed)

        def integer(name: str, low: int, high: int, allowed: str, *, optional: bool = False) -> None:
            value = getattr(self, name)
            ok = (optional and value is None) or (_is_int(value) and low <= value <= high)
            _check(ok, name, value, allowed)

        integer("n", 1, MAX_N, f"an integer from 1 to {MAX_N}")
        number("temperature", 0, 100, "a number from 0 to 100")
        number("top_p", 0, 1, "a number from 0 to 1")
        integer("top_k", -1, 2**31 - 1, "an integer, 0 or -1 for off, or above 0")
        number("min_p", 0, 1, "a number from 0 to 1")
        number("typical_p", 0, 1, "a number from 0 to 1")
        integer("seed", -(2**63), MAX_SEED, "an integer from -2**63 to 2**64-1", optional=True)
        integer("max_tokens", 1, 2**31 - 1, "an integer above 0", optional=True)
        limit = self.max_tokens if self.max_tokens is not None else 2**31 - 1
        integer("min_tokens", 0, limit, f"an integer from 0 to max_tokens ({limit})")
        integer("logprobs", 0, MAX_LOGPROBS, f"an integer from 0 to {MAX_LOGPROBS}", optional=True)
        integer("prompt_logprobs", 0, MAX_LOGPROBS, f"an integer from 0 to {MAX_LOGPROBS}", optional=True)
        number("presence_penalty", -2, 2, "a number from -2 to 2")
        number("frequency_penalty", -2, 2, "a number from -2 to 2")
        number("repetition_penalty", 0.01, 100, "a number from 0.01 to 100")

    def _check_lists(self) -> None:
        stops = self.stop
        _check(len(stops) <= MAX_STOP_STRINGS, "stop", f"{len(stops)} strings", f"at most {MAX_STOP_STRINGS} strings")
        for text in stops:
            ok = isinstance(text, str) and 0 < len(text) <= MAX_STOP_STRING_LEN
            _check(ok, "stop", text, f"strings of 1 to {MAX_STOP_STRING_LEN} characters")
        _check(len(self.stop_token_ids) <= 128, "stop_token_ids", f"{len(self.stop_token_ids)} ids", "at most 128 ids")
        size = len(self.logit_bias)
        _check(size <= MAX_BIAS_ENTRIES, "logit_bias", f"{size} entries", f"at most {MAX_BIAS_ENTRIES} entries")
        for value in self.logit_bias.values():
            _check(_is_finite(value) and -100 <= value <= 100, "logit_bias", value, "numbers from -100 to 100")
        if self.allowed_token_ids is not None:
            _check(len(self.allowed_token_ids) > 0, "allowed_token_ids", "[]", "a list with at least one id")
        _check(len(self.bad_words) <= 128, "bad_words", f"{len(self.bad_words)} words", "at most 128 words")
        for word in self.bad_words:
            _check(isinstance(word, str) and 0 < len(word) <= 256, "bad_words", word, "strings of 1 to 256 characters")

    def check_token_ids(self, vocab_size: int) -> None:
        """Check every token id against the width of the logits; raises InvalidRequestError with the field's name."""
        fields: tuple[tuple[str, Any], ...] = (
            ("stop_token_ids", self.stop_token_ids),
            ("logit_bias", self.logit_bias),
            ("allowed_token_ids", self.allowed_token_ids or ()),
        )
        for name, ids in fields:
            for token_id in ids:
                ok = _is_int(token_id) and 0 <= token_id < vocab_size
                _check(ok, name, token_id, f"token ids from 0 to {vocab_size - 1}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingBudget:
    """Reasoning that is ended for the model after num_tokens. begin: what opens it; "" where the prompt did."""

    num_tokens: int
    begin: str
    end: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """One request as the engine sees it: token ids only, text ended at the tokenizer.

    Checked once where it enters the engine (ids against the vocabulary, lengths against the context).
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    priority: int = 0  # lower runs first; equal priorities by arrival
    tenant: str = ""  # salts the prefix cache: no reuse across tenants
    cache_salt: str = ""  # a client may narrow the reuse further
    adapter: str = ""  # name of a loaded LoRA adapter; "": the model alone
    weight: float = 1.0  # of the tenant's share when tenants compete
    is_background: bool = False  # runs where requests of the foreground leave room
    thinking: ThinkingBudget | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    token_id: int
    logprob: float  # natural log of the raw softmax: before bias, penalties and temperature
    rank: int  # 1 = most likely


@dataclass(frozen=True, slots=True)
class PositionLogprobs:
    """The token at one position and the most likely ones, best first (as many as asked)."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTimings:
    """What the engine measured of one request, over all its sequences: seconds and counts."""

    queue: float  # from its arrival in the engine to its first step
    prefill: float  # from there to the first token
    decode: float  # from there to the last token
    busy: float  # its share of the steps it was in: the time of each, divided by the tokens computed
    num_prompt_tokens: int
    num_cached_tokens: int  # of the prompt, from the prefix cache
    num_output_tokens: int
    num_preemptions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEvent:
    """What one step adds to one sequence of a request; the last event of a sequence has a finish_reason.

    text is the new, complete UTF-8 text (stop strings held back until decided); "" while bytes are held back.
    The concatenation of the texts of a sequence is the whole text, byte for byte.
    """

    request_id: str
    index: int  # 0 .. n-1
    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[PositionLogprobs, ...] | None = None  # one per token id, when asked
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None  # the stop string or stop token id that ended it; None for eos
    num_cached_tokens: int = 0  # of the prompt, from the prefix cache
    prompt_logprobs: tuple[PositionLogprobs | None, ...] | None = None  # on the first event of index 0, when asked
    error: str | None = None  # with finish_reason "error"
    timings: RequestTimings | None = None  # on the last event of the request


@dataclass(frozen=True, slots=True)
class BucketCounts:
    """A histogram as it crosses a boundary. counts: (num_buckets + 1,), the last for values above every bound."""

    counts: tuple[int, ...] = ()
    sum: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """A snapshot after a step; totals only grow."""

    num_running: int
    num_waiting: int
    num_blocks: int
    num_used_blocks: int  # held by live requests; cached but free blocks are not counted
    num_steps: int
    num_prompt_tokens: int
    num_generated_tokens: int
    num_prefix_queried_tokens: int
    num_prefix_hit_tokens: int
    num_preemptions: int
    num_drafted_tokens: int = 0  # guesses of speculation that were checked
    num_accepted_tokens: int = 0  # and those that were right
    num_drafts: int = 0  # rows of guesses: one for each sequence and step that had some
    accepted_by_position: tuple[int, ...] = ()  # [i]: how often the guess number i + 1 of a row was right
    busy_seconds: float = 0.0  # in which the engine had requests
    cpu_seconds: float = 0.0  # of the whole process, all threads
    num_threads: int = 1  # of the kernels
    step_seconds: BucketCounts = BucketCounts()  # of the executor alone
    batch_size: BucketCounts = BucketCounts()  # sequences of a step
    step_tokens: BucketCounts = BucketCounts()  # tokens of a step, guesses among them
    num_cached_blocks: int = 0  # hold a prefix that can be found, in use or not
    kv_used_map: bytes = b""  # at most 256 cells, each over an equal run of blocks: share in use, 255 = all
    kv_cached_map: bytes = b""  # the same for blocks that hold a prefix that can be found
