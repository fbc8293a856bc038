"""MMLU: four-way questions, answered by the likeliest of the four letters after some solved examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from inferd.errors import ConfigError
from inferd.eval.data import DataError, digest, read_csv, read_jsonl
from inferd.eval.generate import Answer
from inferd.eval.results import Sample
from inferd.eval.task import share
from inferd.llm import LLM
from inferd.types import SamplingParams

PromptFormat = Literal["chat", "completion"]

LETTERS = "ABCD"
_COLUMNS = ("question", *LETTERS, "answer")


class _Row(msgspec.Struct, frozen=True):
    question: str
    choices: list[str]
    answer: int | str
    subject: str = "all"


class Question(msgspec.Struct, frozen=True):
    subject: str
    question: str
    choices: tuple[str, str, str, str]
    answer: int  # 0 .. 3


class MMLU:
    """A Task over a folder in one of the two public forms: test/SUBJECT_test.csv and dev/SUBJECT_dev.csv (no header:
    question, four choices, letter), or test.jsonl and dev.jsonl (question, subject, choices, answer as 0..3 or letter).

    num_shots: solved examples of the same subject before each question. prompt_format "completion" is the usual one for
    every model; "chat" puts each example into a turn. Raises DataError, and ConfigError when examples are lacking.
    """

    name = "mmlu"

    def __init__(
        self, folder: Path, prompt_format: PromptFormat, num_shots: int, limit: int | None, subjects: Sequence[str] = ()
    ) -> None:
        tests, paths = _read(folder, "test")
        shots, shot_paths = _read(folder, "dev") if num_shots else ({}, [])
        unknown = sorted(set(subjects) - set(tests))
        if unknown:
            raise ConfigError(f"subjects must be among {', '.join(sorted(tests))}, got {', '.join(unknown)}")
        chosen = {name: tests[name][:limit] for name in sorted(subjects or tests)}
        for name in chosen:
            if len(shots.get(name, [])) < num_shots:
                raise ConfigError(f"{folder}: {name} has {len(shots.get(name, []))} solved examples, not {num_shots}")
        self._questions = {f"{name}/{i}": question for name in chosen for i, question in enumerate(chosen[name])}
        self._shots = {name: shots.get(name, [])[:num_shots] for name in chosen}
        self._format, self._num_shots = prompt_format, num_shots
        self._data = {"sha256": digest([*paths, *shot_paths]), "num_items": len(self._questions)}

    @property
    def keys(self) -> list[str]:
        return list(self._questions)

    def facts(self) -> dict[str, Any]:
        return {"data": self._data, "prompt_format": self._format, "num_shots": self._num_shots}

    def sampling(self, llm: LLM) -> SamplingParams:
        """Greedy among the letters alone: with a space before them and without, as a tokenizer has both."""
        encode = llm.loaded.tokenizer.encode
        texts = (text for letter in LETTERS for text in (letter, f" {letter}"))
        ids = dict.fromkeys(encode(text, add_special_tokens=False)[-1] for text in texts)
        return SamplingParams(temperature=0.0, max_tokens=1, allowed_token_ids=tuple(ids))

    def prompt(self, llm: LLM, key: str) -> list[int]:
        question = self._questions[key]
        shots = self._shots[question.subject]
        head = f"The following are multiple choice questions (with answers) about {_title(question.subject)}.\n\n"
        if self._format == "completion":
            solved = "".join(f"{_ask(shot)} {LETTERS[shot.answer]}\n\n" for shot in shots)
            return llm.loaded.tokenizer.encode(head + solved + _ask(question))
        turns = [{"role": "user", "content": _ask(one)} for one in (*shots, question)]
        turns[0]["content"] = head + turns[0]["content"]
        messages: list[dict[str, str]] = []
        for turn, shot in zip(turns, [*shots, None], strict=True):
            messages.append(turn)
            if shot is not None:
                messages.append({"role": "assistant", "content": LETTERS[shot.answer]})
        return llm.render_chat(messages)

    def judge(self, key: str, answers: list[Answer]) -> Sample:
        got, want = answers[0].text.strip(), LETTERS[self._questions[key].answer]
        return {"answer": got, "correct": got == want}

    def summarize(self, samples: Mapping[str, Sample]) -> dict[str, Any]:
        by_subject: dict[str, list[bool]] = {}
        for key, sample in samples.items():
            by_subject.setdefault(key.rpartition("/")[0], []).append(sample["correct"])
        num_correct = sum(sum(rows) for rows in by_subject.values())
        subjects = {name: round(sum(rows) / len(rows), 4) for name, rows in by_subject.items()}
        mean = round(sum(subjects.values()) / len(subjects), 4)
        accuracy = share(num_correct, len(samples))
        return {"num_items": len(samples), "accuracy": accuracy, "mean_of_subjects": mean, "subjects": subjects}


def _ask(question: Question) -> str:
    choices = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, question.choices, strict=True))
    return f"{question.question.strip()}{choices}\nAnswer:"


def _title(subject: str) -> str:
    return subject.replace("_", " ")


def _read(folder: Path, part: str) -> tuple[dict[str, list[Question]], list[Path]]:
    rows = folder / f"{part}.jsonl"
    if rows.is_file():
        return _read_rows(rows), [rows]
    tables = sorted((folder / part).glob(f"*_{part}.csv"))
    if not tables:
        raise DataError(folder, f"holds neither {part}.jsonl nor {part}/*_{part}.csv")
    names = [path.name.removesuffix(f"_{part}.csv") for path in tables]
    return {name: _read_table(path, name) for name, path in zip(names, tables, strict=True)}, tables


def _read_rows(path: Path) -> dict[str, list[Question]]:
    questions: dict[str, list[Question]] = {}
    for line, row in enumerate(read_jsonl(path, _Row), 1):
        if len(row.choices) != 4:
            raise DataError(path, f"must be 4 texts, got {len(row.choices)}", line=line, field="choices")
        answer = _answer(path, line, row.answer)
        choices = (row.choices[0], row.choices[1], row.choices[2], row.choices[3])
        questions.setdefault(row.subject, []).append(Question(row.subject, row.question, choices, answer))
    return questions


def _read_table(path: Path, subject: str) -> list[Question]:
    return [
        Question(subject, row["question"], (row["A"], row["B"], row["C"], row["D"]), _answer(path, line, row["answer"]))
        for line, row in read_csv(path, _COLUMNS)
    ]


def _answer(path: Path, line: int, answer: int | str) -> int:
    if isinstance(answer, int) and 0 <= answer <= 3:
        return answer
    if isinstance(answer, str) and len(answer) == 1 and answer in LETTERS:
        return LETTERS.index(answer)
    raise DataError(path, f"must be 0 to 3 or one of A, B, C, D, got {answer!r}", line=line, field="answer")
