"""The benchmarks: prompts, answers, figures, and a run that is stopped and goes on."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inferd.errors import ConfigError, InvalidRequestError
from inferd.eval.generate import Answer, Item, generate
from inferd.eval.gsm8k import GSM8K, final_number
from inferd.eval.humaneval import HumanEval, Problem, extract_code, pass_at_k, program_of
from inferd.eval.mmlu import MMLU
from inferd.eval.results import Results, Sample
from inferd.eval.sandbox import Outcome
from inferd.eval.task import run_task, share
from inferd.executors.reference import ReferenceExecutor
from inferd.types import SamplingParams
from support.tiny_engine import engine_on, tiny_tokenizer
from support.tiny_models import tiny_checkpoint


def tiny_llm() -> Any:
    """What the tasks need of an LLM, on a random model of two layers."""
    executor = ReferenceExecutor(tiny_checkpoint(), num_blocks=64, block_size=16)
    engine = engine_on(executor, 256, max_num_seqs=4, block_size=16)
    loaded = SimpleNamespace(engine=engine, tokenizer=tiny_tokenizer(), chat_template=None)
    return SimpleNamespace(loaded=loaded, render_chat=lambda messages: [len(messages)])


class Echo:
    """Ten items whose sample is their answer."""

    name = "echo"

    def __init__(self, n: int = 1) -> None:
        self._sampling = SamplingParams(n=n, temperature=1.0, seed=7, max_tokens=5, ignore_eos=True)
        self.keys = [f"item/{i}" for i in range(10)]

    def facts(self) -> dict[str, Any]:
        return {}

    def sampling(self, llm: Any) -> SamplingParams:
        return self._sampling

    def prompt(self, llm: Any, key: str) -> list[int]:
        return list(key.encode()) + [1] * 20

    def judge(self, key: str, answers: list[Answer]) -> Sample:
        return {"texts": [answer.text for answer in answers], "num": [answer.num_tokens for answer in answers]}

    def summarize(self, samples: Mapping[str, Sample]) -> dict[str, Any]:
        return {"num_items": len(samples)}


def test_a_run_in_pieces_gives_what_one_run_gives(tmp_path: Path) -> None:
    whole = Results(None, {})
    assert run_task(tiny_llm(), Echo(n=3), whole, time_limit=None)
    assert [len(sample["texts"]) for sample in whole.samples.values()] == [3] * 10
    assert {tuple(sample["num"]) for sample in whole.samples.values()} == {(5, 5, 5)}
    path, seen = tmp_path / "r.json", []
    for num_pieces in itertools.count(1):
        pieces = Results(path, {})
        seen.append(len(pieces.samples))
        limit = time.monotonic() + 0.02 if num_pieces < 4 else None
        if run_task(tiny_llm(), Echo(n=3), pieces, time_limit=limit and limit - time.monotonic()):
            break
    assert (num_pieces > 1, seen == sorted(seen)) == (True, True)
    assert list(json.loads(path.read_text())["samples"].items()) == sorted(whole.samples.items())
    assert json.loads(path.read_text())["summary"] == {"complete": True, "num_items": 10}


def test_no_time_no_answers() -> None:
    results = Results(None, {})
    llm = tiny_llm()
    assert not run_task(llm, Echo(), results, time_limit=-1.0)
    assert (results.samples, results.summary, llm.loaded.engine.has_work) == ({}, {}, False)


def test_an_item_that_cannot_be_served_is_named() -> None:
    llm = tiny_llm()
    items = iter([Item("good", [1, 2]), Item("long", [1] * 300)])
    with pytest.raises(InvalidRequestError, match=r"^long: This model's maximum context length is 256"):
        list(generate(llm, items, SamplingParams(max_tokens=4)))
    assert not llm.loaded.engine.has_work


@pytest.mark.parametrize(("n", "correct", "k"), [(1, 0, 1), (1, 1, 1), (5, 2, 1), (5, 2, 3), (8, 7, 2), (6, 0, 6)])
def test_pass_at_k_is_the_mean_over_all_choices(n: int, correct: int, k: int) -> None:
    choices = list(itertools.combinations([True] * correct + [False] * (n - correct), k))
    assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, choices)) / len(choices))


PROBLEM = Problem(
    task_id="T/0",
    prompt='from math import sqrt\n\ndef helper(x):\n    return sqrt(x)\n\ndef root(x):\n    """Root of helper."""\n',
    entry_point="root",
    test="def check(f):\n    assert f(16) == 4",
)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\ndef root(x):\n    pass\n```", "def root(x):\n    pass"),
        ("Use it:\n```\nroot(3)\n```\nHere:\n```py\ndef root(x):\n    pass\n```\n", "def root(x):\n    pass"),
        ("```Python\nroot = abs\n```", "root = abs"),
        ("```python\ndef root(x):\n    return 1", "def root(x):\n    return 1"),
        ("    return 1\n", "    return 1\n"),
    ],
)
def test_code_is_found_in_an_answer(text: str, code: str) -> None:
    assert extract_code(text, "root") == code


@pytest.mark.parametrize(
    ("text", "prompt_format"),
    [
        ("```python\ndef root(x):\n    return helper(x)\n```", "chat"),
        ("```python\n    return helper(x)\n```", "chat"),
        ("\n    return helper(x)", "completion"),
    ],
)
def test_programs_keep_the_head_of_the_prompt(text: str, prompt_format: Any) -> None:
    exec(program_of(PROBLEM, text, prompt_format), {})
    with pytest.raises(AssertionError):
        exec(program_of(PROBLEM, text.replace("helper(x)", "5"), prompt_format), {})


class FakeSandbox:
    def facts(self) -> dict[str, Any]:
        return {"isolation": "none"}

    def run(self, program: str) -> Outcome:
        return Outcome("passed" if "return helper" in program else "failed", "", 0.0)


def test_figures_of_humaneval(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    fields = {name: getattr(PROBLEM, name) for name in ("prompt", "entry_point", "test")}
    path.write_text("".join(json.dumps({"task_id": f"T/{i}", **fields}) + "\n" for i in range(3)))
    task = HumanEval(path, FakeSandbox(), SamplingParams(n=2, temperature=0.5), "completion", 2)  # type: ignore[arg-type]
    assert task.keys == ["T/0", "T/1"]
    assert "\ndef " in task.sampling(tiny_llm()).stop
    good, bad = Answer("    return helper(x)", 4, "stop"), Answer("    return x", 3, "length")
    samples = {"T/0": task.judge("T/0", [good, bad]), "T/1": task.judge("T/1", [bad, bad])}
    summary = task.summarize(samples)
    assert (summary["pass@1"], summary["num_solved"], summary["num_cut_off"]) == (0.25, 1, 3)
    assert summary["pass@1_standard_error"] == round(0.25 / 2**0.5, 4)  # half of one problem, none of the other
    assert "pass@10" not in summary
    assert summary["statuses"] == {"failed": 3, "passed": 1}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7 apples and 5 more: #### 12", "12"),
        ("#### 1,234.50 dollars, not 3", "1234.5"),
        ("It costs $1,200.", "1200"),
        ("so -3.0 degrees", "-3"),
        ("#### 18.", "18"),
        ("no number", None),
    ],
)
def test_the_last_number_counts(text: str, value: str | None) -> None:
    assert final_number(text) == (None if value is None else Decimal(value))


def test_gsm8k(tmp_path: Path) -> None:
    shot = {"question": "2+2?", "answer": "2+2=<<2+2=4>>4\n#### 4"}
    (tmp_path / "train.jsonl").write_text(json.dumps(shot) + "\n")
    (tmp_path / "test.jsonl").write_text('{"question": "3+3?", "answer": "#### 6"}\n')
    with pytest.raises(ConfigError, match="has 1 solved examples, not 2"):
        GSM8K(tmp_path, "completion", 2, None)
    task, llm = GSM8K(tmp_path, "completion", 1, None), tiny_llm()
    prompt = "Question: 2+2?\nAnswer: 2+2=4\n#### 4\n\nQuestion: 3+3?\nAnswer:"
    assert bytes(task.prompt(llm, "test/0")).decode() == prompt
    assert GSM8K(tmp_path, "chat", 1, None).prompt(llm, "test/0") == [3]  # question, answer, question
    right, unmarked = Answer(" 3+3=6\n#### 6", 9, "stop"), Answer("It is 6.", 4, "length")
    samples = {"a": task.judge("test/0", [right]), "b": task.judge("test/0", [unmarked])}
    summary = task.summarize(samples)
    assert summary["accuracy"] == {"value": 1.0, "standard_error": 0.0}
    assert summary["accuracy_when_marked"]["value"] == 0.5


def mmlu_folder(path: Path) -> Path:
    for part in ("test", "dev"):
        (path / part).mkdir()
        rows = [f"{part} {i}?,w,x,y,z,{'ABCD'[i % 4]}" for i in range(6)]
        for subject in ("law", "high_school_art"):
            (path / part / f"{subject}_{part}.csv").write_text("\n".join(rows) + "\n")
    return path


def test_mmlu_asks_with_solved_examples(tmp_path: Path) -> None:
    task, llm = MMLU(mmlu_folder(tmp_path), "completion", 2, 3, ["high_school_art"]), tiny_llm()
    assert task.keys == [f"high_school_art/{i}" for i in range(3)]
    text = bytes(task.prompt(llm, "high_school_art/2")).decode()
    assert text.splitlines()[0].endswith("about high school art.")
    assert text.count("Answer: ") == 2
    assert "Answer: B\n\ntest 2?\nA. w\nB. x\nC. y\nD. z\nAnswer:" in text
    assert MMLU(tmp_path, "chat", 2, 3).prompt(llm, "law/0") == [5]
    assert set(task.sampling(llm).allowed_token_ids or ()) == set(b"ABCD")
    with pytest.raises(ConfigError, match="subjects must be among high_school_art, law, got art"):
        MMLU(tmp_path, "chat", 2, 3, ["art"])
    with pytest.raises(ConfigError, match="has 6 solved examples, not 7"):
        MMLU(tmp_path, "chat", 7, 3)


def test_mmlu_counts_letters(tmp_path: Path) -> None:
    task = MMLU(mmlu_folder(tmp_path), "completion", 0, 2)
    results = Results(None, {})
    assert run_task(tiny_llm(), task, results, time_limit=None)
    answers = [sample["answer"] for sample in results.samples.values()]
    assert set(answers) <= set("ABCD")
    want = sum(answer == "AB"[i % 2] for i, answer in enumerate(answers))
    assert results.summary["accuracy"] == share(want, 4)
    assert set(results.summary["subjects"]) == {"law", "high_school_art"}


def test_both_forms_of_mmlu_are_the_same_questions(tmp_path: Path) -> None:
    mmlu_folder(tmp_path)
    rows = [{"question": f"test {i}?", "subject": "law", "choices": list("wxyz"), "answer": i % 4} for i in range(6)]
    other = tmp_path / "other"
    other.mkdir()
    (other / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table, lines = MMLU(tmp_path, "completion", 0, None, ["law"]), MMLU(other, "completion", 0, None)
    llm = tiny_llm()
    assert table.keys == lines.keys
    assert [table.prompt(llm, key) for key in table.keys] == [lines.prompt(llm, key) for key in lines.keys]


def test_share() -> None:
    assert share(30, 40) == {"value": 0.75, "standard_error": 0.0685}
