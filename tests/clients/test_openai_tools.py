"""Tools, reasoning and structured answers with the real openai client, against the mock engine and a real model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import openai
import pydantic
import pytest

from inferd.models import store
from support.server import running
from support.waiting import num_running, until_running

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city today.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "kelvin"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time now.",
        "parameters": {"type": "object", "properties": {}},
    },
}
QUESTION = [{"role": "user", "content": "What is the weather in Paris, in celsius?"}]


def client_of(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url + "/v1/", api_key="any", max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def coder() -> Iterator[openai.OpenAI]:
    """Qwen2.5-Coder-1.5B, whose template knows tools; its name is coder."""
    path = Path(os.environ.get("INFERD_TEST_MODELS", "")) / "qwen2.5-coder-1.5b.gguf"
    if not path.is_file():
        if not store.is_local("qwen2.5-coder:1.5b"):
            pytest.skip("qwen2.5-coder:1.5b is not on this machine (inferd pull qwen2.5-coder:1.5b)")
        path = store.resolve("qwen2.5-coder:1.5b")
    with running(models=[str(path)], model_aliases=[("coder", path.stem)], worker_factory="") as (base, _):
        yield client_of(base)


@pytest.fixture
def small(smollm2_url: str) -> openai.OpenAI:
    """SmolLM2-135M, whose template knows no tools."""
    return client_of(smollm2_url)


@pytest.fixture
def mock(agent_url: str) -> openai.OpenAI:
    """Says again what the last message says."""
    return client_of(agent_url)


CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Köln \\"x\\"", "unit": "kelvin"}}\n</tool_call>'


def test_shapes(mock):
    """Reasoning, words and calls, whole and streamed."""
    says = f"<think>hm</think>Looking.\n{CALL}\n{CALL}§"
    options = {"model": "mock/model", "messages": [{"role": "user", "content": says}], "stop": "§", "tools": [WEATHER]}
    whole = mock.chat.completions.create(**options)
    with mock.chat.completions.stream(**options) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_completion()
    for choice in (whole.choices[0], streamed.choices[0]):
        assert (choice.message.content, choice.finish_reason) == ("Looking.", "tool_calls")
        assert choice.message.model_extra["reasoning_content"] == "hm"
        arguments = [json.loads(call.function.arguments) for call in choice.message.tool_calls]
        assert arguments == [{"city": 'Köln "x"', "unit": "kelvin"}] * 2
    assert whole.usage.completion_tokens_details.reasoning_tokens > 0


def test_errors(mock):
    options = {"model": "mock/model", "messages": QUESTION, "max_tokens": 2}
    with pytest.raises(openai.NotFoundError):
        mock.chat.completions.create(**{**options, "model": "other"}, tools=[WEATHER])
    named = {"type": "function", "function": {"name": "other"}}
    with pytest.raises(openai.BadRequestError, match="no tool is named 'other'") as caught:
        mock.chat.completions.create(**options, tools=[WEATHER], tool_choice=named)
    assert caught.value.param == "tool_choice"
    long = [{"role": "user", "content": "long " * 1000}]
    with pytest.raises(openai.BadRequestError, match="maximum context length is 4096") as caught:
        mock.chat.completions.create(**{**options, "messages": long}, tools=[WEATHER])
    assert caught.value.code == "context_length_exceeded"


def test_a_client_that_leaves_in_the_middle_of_a_call_frees_the_engine(mock, agent_url):
    messages = [{"role": "user", "content": CALL + "<slow>"}]
    options = {"model": "mock/model", "messages": messages, "tools": [WEATHER], "max_tokens": 3000}
    with mock.chat.completions.create(**options, stream=True) as stream:
        next(chunk for chunk in stream if chunk.choices[0].delta.tool_calls)
        assert num_running(agent_url) == 1
    until_running(agent_url, 0)


def test_a_round_trip(coder):
    options = {"model": "coder", "tools": [WEATHER, CLOCK], "temperature": 0, "max_tokens": 100}
    first = coder.chat.completions.create(messages=QUESTION, **options).choices[0]
    assert first.finish_reason == "tool_calls"
    call = first.message.tool_calls[0]
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert json.loads(call.function.arguments)["city"] == "Paris"
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 31}'}
    options["tool_choice"] = "none"
    second = coder.chat.completions.create(messages=[*QUESTION, first.message, result], **options).choices[0]
    assert second.finish_reason == "stop"
    assert second.message.tool_calls is None
    assert "31" in second.message.content


def test_a_forced_call(coder):
    """required: some tool, also where none is needed. A name: that tool, by its schema."""
    options = {"model": "coder", "tools": [WEATHER, CLOCK], "temperature": 0, "max_tokens": 100}
    hello = [{"role": "user", "content": "Hello!"}]
    required = coder.chat.completions.create(messages=hello, tool_choice="required", **options).choices[0]
    assert required.finish_reason == "tool_calls"
    assert required.message.content is None
    named = {"type": "function", "function": {"name": "get_weather"}}
    choice = coder.chat.completions.create(messages=hello, tool_choice=named, **options).choices[0]
    [call] = choice.message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert set(arguments) == {"city", "unit"}
    assert arguments["unit"] in ("celsius", "kelvin")


def test_a_streamed_call_is_the_whole(coder):
    options = {"model": "coder", "tools": [WEATHER], "messages": QUESTION, "temperature": 0, "max_tokens": 100}
    whole = coder.chat.completions.create(**options).choices[0]
    with coder.chat.completions.stream(**options) as stream:
        num_pieces = sum(event.type == "tool_calls.function.arguments.delta" for event in stream)
        streamed = stream.get_final_completion().choices[0]
    assert num_pieces > 2
    [call], [expected] = streamed.message.tool_calls, whole.message.tool_calls
    assert (call.function.name, call.function.arguments) == (expected.function.name, expected.function.arguments)
    assert streamed.finish_reason == "tool_calls"
    assert not streamed.message.content


class City(pydantic.BaseModel):
    name: str
    country: str
    num_people: int


def test_a_parsed_answer(coder):
    answer = coder.chat.completions.parse(
        model="coder", messages=[{"role": "user", "content": "Tell me of Oslo."}], response_format=City, temperature=0,
        max_tokens=80)  # fmt: skip
    assert answer.choices[0].message.parsed.name == "Oslo"


def test_fill_in_the_middle(coder):
    prefix, suffix = "def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"
    answer = coder.completions.create(model="coder", prompt=prefix, suffix=suffix, max_tokens=16, temperature=0)
    assert "a + b" in answer.choices[0].text


def test_tools_without_a_template_that_knows_them(small):
    options = {"model": "smollm2", "tools": [WEATHER, CLOCK], "temperature": 0, "max_tokens": 120}
    one = {"tool_choice": "required", "parallel_tool_calls": False}
    choice = small.chat.completions.create(messages=QUESTION, **one, **options).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert json.loads(choice.message.tool_calls[0].function.arguments) is not None
    named = {"type": "function", "function": {"name": "get_weather"}}
    call = (
        small.chat.completions.create(messages=QUESTION, tool_choice=named, **options).choices[0].message.tool_calls[0]
    )
    assert set(json.loads(call.function.arguments)) == {"city", "unit"}
