"""The real anthropic client. The mock engine answers with the prompt over and over."""

from __future__ import annotations

import json

import anthropic
import httpx
import pytest

from support.waiting import until_running

MODEL = "mock/model"
HELLO = [{"role": "user", "content": "hello"}]
WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture
def client(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key="any", max_retries=0)


def test_a_message(client):
    message = client.messages.create(model=MODEL, max_tokens=7, messages=HELLO)
    assert (message.type, message.role, message.model) == ("message", "assistant", MODEL)
    assert [(block.type, block.text) for block in message.content] == [("text", "hellohe")]
    assert (message.stop_reason, message.stop_sequence) == ("max_tokens", None)
    assert message.id.startswith("msg_")
    assert message._request_id
    usage = message.usage  # of 6 tokens of the prompt the mock says that one was in its cache
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (5, 1, 7)
    assert usage.cache_creation_input_tokens == 0


def test_stop_sequence(client):
    message = client.messages.create(model=MODEL, max_tokens=50, messages=HELLO, stop_sequences=["oh"])
    assert message.content[0].text == "hell"
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "oh")


def test_a_stream_is_the_whole(client):
    options = {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "aé€😀"}]}
    whole = client.messages.create(**options)
    with client.messages.stream(**options) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == "aé€\ufffd"  # 9 bytes end inside the last character
    assert final.content[0].text == text
    assert (final.stop_reason, final.usage.input_tokens, final.usage.output_tokens) == (
        whole.stop_reason, whole.usage.input_tokens, whole.usage.output_tokens)  # fmt: skip


def test_events_in_their_order(client):
    events = list(client.messages.create(model=MODEL, max_tokens=3, messages=HELLO, stream=True))
    assert [event.type for event in events] == [
        "message_start", "content_block_start", *["content_block_delta"] * 3, "content_block_stop",
        "message_delta", "message_stop"]  # fmt: skip
    assert events[0].message.usage.input_tokens == 5
    assert [event.index for event in events[1:6]] == [0] * 5
    assert events[-2].usage.output_tokens == 3


def test_prefill_is_continued(client):
    turns = [*HELLO, {"role": "assistant", "content": "The"}]
    assert client.messages.create(model=MODEL, max_tokens=8, messages=turns).content[0].text == "helloThe"


def test_count_tokens(client):
    assert client.messages.count_tokens(model=MODEL, messages=HELLO).input_tokens == 6
    assert client.messages.count_tokens(model=MODEL, messages=HELLO, system="abc").input_tokens == 9


def test_betas_and_aliases(client):
    message = client.beta.messages.create(
        model="claude-sonnet-4-5", max_tokens=2, messages=HELLO, betas=["interleaved-thinking-2025-05-14", "new"],
        metadata={"user_id": "u"}, service_tier="auto")  # fmt: skip
    assert (message.content[0].text, message.model) == ("he", MODEL)


def test_models(client):
    models = list(client.models.list(limit=1))
    assert [model.id for model in models] == [MODEL, "model"]
    assert models[0].max_input_tokens == 4096
    assert client.models.retrieve(MODEL).display_name == MODEL
    with pytest.raises(anthropic.NotFoundError, match="does not exist"):
        client.models.retrieve("other")


def test_more_than_the_context_holds_is_a_bound(client):
    message = client.messages.create(model=MODEL, max_tokens=32000, messages=HELLO, stop_sequences=["oh"], timeout=60)
    assert message.stop_reason == "stop_sequence"
    prompt = [{"role": "user", "content": "x" * 4000}]
    full = client.messages.create(model=MODEL, max_tokens=32000, messages=prompt, timeout=60)
    assert (full.stop_reason, full.usage.output_tokens) == ("model_context_window_exceeded", 4096 - 4001)


def test_errors(client):
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.messages.create(model="other", max_tokens=1, messages=HELLO)
    assert caught.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.BadRequestError, match="stop_sequences must be") as caught:
        client.messages.create(model=MODEL, max_tokens=1, messages=HELLO, stop_sequences=[""])
    assert caught.value.body["error"]["type"] == "invalid_request_error"
    with pytest.raises(anthropic.BadRequestError, match="maximum context length is 4096"):
        client.messages.create(model=MODEL, max_tokens=1, messages=[{"role": "user", "content": "x" * 5000}])
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aaaa"}}
    with pytest.raises(anthropic.BadRequestError, match="'image' cannot be read here"):
        client.messages.create(model=MODEL, max_tokens=1, messages=[{"role": "user", "content": [image]}])


def test_a_client_that_leaves_frees_the_engine(client, url):
    with client.messages.stream(
        model=MODEL, max_tokens=4000, messages=[{"role": "user", "content": "<slow>"}]
    ) as stream:
        next(iter(stream.text_stream))
        until_running(url, 1)
    until_running(url, 0)


CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Köln \\"x\\""}}\n</tool_call>'


@pytest.fixture
def agent(agent_url: str) -> anthropic.Anthropic:
    """What it says ends at #."""
    return anthropic.Anthropic(base_url=agent_url, api_key="any", max_retries=0)


def said(text: str, **more) -> dict:
    turns = [{"role": "user", "content": text + "#"}]
    return {"model": MODEL, "max_tokens": 200, "messages": turns, "stop_sequences": ["#"], **more}


def test_a_tool_round_trip(agent):
    options = said(f"<think>hm</think>I look. {CALL}", tools=[WEATHER])
    message = agent.messages.create(**options)
    thinking, text, use = message.content
    assert (thinking.type, thinking.thinking, text.text) == ("thinking", "hm", "I look.")
    assert (use.type, use.name, use.input) == ("tool_use", "get_weather", {"city": 'Köln "x"'})
    assert (message.stop_reason, message.stop_sequence) == ("tool_use", None)
    result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "sunny#"}]}
    turns = [*options["messages"], {"role": "assistant", "content": message.content},
             {"role": "user", "content": [result]}]  # fmt: skip
    answer = agent.messages.create(**{**options, "messages": turns})
    assert [block.text for block in answer.content] == ["sunny"]
    assert answer.stop_reason == "stop_sequence"


def test_a_streamed_tool_use(agent):
    options = said(f"{CALL}\n{CALL}", tools=[WEATHER], tool_choice={"type": "any"})
    with agent.messages.stream(**options) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    whole = agent.messages.create(**options)
    assert len(pieces) > 2
    assert [(use.name, use.input) for use in final.content] == [(use.name, use.input) for use in whole.content]
    assert [use.input for use in final.content] == [{"city": 'Köln "x"'}] * 2
    assert len({use.id for use in final.content}) == 2
    assert final.stop_reason == "tool_use"


def test_one_tool_use_at_most(agent):
    choice = {"type": "any", "disable_parallel_tool_use": True}
    message = agent.messages.create(**said(f"{CALL}\n{CALL}", tools=[WEATHER], tool_choice=choice))
    assert [block.type for block in message.content] == ["tool_use"]


def test_an_input_that_was_cut_off_is_not_shown_as_whole(agent):
    message = agent.messages.create(**said(CALL, tools=[WEATHER], max_tokens=60))
    assert (message.content, message.stop_reason) == ([], "max_tokens")
    assert "'get_weather' was cut off" in message.model_extra["warnings"][0]


def test_streamed_thinking(agent):
    options = said("<think>hm</think>Yes", thinking={"type": "enabled", "budget_tokens": 1024})
    with agent.messages.stream(**options) as stream:
        final = stream.get_final_message()
    thinking, text = final.content
    assert (thinking.thinking, text.text) == ("hm", "Yes")
    assert final.usage.output_tokens_details.thinking_tokens > 0


def test_thinking_that_is_not_displayed_comes_back(agent):
    thinking = {"type": "adaptive", "display": "omitted"}
    message = agent.messages.create(**said("<think>secret</think>Yes", thinking=thinking))
    block = message.content[0]
    assert (block.thinking, "secret" in block.signature) == ("", False)
    turns = [{"role": "assistant", "content": message.content}, {"role": "user", "content": ""}]
    options = said("", thinking=thinking)
    again = agent.messages.create(**{**options, "messages": turns, "max_tokens": 24})
    assert again.content[-1].text == "Yes"


def test_a_real_model(smollm2_url):
    client = anthropic.Anthropic(base_url=smollm2_url, api_key="any", max_retries=0)
    options = {"model": "smollm2", "max_tokens": 12, "extra_body": {"temperature": 0}, "system": "Be brief.",
               "messages": [{"role": "user", "content": "What is the capital of France?"}]}  # fmt: skip
    whole = client.messages.create(**options)
    assert "Paris" in whole.content[0].text
    with client.messages.stream(**options) as stream:
        assert "".join(stream.text_stream) == whole.content[0].text
    counted = client.messages.count_tokens(model="smollm2", messages=options["messages"], system="Be brief.")
    assert counted.input_tokens == whole.usage.input_tokens + whole.usage.cache_read_input_tokens


def as_claude_code(url: str, nonce: str) -> list[dict]:
    """The events of one request as a coding agent sends it; nonce: what differs in each."""
    ephemeral = {"cache_control": {"type": "ephemeral"}}
    body = {
        "model": "claude-sonnet-4-5", "max_tokens": 32000, "stream": True, "metadata": {"user_id": "user_1_session_2"},
        "system": [{"type": "text", "text": f"x-anthropic-billing-header: cc_version=2.1.0; cch={nonce};"},
                   {"type": "text", "text": "You are a coding agent. Use tools. " * 20, **ephemeral}],
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": "<system-reminder>Today is Monday.</system-reminder>"},
            {"type": "text", "text": "Hi", **ephemeral}]}],
        "tools": [{**WEATHER, **ephemeral}], "thinking": {"type": "adaptive"}, "stop_sequences": ["."],
        "output_config": {"effort": "medium"}, "context_management": {"edits": []}, "temperature": 0,
    }  # fmt: skip
    headers = {"x-api-key": "k", "anthropic-version": "2023-06-01", "anthropic-beta": "claude-code-20250219,other-1"}
    answer = httpx.post(url + "/v1/messages?beta=true", json=body, headers=headers, timeout=60)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    events = []
    for block in answer.text.strip().split("\n\n"):
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def test_a_coding_agents_prompt_is_reused(smollm2_url):
    first, second = as_claude_code(smollm2_url, "1a2b3"), as_claude_code(smollm2_url, "4c5d6")
    usage = [events[0]["message"]["usage"] for events in (first, second)]
    num_prompt = usage[0]["input_tokens"] + usage[0]["cache_read_input_tokens"]
    assert usage[1]["input_tokens"] + usage[1]["cache_read_input_tokens"] == num_prompt
    assert usage[1]["cache_read_input_tokens"] > 0.9 * num_prompt
    assert first[-2]["delta"] == second[-2]["delta"]
    assert first[0]["message"]["warnings"][0] == "unknown field 'context_management' was ignored"


def test_a_real_model_is_held_to_tools_and_schemas(smollm2_url):
    client = anthropic.Anthropic(base_url=smollm2_url, api_key="any", max_retries=0)
    asked = [{"role": "user", "content": "What is the weather in Paris?"}]
    options = {"model": "smollm2", "max_tokens": 60, "messages": asked, "extra_body": {"temperature": 0}}
    message = client.messages.create(**options, tools=[WEATHER], tool_choice={"type": "tool", "name": "get_weather"})
    (use,) = message.content
    assert (message.stop_reason, use.name, list(use.input)) == ("tool_use", "get_weather", ["city"])
    schema = {"type": "object", "properties": {"sunny": {"type": "boolean"}}, "required": ["sunny"],
              "additionalProperties": False}  # fmt: skip
    with client.messages.stream(
        **options, output_config={"format": {"type": "json_schema", "schema": schema}}
    ) as stream:
        answer = json.loads("".join(stream.text_stream))
    assert isinstance(answer["sunny"], bool)
