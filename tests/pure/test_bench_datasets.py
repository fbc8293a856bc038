"""Prompts and lengths, and files that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inferd.bench.config import LoadConfig
from inferd.bench.datasets import WORDS, Dataset, TextScale, load_dataset
from inferd.errors import ConfigError

ONE = TextScale(1.0, 0.0, is_measured=True)


def dataset(scale: TextScale = ONE, stream: str = "run-0", **options: Any) -> Dataset:
    return load_dataset(LoadConfig(url="http://127.0.0.1:1", **options), scale, stream)


def prompts(data: Dataset, count: int = 5) -> list[str]:
    return [data.sample(index).prompt for index in range(count)]


def test_words_differ() -> None:
    assert len(set(WORDS)) == len(WORDS) > 150


def test_random_prompts_depend_on_seed_and_run() -> None:
    assert prompts(dataset()) == prompts(dataset())
    assert set(prompts(dataset())) & set(prompts(dataset(seed=1))) == set()
    assert set(prompts(dataset())) & set(prompts(dataset(stream="run-1"))) == set()


def test_random_lengths_stay_in_their_range() -> None:
    data = dataset(input_len=100, output_len=10, range_ratio=0.5)
    samples = [data.sample(index) for index in range(300)]
    assert {sample.output_len for sample in samples} == set(range(5, 16))
    assert all(50 <= sample.input_len <= 150 for sample in samples)
    assert all(len(sample.prompt.split()) == sample.input_len for sample in samples)


def test_the_scale_of_the_server_sets_the_words() -> None:
    data = dataset(TextScale(2.0, 30.0, is_measured=True), input_len=130)
    assert len(data.sample(0).prompt.split()) == 50


def test_shared_prefixes_are_the_same_in_every_run() -> None:
    first, second = (
        prompts(dataset(dataset="shared-prefix", prefix_len=20, num_prefixes=2, stream=stream), 50)
        for stream in ("run-0", "run-1")
    )
    starts = {" ".join(prompt.split()[:20]) for prompt in first}
    assert len(starts) == 2
    assert starts == {" ".join(prompt.split()[:20]) for prompt in second}
    assert set(first) & set(second) == set()
    assert dataset(dataset="shared-prefix", prefix_len=20).sample(0).input_len == 148


def test_sharegpt_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    entries = [
        {"conversations": [{"from": "human", "value": "What is a stone?"}, {"from": "gpt", "value": "x" * 40}]},
        {"conversations": [{"from": "gpt", "value": "no question"}, {"from": "human", "value": "late"}]},
        {"conversations": [{"from": "human", "value": "no answer"}]},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "Hi"},
                      {"role": "assistant", "content": "y" * 8}]},
    ]  # fmt: skip
    path.write_text(json.dumps(entries))
    data = dataset(dataset="sharegpt", dataset_path=str(path))
    found = {data.sample(index).prompt: data.sample(index).output_len for index in range(len(data))}
    assert found == {"What is a stone?": 10, "Hi": 2}
    assert data.sample(2) == data.sample(0)  # starts again
    lines = tmp_path / "a.jsonl"
    lines.write_text("\n".join(map(json.dumps, entries)))
    again = dataset(dataset="sharegpt", dataset_path=str(lines), output_len=7)
    assert {again.sample(index).output_len for index in range(2)} == {7}


def mooncake(tmp_path: Path, *rows: dict[str, Any]) -> str:
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_a_mooncake_trace_keeps_times_lengths_and_shared_blocks(tmp_path: Path) -> None:
    path = mooncake(
        tmp_path,
        {"timestamp": 3000, "input_length": 1100, "output_length": 20, "hash_ids": [1, 2, 5]},
        {"timestamp": 1000, "input_length": 1200, "output_length": 10, "hash_ids": [1, 2, 3]},
    )
    data = dataset(dataset="mooncake", dataset_path=path, trace_speed=4.0)
    first, second = data.sample(0), data.sample(1)
    assert (first.offset, second.offset) == (0.0, 0.5)
    assert (first.input_len, first.output_len) == (1200, 10)
    assert (len(first.prompt.split()), len(second.prompt.split())) == (1200, 1100)
    assert first.prompt.split()[:1024] == second.prompt.split()[:1024]
    assert first.prompt.split()[1024:1100] != second.prompt.split()[1024:1100]


def test_the_lengths_of_a_trace_can_be_scaled(tmp_path: Path) -> None:
    rows = [{"timestamp": t, "input_length": 1100, "output_length": 20, "hash_ids": [1, 2, t]} for t in (7, 8)]
    data = dataset(dataset="mooncake", dataset_path=mooncake(tmp_path, *rows), length_scale=0.125)
    first, second = (data.sample(index).prompt.split() for index in range(2))
    assert (len(first), data.sample(0).output_len) == (138, 2)
    assert first[:128] == second[:128]
    assert first != second


def test_an_azure_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
        "2023-11-16 18:15:50.9951690,396,109\n2023-11-16 18:16:46.6805900,5,6\n"
    )
    data = dataset(dataset="azure", dataset_path=str(path))
    assert [data.sample(index).offset for index in range(3)] == pytest.approx([0.0, 4.314579, 60.0])
    assert [data.sample(index).output_len for index in range(3)] == [44, 109, 6]
    assert len(data.sample(2).prompt.split()) == 5
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:01.500000+00:00,1,2\n")
    assert dataset(dataset="azure", dataset_path=str(path)).sample(0).input_len == 1


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("mooncake", '{"timestamp": 1}', "line 1"), ("mooncake", "[]", "line 1"),
        ("azure", "TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2", "line 2"), ("azure", "a,b\n1,2", "line 2"),
        ("azure", "", "no usable request"), ("sharegpt", "[1, 2]", "no usable request"), ("sharegpt", "{", "JSON"),
    ],
)  # fmt: skip
def test_a_file_of_another_form_is_refused_with_its_place(tmp_path: Path, name: Any, text: str, words: str) -> None:
    path = tmp_path / "bad"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        dataset(dataset=name, dataset_path=str(path))
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        dataset(dataset="azure", dataset_path=str(tmp_path / "none"))
