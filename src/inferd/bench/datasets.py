"""Prompts and lengths. A sample depends on the seed and its own index alone, so any part of a run can be made again."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from inferd.bench.config import TRACES, LoadConfig
from inferd.errors import ConfigError

DEFAULT_OUTPUT_LEN = 64
MOONCAKE_BLOCK = 512  # tokens that one hash id of such a trace stands for
CHARS_PER_TOKEN = 4  # of English text; only for answers of a ShareGPT file, which has no token counts

# short and frequent, so that nearly every vocabulary has each as one token with its space
WORDS = """time year people way day man thing woman life child world school state family student group country problem
hand part place case week company system program question work government number night point home water room mother
area money story fact month lot right study book eye job word business issue side kind head house service friend
father power hour game line end member law car city community name president team minute idea body information back
parent face level office door health person art war history party result change morning reason research girl guy
moment air teacher force education foot boy age policy music market sense road field river table stone light window
paper train cloud bridge street summer winter ground heart voice blood color figure glass horse island letter metal
north south east west plant queen rain sea ship sound spring star sun tree wall wind wood animal apple bird boat
bottle box bread camera chair church class clock coat corner cross dance desk dinner dog drive earth farm fire fish
floor flower food forest garden gold green hair hill hotel iron judge key king knife lake land leaf machine map milk
mountain mouth""".split()


@dataclass(frozen=True, slots=True)
class TextScale:
    """Tokens the server counts for a text of words: overhead + per_word * num_words."""

    per_word: float = 1.0
    overhead: float = 0.0
    is_measured: bool = False

    def num_words(self, num_tokens: int) -> int:
        return max(1, round((num_tokens - self.overhead) / self.per_word))


@dataclass(frozen=True, slots=True)
class Sample:
    prompt: str
    input_len: int  # tokens asked for
    output_len: int
    offset: float = 0.0  # seconds from the begin of a trace


class Dataset(Protocol):
    def __len__(self) -> int:
        """How many samples there are before they repeat; 0: without end."""

    def sample(self, index: int) -> Sample: ...


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count))


class RandomDataset:
    """Random words; with num_prefixes, each prompt starts with one of as many shared texts of prefix_len tokens."""

    def __init__(self, config: LoadConfig, scale: TextScale, stream: str) -> None:
        self._config, self._scale, self._stream = config, scale, stream
        self._output_len = config.output_len or DEFAULT_OUTPUT_LEN
        self._prefixes: list[str] = []
        if config.dataset == "shared-prefix":
            count = max(1, round(config.prefix_len / scale.per_word))
            names = (f"{config.seed}/prefix/{number}" for number in range(config.num_prefixes))
            self._prefixes = [words(random.Random(name), count) for name in names]  # the same in every run of a sweep

    def __len__(self) -> int:
        return 0

    def sample(self, index: int) -> Sample:
        rng = random.Random(f"{self._config.seed}/{self._stream}/{index}")
        input_len, output_len = self._vary(rng, self._config.input_len), self._vary(rng, self._output_len)
        text = words(rng, self._scale.num_words(input_len))
        if self._prefixes:
            text = f"{rng.choice(self._prefixes)} {text}"
            input_len += self._config.prefix_len
        return Sample(text, input_len, output_len)

    def _vary(self, rng: random.Random, length: int) -> int:
        spread = self._config.range_ratio
        return rng.randint(max(1, round(length * (1 - spread))), max(1, round(length * (1 + spread))))


class ListDataset:
    def __init__(self, samples: list[Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def sample(self, index: int) -> Sample:
        return self._samples[index % len(self._samples)]


class TraceDataset:
    """Rows of a trace; blocks of equal id are equal text, so that a prefix cache sees what the traced one saw."""

    def __init__(self, rows: list[TraceRow], config: LoadConfig, scale: TextScale) -> None:
        self._rows, self._config, self._scale = rows, config, scale
        self._block_words = max(1, round(MOONCAKE_BLOCK * config.length_scale / scale.per_word))

    def __len__(self) -> int:
        return len(self._rows)

    def sample(self, index: int) -> Sample:
        row, config = self._rows[index % len(self._rows)], self._config
        input_len = max(1, round(row.input_len * config.length_scale))
        output_len = config.output_len or max(1, round(row.output_len * config.length_scale))
        text = self._text(row, index, self._scale.num_words(input_len))
        return Sample(text, input_len, output_len, row.offset / config.trace_speed)

    def _text(self, row: TraceRow, index: int, num_words: int) -> str:
        blocks = [words(random.Random(f"block/{number}"), self._block_words) for number in row.block_ids]
        shared = " ".join(blocks).split(" ")[:num_words] if blocks else []
        rest = words(random.Random(f"{self._config.seed}/rest/{index}"), max(0, num_words - len(shared)))
        return " ".join([*shared, *filter(None, [rest])])


@dataclass(frozen=True, slots=True)
class TraceRow:
    offset: float  # seconds from the first row
    input_len: int
    output_len: int
    block_ids: tuple[int, ...] = ()


def load_dataset(config: LoadConfig, scale: TextScale, stream: str) -> Dataset:
    """`stream` keeps the prompts of one run apart from another's. Raises ConfigError, with the line of a bad row."""
    if config.dataset_path is None:
        return RandomDataset(config, scale, stream)
    path = Path(config.dataset_path)
    if config.dataset in TRACES:
        rows = _from_zero(list((_mooncake_rows if config.dataset == "mooncake" else _azure_rows)(path)))
        _require_rows(path, rows)
        return TraceDataset(rows, config, scale)
    samples = list(_sharegpt_samples(path, config.output_len))
    _require_rows(path, samples)
    random.Random(f"{config.seed}/order").shuffle(samples)
    return ListDataset(samples)


def _require_rows(path: Path, rows: list[Any]) -> None:
    if not rows:
        raise ConfigError(f"{path}: no usable request in this file")


def _from_zero(rows: list[TraceRow]) -> list[TraceRow]:
    rows.sort(key=lambda row: row.offset)
    return [TraceRow(row.offset - rows[0].offset, row.input_len, row.output_len, row.block_ids) for row in rows]


def _mooncake_rows(path: Path) -> Iterator[TraceRow]:
    """JSON lines: timestamp (milliseconds), input_length, output_length and, where known, hash_ids."""
    for number, line in enumerate(_read(path).splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
                ids = tuple(int(i) for i in row.get("hash_ids") or ())
                yield TraceRow(row["timestamp"] / 1000, int(row["input_length"]), int(row["output_length"]), ids)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise _bad_row(path, number, "timestamp, input_length and output_length", error) from None


def _azure_rows(path: Path) -> Iterator[TraceRow]:
    """CSV: TIMESTAMP, ContextTokens, GeneratedTokens."""
    for number, row in enumerate(csv.DictReader(_read(path).splitlines()), 2):
        try:
            when = _timestamp(row["TIMESTAMP"])
            yield TraceRow(when, int(row["ContextTokens"]), int(row["GeneratedTokens"]))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _bad_row(path, number, "TIMESTAMP, ContextTokens and GeneratedTokens", error) from None


def _timestamp(text: str) -> float:
    """Seconds; the traces have seven digits after the point, and some an offset from UTC."""
    text, _, zone = text.partition("+")
    whole, _, fraction = text.strip().partition(".")
    when = datetime.fromisoformat(whole + (f"+{zone}" if zone else "+00:00"))
    return when.timestamp() + (float(f"0.{fraction}") if fraction else 0.0)


def _bad_row(path: Path, number: int, wanted: str, error: Exception) -> ConfigError:
    return ConfigError(f"{path}, line {number}: no row with {wanted} ({type(error).__name__}: {error})")


def _sharegpt_samples(path: Path, output_len: int | None) -> Iterator[Sample]:
    """A JSON list or JSON lines of objects with conversations (from, value) or messages (role, content)."""
    for conversation in _objects(path):
        turns = conversation.get("conversations") or conversation.get("messages") or []
        turns = [turn for turn in turns if isinstance(turn, dict) and turn.get("role") != "system"][:2]
        texts = [text for turn in turns if isinstance(text := turn.get("value") or turn.get("content"), str)]
        if len(texts) == 2 and (turns[0].get("from") or turns[0].get("role")) in ("human", "user"):
            question, answer = texts
            length = output_len or max(1, len(answer) // CHARS_PER_TOKEN)
            yield Sample(question, max(1, len(question) // CHARS_PER_TOKEN), length)


def _objects(path: Path) -> list[dict[str, Any]]:
    text = _read(path).strip()
    try:
        found = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines() if line]
    except ValueError as error:
        raise ConfigError(f"{path}: neither a JSON list nor JSON lines ({error})") from None
    return [entry for entry in found if isinstance(entry, dict)]


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"dataset_path {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"dataset_path {path}: not UTF-8 ({error.reason})") from None
