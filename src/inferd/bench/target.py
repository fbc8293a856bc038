"""One OpenAI-compatible server: its address, what it accepts, how it counts tokens, and requests to it."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import msgspec

from inferd.bench.config import LoadConfig
from inferd.bench.datasets import Sample, TextScale, words
from inferd.bench.http import HttpClient, RequestFailedError, Response
from inferd.bench.stream import Record, StreamReader, error_text
from inferd.errors import InferdError

PROBE_WORDS = (16, 80)
STREAM_OPTIONS: tuple[dict[str, bool] | None, ...] = (
    {"include_usage": True, "continuous_usage_stats": True},  # the second tells the tokens of each chunk
    {"include_usage": True},
    None,
)


class TargetError(InferdError):
    """The server under test cannot be used: unreachable, wrong model, refused key."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What probing a server told."""

    model: str
    scale: TextScale
    stream_options: dict[str, bool] | None
    version: str | None  # of the server, where it says


class Target:
    """`probe` first; then `send`. Close with `close`."""

    def __init__(self, config: LoadConfig) -> None:
        """Raises ConfigError for a URL of another form."""
        self._config = config
        parts = urlsplit(config.url)
        path = parts.path.rstrip("/")
        self._root = path.removesuffix("/v1")
        self._path = f"{self._root}/v1" + ("/chat/completions" if config.api == "chat" else "/completions")
        key = {"authorization": f"Bearer {config.api_key}"} if config.api_key else {}
        self._client = HttpClient(f"{parts.scheme}://{parts.netloc}", {**key, **config.headers}, config.timeout)
        self._facts = Facts(config.model or "", TextScale(), STREAM_OPTIONS[0], None)

    @property
    def facts(self) -> Facts:
        return self._facts

    async def probe(self) -> Facts:
        """Finds the model, the stream options that are accepted and the scale of text. Raises TargetError."""
        try:
            listed = await self._listed_models()
            self._facts = replace(self._facts, model=self._config.model or _first(listed, self._config.url))
            short = await self._first_probe(listed)
            long = await self._probe(PROBE_WORDS[1])
            version = await self._version()
        except RequestFailedError as error:
            raise TargetError(f"{self._config.url}: {error}") from None
        scale = _scale(short, long)
        self._facts = replace(self._facts, scale=scale, version=version)
        if self._facts.stream_options is not None and not (short.has_running_counts and long.has_running_counts):
            self._facts = replace(self._facts, stream_options={"include_usage": True})
        return self._facts

    async def _listed_models(self) -> list[str]:
        """Their names; [] where the server has no such route."""
        response = await self._get(f"{self._root}/v1/models")
        if response.status in (401, 403):
            raise RequestFailedError(self._refused_key(response))
        if response.status != 200:
            return []
        try:
            return [str(entry["id"]) for entry in msgspec.json.decode(response.body)["data"]]
        except (msgspec.DecodeError, KeyError, TypeError):
            return []

    def _refused_key(self, response: Response) -> str:
        given = "the API key was refused" if self._config.api_key else "an API key is needed (--api-key)"
        return f"HTTP {response.status}, {given}: {_message(response)}"

    async def _first_probe(self, listed: list[str]) -> Record:
        """The most telling stream options that the server takes."""
        for options in STREAM_OPTIONS:
            self._facts = replace(self._facts, stream_options=options)
            try:
                return await self._probe(PROBE_WORDS[0])
            except RequestFailedError as error:
                refused = error.cause in ("HTTP 400", "HTTP 422") and "stream" in error.detail.lower()
                if not refused or options is None:
                    raise self._explained(error, listed) from None
        raise AssertionError

    def _explained(self, error: RequestFailedError, listed: list[str]) -> RequestFailedError:
        model = self._facts.model
        names_it = error.cause == "HTTP 404" or (error.cause == "HTTP 400" and model in error.detail)
        if listed and model not in listed and names_it:
            return RequestFailedError(f"no model {model!r} there ({error}); served: {', '.join(listed)}")
        if "ignore_eos" in error.detail:
            return RequestFailedError(f"{error}; try --no-ignore-eos")
        return error

    async def _probe(self, num_words: int) -> Record:
        text = words(random.Random(f"probe/{num_words}"), num_words)
        record = Record(index=-1, input_len=num_words, output_len=2)
        await self.exchange(self.body(Sample(text, num_words, 2)), record)
        if record.cause is not None:
            raise RequestFailedError(record.cause, record.detail)
        return record

    async def _version(self) -> str | None:
        response = await self._get(f"{self._root}/version")
        try:
            facts = msgspec.json.decode(response.body) if response.status == 200 else {}
        except msgspec.DecodeError:
            return None
        version = facts.get("version") if isinstance(facts, dict) else None
        return None if version is None else str(version)

    async def _get(self, path: str) -> Response:
        return await self._client.request("GET", path, b"", lambda data, now: None)

    def body(self, sample: Sample) -> bytes:
        """The JSON of a request."""
        config, facts = self._config, self._facts
        chat = config.api == "chat"
        prompt: dict[str, Any] = (
            {"messages": [{"role": "user", "content": sample.prompt}]} if chat else {"prompt": sample.prompt}
        )
        body = {"model": facts.model, **prompt, "max_tokens": sample.output_len, "stream": True}
        body |= {"temperature": config.temperature}
        if config.ignore_eos:
            body["ignore_eos"] = True
        if facts.stream_options is not None:
            body["stream_options"] = facts.stream_options
        body |= config.extra_body
        return msgspec.json.encode({name: value for name, value in body.items() if value is not None})

    async def exchange(self, body: bytes, record: Record) -> None:
        """Sends and reads to the end; a failure is noted in the record, never raised."""
        reader = StreamReader(record)
        record.sent = perf_counter()
        try:
            response = await self._client.request("POST", self._path, body, reader.receive)
            if response.status != 200:
                raise RequestFailedError(f"HTTP {response.status}", _message(response))
            if response.body:
                raise RequestFailedError("answer is no event stream", _message(response))
            reader.check()
        except RequestFailedError as error:
            record.cause, record.detail = error.cause, error.detail
        record.ended = perf_counter()

    def close(self) -> None:
        self._client.close()


def _first(listed: list[str], url: str) -> str:
    if not listed:
        raise TargetError(f"{url}: the server lists no models; name one with --model")
    return listed[0]


def _message(response: Response) -> str:
    try:
        return error_text(msgspec.json.decode(response.body))
    except msgspec.DecodeError:
        return " ".join(response.body.decode(errors="replace").split())[:200]


def _scale(short: Record, long: Record) -> TextScale:
    """A line through both probes; one token per word where the server does not count."""
    if short.prompt_tokens is None or long.prompt_tokens is None or long.prompt_tokens <= short.prompt_tokens:
        return TextScale()
    per_word = (long.prompt_tokens - short.prompt_tokens) / (PROBE_WORDS[1] - PROBE_WORDS[0])
    return TextScale(per_word, short.prompt_tokens - per_word * PROBE_WORDS[0], is_measured=True)
