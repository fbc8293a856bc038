"""The real openai client against the mock engine, which answers with the prompt over and over."""

from __future__ import annotations

import openai
import pytest

from support.server import running

MODEL = "mock/model"
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url + "/v1/", api_key="any", max_retries=0)


def test_completion(client):
    answer = client.completions.create(model=MODEL, prompt="ab", max_tokens=5, n=2)
    assert [(choice.index, choice.text, choice.finish_reason) for choice in answer.choices] == [
        (0, "ababa", "length"), (1, "ababa", "length")]  # fmt: skip
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (2, 10, 12)


def test_chat(client):
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=7, stop=["oh"])
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "hell", "stop")
    assert choice.model_extra["stop_reason"] == "oh"
    assert answer.usage.prompt_tokens_details.cached_tokens == 1
    assert answer.usage.completion_tokens_details.reasoning_tokens == 0
    assert answer._request_id


def test_chat_stream_equals_whole_and_ends_with_usage(client):
    chunks = list(client.chat.completions.create(
        model=MODEL, messages=HELLO, max_completion_tokens=7, max_tokens=3, stream=True,
        stream_options={"include_usage": True}))  # fmt: skip
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == "hellohe"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-2].choices[0].delta.content is None
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 7
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1


def test_stream_of_several_choices(client):
    texts = ["", "", ""]
    reasons = {}
    for chunk in client.completions.create(model=MODEL, prompt="xyz", max_tokens=6, n=3, stream=True):
        choice = chunk.choices[0]
        texts[choice.index] += choice.text
        reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
    assert texts == ["xyzxyz"] * 3
    assert reasons == {0: "length", 1: "length", 2: "length"}


def test_chat_logprobs(client):
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=2, logprobs=True, top_logprobs=2)
    first, second = answer.choices[0].logprobs.content
    assert (first.token, first.logprob, first.bytes) == ("h", -0.5, [104])
    assert [(top.token, top.logprob) for top in second.top_logprobs] == [("e", -0.5), ("f", -1.5)]


def test_streamed_logprobs_are_those_of_the_whole(client):
    options = {"model": MODEL, "messages": HELLO, "max_tokens": 9, "logprobs": True, "top_logprobs": 1, "stop": "oh"}
    whole = client.chat.completions.create(**options).choices[0].logprobs.content
    streamed = [entry for chunk in client.chat.completions.create(**options, stream=True)
                for entry in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else [])]  # fmt: skip
    assert streamed == whole
    assert [entry.token for entry in whole] == list("helloh")


def test_no_character_is_split(client):
    text = "aé€😀"
    for n in range(1, 11):
        stream = client.completions.create(model=MODEL, prompt=text, max_tokens=n, stream=True)
        joined = "".join(chunk.choices[0].text for chunk in stream)
        assert joined == text.encode()[:n].decode(errors="replace")


def test_models(client):
    assert [model.id for model in client.models.list()] == [MODEL, "model"]
    assert client.models.retrieve(MODEL).model_extra["max_model_len"] == 4096
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("other")
    assert caught.value.code == "model_not_found"


def test_errors_are_typed(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=5000)
    assert caught.value.code == "context_length_exceeded"
    assert "4096" in str(caught.value)
    assert "5006" in str(caught.value)
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="other", prompt="a")


def test_an_error_inside_a_stream_raises():
    with running() as (url, _):
        client = openai.OpenAI(base_url=url + "/v1", api_key="x", max_retries=0)
        stream = client.completions.create(model=MODEL, prompt="<raise>", stream=True)
        with pytest.raises(openai.APIError, match="engine stopped"):
            list(stream)


def test_wrong_key():
    with running(api_keys=["right"]) as (url, _):
        right = openai.OpenAI(base_url=url + "/v1", api_key="right", max_retries=0)
        assert right.completions.create(model=MODEL, prompt="ab", max_tokens=1).choices[0].text == "a"
        with pytest.raises(openai.AuthenticationError):
            right.with_options(api_key="wrong").completions.create(model=MODEL, prompt="ab")
