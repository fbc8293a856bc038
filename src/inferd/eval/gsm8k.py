"""GSM8K: word problems of school mathematics; the last number of the answer counts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

import msgspec

from inferd.errors import ConfigError
from inferd.eval.data import DataError, digest, read_jsonl
from inferd.eval.generate import Answer
from inferd.eval.results import Sample
from inferd.eval.task import share
from inferd.llm import LLM
from inferd.types import SamplingParams

PromptFormat = Literal["chat", "completion"]

_INSTRUCTION = "\n\nThink step by step. End with a line that holds the answer alone: #### and the number."
_ANNOTATION = re.compile(r"<<[^>]*>>")  # the data set's notes for a calculator
_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?|-?\$?\.\d+")
_MARKED = re.compile(r"####\s*(-?\$?[\d,.]+)")


class Row(msgspec.Struct, frozen=True):
    question: str
    answer: str


class GSM8K:
    """A Task over a folder with test.jsonl and, for num_shots > 0, train.jsonl, whose first rows are the solved
    examples (question, answer that ends with "#### number"). Raises DataError, and ConfigError when there are too few.
    """

    name = "gsm8k"

    def __init__(
        self, folder: Path, prompt_format: PromptFormat, num_shots: int, limit: int | None, max_tokens: int = 512
    ) -> None:
        paths = [folder / "test.jsonl", *([folder / "train.jsonl"] if num_shots else [])]
        tests = _read(paths[0])[:limit]
        self._shots = _read(paths[1])[:num_shots] if num_shots else []
        if len(self._shots) < num_shots:
            raise ConfigError(f"{paths[1]} has {len(self._shots)} solved examples, not {num_shots}")
        self._rows = {f"test/{i}": row for i, row in enumerate(tests)}
        self._format = prompt_format
        self._data = {"sha256": digest(paths), "num_items": len(tests)}
        stops = ("\nQuestion:",) if prompt_format == "completion" else ()
        self._sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens, stop=stops)

    @property
    def keys(self) -> list[str]:
        return list(self._rows)

    def facts(self) -> dict[str, Any]:
        return {"data": self._data, "prompt_format": self._format, "num_shots": len(self._shots)}

    def sampling(self, llm: LLM) -> SamplingParams:
        return self._sampling

    def prompt(self, llm: LLM, key: str) -> list[int]:
        question = self._rows[key].question
        if self._format == "completion":
            solved = "".join(f"Question: {shot.question}\nAnswer: {_solution(shot)}\n\n" for shot in self._shots)
            return llm.loaded.tokenizer.encode(f"{solved}Question: {question}\nAnswer:")
        messages = []
        for shot in self._shots:
            messages.append({"role": "user", "content": shot.question + _INSTRUCTION})
            messages.append({"role": "assistant", "content": _solution(shot)})
        return llm.render_chat([*messages, {"role": "user", "content": question + _INSTRUCTION}])

    def judge(self, key: str, answers: list[Answer]) -> Sample:
        text, want = answers[0].text, final_number(self._rows[key].answer)
        marked = _MARKED.search(text)
        got = final_number(text)
        return {
            "answer": None if got is None else str(got),
            "correct": got == want,
            "correct_and_marked": marked is not None and number(marked[1]) == want,
            "finish_reason": answers[0].finish_reason,
            "num_tokens": answers[0].num_tokens,
            "text": text,
        }

    def summarize(self, samples: Mapping[str, Sample]) -> dict[str, Any]:
        rows = samples.values()
        return {
            "num_items": len(samples),
            "accuracy": share(sum(row["correct"] for row in rows), len(samples)),
            "accuracy_when_marked": share(sum(row["correct_and_marked"] for row in rows), len(samples)),
            "num_cut_off": sum(row["finish_reason"] == "length" for row in rows),
            "num_tokens": sum(row["num_tokens"] for row in rows),
        }


def number(text: str) -> Decimal | None:
    """1,234.50 and $1234.5 are the same number."""
    try:
        return Decimal(text.replace(",", "").replace("$", "").rstrip(".")).normalize()
    except InvalidOperation:
        return None


def final_number(text: str) -> Decimal | None:
    """The number behind "####" if there is one, else the last number of the text."""
    marked = _MARKED.search(text)
    if marked and (value := number(marked[1])) is not None:
        return value
    found = _NUMBER.findall(text)
    return number(found[-1]) if found else None


def _solution(row: Row) -> str:
    return _ANNOTATION.sub("", row.answer)


def _read(path: Path) -> list[Row]:
    rows = read_jsonl(path, Row)
    for line, row in enumerate(rows, 1):
        if _MARKED.search(row.answer) is None:
            raise DataError(path, 'must end with "#### number"', line=line, field="answer")
    return rows
