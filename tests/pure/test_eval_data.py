"""Data sets and results files: what is wrong with one is said with file, line and field."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inferd.eval.data import DataError, digest, read_csv, read_jsonl
from inferd.eval.gsm8k import GSM8K
from inferd.eval.humaneval import read_problems
from inferd.eval.mmlu import MMLU
from inferd.eval.results import Results


class Row(msgspec.Struct):
    text: str
    number: int = 0


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_rows_come_from_plain_and_packed_files(tmp_path: Path) -> None:
    lines = ['{"text": "a", "more": [1]}', "", '{"text": "b", "number": 2}']
    want = [Row("a"), Row("b", 2)]
    assert read_jsonl(write(tmp_path / "a.jsonl", *lines), Row) == want
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress("\n".join(lines).encode()))
    assert read_jsonl(packed, Row) == want


@pytest.mark.parametrize(
    ("line", "where", "what"),
    [
        ('{"number": 1}', "2:text", "Object missing required field"),
        ('{"text": 1}', "2:text", "Expected `str`, got `int`"),
        ('{"text": "a", "number": "1"}', "2:number", "Expected `int`"),
        ('{"text": "a"', "2", "not valid JSON"),
        ("[1]", "2", "Expected `object`"),
        ('{"text": "\ud800"}', "2", "not valid JSON"),
    ],
)
def test_a_bad_row(tmp_path: Path, line: str, where: str, what: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n' + line.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError) as caught:
        read_jsonl(path, Row)
    assert str(caught.value).startswith(f"{path}:{where}: {what}")


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl: holds no rows"):
        read_jsonl(write(tmp_path / "a.jsonl", ""), Row)
    for content in (b"plain", gzip.compress(b'{"text": "a"}\n' * 99)[:-9]):
        (tmp_path / "a.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.gz: not valid gzip"):
            read_jsonl(tmp_path / "a.gz", Row)


def test_tables(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'x,"two', 'lines"', "y,z")
    assert read_csv(path, ("p", "q")) == [(1, {"p": "x", "q": "two\nlines"}), (3, {"p": "y", "q": "z"})]
    with pytest.raises(DataError, match=r"a\.csv:1:r: must have 3 columns \(p, q, r\), has 2"):
        read_csv(path, ("p", "q", "r"))
    with pytest.raises(DataError, match=r"a\.csv:3: "):
        read_csv(write(path, "a,b", "c,d", 'e,"f"g'), ("p", "q"))


def test_problems(tmp_path: Path) -> None:
    problem = {"task_id": "T/0", "prompt": "def f():\n", "entry_point": "f", "test": "def check(f): pass"}
    path = write(tmp_path / "p.jsonl", json.dumps(problem), json.dumps(problem))
    with pytest.raises(DataError, match=r"p\.jsonl:2:task_id: T/0 occurs twice"):
        read_problems(path)
    write(path, json.dumps({**problem, "entry_point": "f()"}))
    with pytest.raises(DataError, match=r"p\.jsonl:1:entry_point: must be a name"):
        read_problems(path)


QUESTION: dict[str, Any] = {"question": "?", "subject": "s", "choices": ["w", "x", "y", "z"], "answer": 1}


@pytest.mark.parametrize(
    ("change", "where"),
    [({"choices": ["w"]}, "1:choices: must be 4 texts, got 1"), ({"answer": 4}, "1:answer: must be 0 to 3"),
     ({"answer": "E"}, "1:answer: must be 0 to 3 or one of A, B, C, D, got 'E'"),
     ({"answer": None}, "1:answer: Expected `int | str`, got `null`")],
)  # fmt: skip
def test_questions(tmp_path: Path, change: dict[str, Any], where: str) -> None:
    write(tmp_path / "test.jsonl", json.dumps(QUESTION | change))
    with pytest.raises(DataError) as caught:
        MMLU(tmp_path, "completion", 0, None)
    assert f"{tmp_path}/test.jsonl:{where}" in str(caught.value)


def test_a_table_of_questions(tmp_path: Path) -> None:
    write(tmp_path / "test" / "law_test.csv", "q,w,x,y,z,B", "q,w,x,y,z,b")
    with pytest.raises(DataError, match=r"law_test\.csv:2:answer: must be"):
        MMLU(tmp_path, "completion", 0, None)
    with pytest.raises(DataError, match=r"holds neither test\.jsonl nor test/"):
        MMLU(tmp_path / "test", "completion", 0, None)


def test_word_problems(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", '{"question": "?", "answer": "so 4"}')
    with pytest.raises(DataError, match=r'test\.jsonl:1:answer: must end with "#### number"'):
        GSM8K(tmp_path, "chat", 0, None)


def test_results_go_on_where_they_stopped(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    first = Results(path, {"model": {"sha256": "a"}, "stop": ("x",), "seed": 0})
    first.add("T/0", {"correct": True})
    first.seconds = 1.5
    first.save()
    again = Results(path, {"model": {"sha256": "a"}, "stop": ("x",), "seed": 0})
    assert (again.samples, again.seconds) == ({"T/0": {"correct": True}}, 1.5)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataError, match=r'r\.json:run: model\.sha256 was "a", and is "b" now'):
        Results(path, {"model": {"sha256": "b"}, "stop": ("x",), "seed": 0})
    with pytest.raises(DataError, match="seed was 0, and is null now"):
        Results(path, {"model": {"sha256": "a"}, "stop": ("x",)})


@pytest.mark.parametrize(
    "content", ["", "[]", '{"run": {}}', '{"run": {}, "summary": {}, "seconds": "1", "samples": {}}']
)
def test_damaged_results(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "r.json", content)
    with pytest.raises(DataError, match=r"r\.json"):
        Results(path, {})


def test_the_digest_is_of_the_bytes(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", "1"), write(tmp_path / "b", "2")
    assert digest([a]) == "4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865"
    both = digest([b, a])
    assert both == digest([a, b])
    write(b, "3")
    assert digest([a, b]) != both
