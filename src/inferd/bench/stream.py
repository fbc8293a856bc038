"""Streamed answers as they arrive: which chunks were tokens, when they came, what the server counted."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

import msgspec

from inferd.bench.http import RequestFailedError


class Delta(msgspec.Struct):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: Any = None


class Choice(msgspec.Struct):
    delta: Delta | None = None  # of a chat
    text: str | None = None  # of a completion
    finish_reason: str | None = None


class PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None


class Chunk(msgspec.Struct):
    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(Chunk).decode


@dataclass(slots=True)
class Record:
    """One request. Times are perf_counter() seconds."""

    index: int
    input_len: int  # tokens asked for; what the server counted is in prompt_tokens
    output_len: int
    intended: float = 0.0  # when the schedule wanted it sent
    slot_wait: float = 0.0  # seconds of that spent on a free slot of max_concurrency
    sent: float = 0.0
    ended: float = 0.0
    # chunks with tokens; those that one read brought came at once and are one arrival
    arrivals: array[float] = field(default_factory=lambda: array("d"))  # (num_arrivals,)
    chunks_so_far: array[int] = field(default_factory=lambda: array("l"))  # (num_arrivals,)
    tokens_so_far: array[int] = field(default_factory=lambda: array("l"))  # (num_arrivals,) all 0 when nobody counted
    usage: Usage | None = None
    finish_reason: str | None = None
    cause: str | None = None  # of a failure
    detail: str = ""

    @property
    def is_ok(self) -> bool:
        return self.cause is None

    @property
    def prompt_tokens(self) -> int | None:
        return self.usage.prompt_tokens if self.usage is not None else None

    @property
    def cached_tokens(self) -> int:
        details = self.usage.prompt_tokens_details if self.usage is not None else None
        return (details.cached_tokens or 0) if details is not None else 0

    @property
    def counts_by_usage(self) -> bool:
        return self.usage is not None and self.usage.completion_tokens is not None

    @property
    def num_tokens(self) -> int:
        """As the server counted; else as many as chunks came."""
        counted = self.usage.completion_tokens if self.usage is not None else None
        return self.num_chunks if counted is None else counted

    @property
    def num_chunks(self) -> int:
        return self.chunks_so_far[-1] if self.chunks_so_far else 0

    def tokens_of_arrivals(self) -> list[int]:
        """(num_arrivals,) summing to num_tokens: as the server counted, else spread evenly over the chunks."""
        num_chunks, num_tokens = self.num_chunks, self.num_tokens
        if self.has_running_counts:
            totals = list(self.tokens_so_far)
            totals[-1] = num_tokens  # tokens without text after the last chunk: an end, a stop string
        else:
            totals = [count * num_tokens // num_chunks for count in self.chunks_so_far]
        return [now - before for now, before in zip(totals, [0, *totals], strict=False)]

    @property
    def has_running_counts(self) -> bool:
        return len(self.tokens_so_far) > 0 and self.tokens_so_far[0] > 0


class StreamReader:
    """Fills a Record from the body of one event stream. Raises nothing: `check` does, after the end."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._rest = b""
        self._num_counted = 0
        self._is_done = False
        self._problem: RequestFailedError | None = None

    def receive(self, data: bytes, now: float) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n") if self._rest else data.split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip(), now)

    def _event(self, payload: bytes, now: float) -> None:
        if payload == b"[DONE]":
            self._is_done = True
            return
        try:
            chunk = _decode(payload)
        except msgspec.DecodeError as error:
            self._problem = RequestFailedError("malformed chunk", f"{error}: {payload[:80]!r}")
            return
        if chunk.error is not None:
            self._problem = RequestFailedError("error in the stream", error_text(chunk.error))
        self._chunk(chunk, now)

    def _chunk(self, chunk: Chunk, now: float) -> None:
        record, num_counted, has_text = self._record, self._num_counted, False
        if chunk.usage is not None:
            record.usage = chunk.usage
            num_counted = chunk.usage.completion_tokens or 0
        for choice in chunk.choices:
            has_text = has_text or _has_text(choice)
            record.finish_reason = choice.finish_reason or record.finish_reason
        # a token may have no text yet, as half a character; a running count then says that it came
        is_running_count = self._num_counted > 0 or not record.arrivals
        if has_text or (chunk.choices and is_running_count and num_counted > self._num_counted):
            self._token_chunk(now)
            record.tokens_so_far[-1] = self._num_counted = num_counted

    def _token_chunk(self, now: float) -> None:
        record = self._record
        num_chunks = record.num_chunks + 1
        if record.arrivals and record.arrivals[-1] == now:
            record.chunks_so_far[-1] = num_chunks
            return
        record.arrivals.append(now)
        record.chunks_so_far.append(num_chunks)
        record.tokens_so_far.append(0)

    def check(self) -> None:
        """Raises RequestFailedError when the stream was not a whole answer."""
        if self._problem is not None:
            raise self._problem
        if not self._is_done and self._record.finish_reason is None:
            raise RequestFailedError("stream ended early", f"after {self._record.num_chunks} chunks")
        if not self._record.arrivals:
            raise RequestFailedError("no token in the answer")


def _has_text(choice: Choice) -> bool:
    if choice.text:
        return True
    delta = choice.delta
    return delta is not None and bool(delta.content or delta.reasoning_content or delta.reasoning or delta.tool_calls)


def error_text(error: Any) -> str:
    """The message of an error object in any of the shapes servers send."""
    for key in ("error", "message", "detail", "msg"):
        if isinstance(error, dict) and error.get(key):
            return error_text(error[key])
    if isinstance(error, list) and error:
        return error_text(error[0])
    return " ".join(str(error).split())[:300]
