"""The real openai client on /v1/responses. The mock engine answers with the prompt over and over."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import openai
import pydantic
import pytest

from support.server import running
from support.waiting import until, until_running

MODEL = "mock/model"


@pytest.fixture
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url + "/v1", api_key="any", max_retries=0)


def test_a_response(client):
    response = client.responses.create(model=MODEL, input="hello", max_output_tokens=7, metadata={"a": "b"})
    assert (response.output_text, response.status, response.model) == ("hellohe", "incomplete", MODEL)
    assert response.incomplete_details.reason == "max_output_tokens"
    assert (response.metadata, response.background, response.temperature) == ({"a": "b"}, False, 1.0)
    (message,) = response.output
    assert (message.type, message.role, message.status) == ("message", "assistant", "incomplete")
    usage = response.usage
    assert (usage.input_tokens, usage.input_tokens_details.cached_tokens, usage.output_tokens) == (6, 1, 7)
    assert (usage.total_tokens, usage.output_tokens_details.reasoning_tokens) == (13, 0)


def test_it_ends_by_itself(client):
    response = client.responses.create(model=MODEL, input="hello", extra_body={"stop": "oh"})
    assert (response.output_text, response.status, response.incomplete_details) == ("hell", "completed", None)
    assert response.completed_at >= response.created_at


def test_a_stream_is_the_whole(client):
    options = {"model": MODEL, "input": "aé€😀", "extra_body": {"stop": "aé"}, "instructions": "X"}
    whole = client.responses.create(**options)
    with client.responses.stream(**options) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == final.output_text == whole.output_text == "X"
    assert [event.type for event in events] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        "response.output_text.delta", "response.output_text.done", "response.content_part.done",
        "response.output_item.done", "response.completed"]  # fmt: skip
    assert events[-1].response.id == events[0].response.id == final.id


def test_instructions_and_items(client):
    items = [
        {"role": "developer", "content": "b"},
        {"role": "user", "content": [{"type": "input_text", "text": "c"}, {"type": "input_text", "text": "d"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "e", "annotations": []}]},
        {"role": "user", "content": "f"},
    ]
    response = client.responses.create(model=MODEL, instructions="a", input=items, max_output_tokens=8)
    assert response.output_text == "a\n\nbcdef"


def test_a_chain(client):
    first = client.responses.create(model=MODEL, instructions="not carried over", input="ab", extra_body={"stop": "t"})
    assert first.output_text == "no"
    second = client.responses.create(
        model=MODEL, input="cd", previous_response_id=first.id, extra_body={"stop": "ab"}, instructions="I:"
    )
    assert second.output_text == "I:"
    third = client.responses.create(model=MODEL, input="ef", previous_response_id=second.id, max_output_tokens=10)
    assert third.output_text == "abnocdI:ef"
    assert third.previous_response_id == second.id
    client.responses.delete(first.id)
    with pytest.raises(openai.BadRequestError, match="goes on from a deleted response") as caught:
        client.responses.create(model=MODEL, input="x", previous_response_id=third.id)
    assert caught.value.param == "previous_response_id"


def test_retrieve_and_delete(client):
    made = client.responses.create(model=MODEL, input="hello", max_output_tokens=3)
    kept = client.responses.retrieve(made.id)
    assert kept.to_dict() == made.to_dict()
    items = client.responses.input_items.list(made.id)
    assert [(item.type, item.role, item.content[0].text) for item in items] == [("message", "user", "hello")]
    client.responses.delete(made.id)
    for gone in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
        with pytest.raises(openai.NotFoundError, match="There is no response"):
            gone(made.id)


def test_input_items_in_pages(client):
    items = [{"role": "user", "content": str(i)} for i in range(5)]
    made = client.responses.create(model=MODEL, input=items, max_output_tokens=1)
    listed = client.responses.input_items.list(made.id, limit=2, order="asc")
    assert [item.content[0].text for item in listed] == list("01234")
    newest = client.responses.input_items.list(made.id)
    assert [item.content[0].text for item in newest] == list("43210")


def test_not_stored(client):
    made = client.responses.create(model=MODEL, input="hello", max_output_tokens=1, store=False)
    assert made.store is False
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_background(client):
    made = client.responses.create(model=MODEL, input="<pace>", max_output_tokens=40, background=True)
    assert made.status == "queued"
    ended = wait_for_end(client, made.id)
    assert (ended.status, ended.background, len(ended.output_text)) == ("incomplete", True, 40)
    assert client.responses.cancel(made.id).status == "incomplete"


def test_background_is_cancelled_and_frees_the_engine(client, url):
    made = client.responses.create(model=MODEL, input="<slow>", max_output_tokens=4000, background=True)
    until_running(url, 1)
    assert client.responses.retrieve(made.id).status == "in_progress"
    assert client.responses.cancel(made.id).status == "cancelled"
    until_running(url, 0)
    assert client.responses.retrieve(made.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="only a response of the background"):
        client.responses.cancel(client.responses.create(model=MODEL, input="a", max_output_tokens=1).id)


def test_background_that_fails(client):
    made = client.responses.create(model=MODEL, input="x" * 5000, background=True)
    ended = wait_for_end(client, made.id)
    assert (ended.status, ended.error.code) == ("failed", "invalid_prompt")
    assert "maximum context length is 4096" in ended.error.message


def test_input_tokens(client):
    counted = client.responses.input_tokens.count(model=MODEL, input="hello", instructions="abc")
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", 9)


def test_warnings(client):
    tools = [{"type": "web_search"}, {"type": "custom", "name": "apply_patch"}]
    response = client.responses.create(
        model=MODEL, input="a", max_output_tokens=1, tools=tools, truncation="auto", reasoning={"summary": "auto"},
        extra_body={"temprature": 1, "text": {"size": 1}})  # fmt: skip
    warnings = " ".join(response.model_extra["warnings"])
    for named in ("'temprature'", "'text.size'", "reasoning.summary", "truncation", "'web_search'", "'custom'"):
        assert named in warnings


@pytest.mark.parametrize(("fields", "param"), [
    ({"max_output_tokens": 0}, "max_output_tokens"), ({"input": []}, "input"), ({"temperature": -1}, "temperature"),
    ({"input": [{"type": "web_search_call", "id": "x"}]}, "input"), ({"input": "x" * 5000}, "input"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input"),
    ({"previous_response_id": "resp_none"}, "previous_response_id"), ({"tool_choice": "required"}, "tool_choice"),
    ({"background": True, "store": False}, "background"), ({"text": {"format": {"type": "json_schema"}}}, "text"),
    ({"tools": [{"type": "function"}]}, "tools"), ({"extra_body": {"conversation": "c"}}, "conversation")],
    ids=str)  # fmt: skip
def test_a_bad_field_is_named(client, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": MODEL, "input": "a", **fields})
    assert caught.value.param == param


def test_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model="other", input="a")
    assert caught.value.code == "model_not_found"


def test_a_client_that_leaves_frees_the_engine(client, url):
    with client.responses.create(model=MODEL, input="<slow>", max_output_tokens=4000, stream=True) as stream:
        next(iter(stream))
        until_running(url, 1)
    until_running(url, 0)


def test_an_error_inside_a_stream(home):
    with running() as (url, _):
        client = openai.OpenAI(base_url=url + "/v1", api_key="x", max_retries=0)
        seen = []
        with pytest.raises(openai.APIError, match="engine stopped"):
            seen.extend(event.type for event in raising(client.responses.create(
                model=MODEL, input="<raise>", stream=True), seen))  # fmt: skip
        assert seen[-1] == "response.failed"


def raising(stream, seen):
    for event in stream:
        seen.append(event.type)
        yield event


def test_restart_tenants_and_deletion_on_disk(home: Path):
    secret = "a-word-that-must-not-stay"
    with running(api_keys=["one", "two"]) as (url, process):
        one = openai.OpenAI(base_url=url + "/v1", api_key="one", max_retries=0)
        made = one.responses.create(model=MODEL, input=secret, max_output_tokens=30)
        lost = one.responses.create(model=MODEL, input="<slow>", background=True)
        two = one.with_options(api_key="two")
        for reach in (two.responses.retrieve, two.responses.delete, two.responses.cancel):
            with pytest.raises(openai.NotFoundError):
                reach(made.id)
        with pytest.raises(openai.BadRequestError, match="there is no response"):
            two.responses.create(model=MODEL, input="a", previous_response_id=made.id)
        assert one.responses.retrieve(made.id).output_text == (secret * 2)[:30]
        process.kill()
        process.wait()
    assert is_on_disk(home, secret)
    with running(api_keys=["one"]) as (url, _):
        one = openai.OpenAI(base_url=url + "/v1", api_key="one", max_retries=0)
        assert one.responses.retrieve(made.id).output_text == (secret * 2)[:30]
        failed = one.responses.retrieve(lost.id)
        assert (failed.status, failed.error.code) == ("failed", "server_error")
        one.responses.delete(made.id)
        assert not is_on_disk(home, secret)


def test_a_server_that_keeps_nothing(home: Path):
    with running(response_retention=0) as (url, _):
        client = openai.OpenAI(base_url=url + "/v1", api_key="x", max_retries=0)
        made = client.responses.create(model=MODEL, input="a", max_output_tokens=1)
        assert (made.store, made.model_extra["warnings"]) == (False, ["store: this server keeps no responses"])
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(made.id)
        with pytest.raises(openai.BadRequestError, match="keeps no responses"):
            client.responses.create(model=MODEL, input="a", background=True)
    assert not (home / "responses.db").exists()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INFERD_HOME", str(tmp_path))
    return tmp_path


def is_on_disk(folder: Path, text: str) -> bool:
    return any(text.encode() in file.read_bytes() for file in folder.rglob("*") if file.is_file())


def wait_for_end(client: openai.OpenAI, response_id: str):
    until(lambda: client.responses.retrieve(response_id).status not in ("queued", "in_progress"), 10)
    return client.responses.retrieve(response_id)


CALL = '<tool_call>\n{"name": "shell", "arguments": {"command": ["ls", "-l"]}}\n</tool_call>'
SHELL = {
    "type": "function", "name": "shell", "description": "Runs a command", "strict": False,
    "parameters": {"type": "object", "properties": {"command": {"type": "array", "items": {"type": "string"}}},
                   "required": ["command"]},
}  # fmt: skip


@pytest.fixture
def agent(agent_url: str) -> openai.OpenAI:
    """What it says ends at #."""
    return openai.OpenAI(base_url=agent_url + "/v1", api_key="any", max_retries=0)


def said(text: str, **more) -> dict:
    return {"model": MODEL, "input": text + "#", "max_output_tokens": 200, "extra_body": {"stop": "#"}, **more}


def test_a_tool_round_trip(agent):
    first = agent.responses.create(**said(f"<think>hm</think>I look. {CALL}", tools=[SHELL]))
    thinking, message, call = first.output
    assert (thinking.type, thinking.content[0].text, thinking.summary) == ("reasoning", "hm", [])
    assert message.content[0].text == "I look."
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "shell", {"command": ["ls", "-l"]})
    assert first.usage.output_tokens_details.reasoning_tokens > 0
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "a.txt#"}
    chained = agent.responses.create(**said("", tools=[SHELL]) | {
        "input": [output], "previous_response_id": first.id})  # fmt: skip
    echoed = agent.responses.create(**said("", tools=[SHELL]) | {
        "input": [{"role": "user", "content": "go"}, *first.output, output]})  # fmt: skip
    references = [{"type": "item_reference", "id": item.id} for item in first.output]
    referred = agent.responses.create(**said("", tools=[SHELL]) | {
        "input": [{"role": "user", "content": "go"}, *references, output]})  # fmt: skip
    assert chained.output_text == echoed.output_text == referred.output_text == "a.txt"
    assert echoed.usage.input_tokens == referred.usage.input_tokens
    with pytest.raises(openai.BadRequestError, match="there is no item 'msg_none'"):
        agent.responses.create(model=MODEL, input=[{"type": "item_reference", "id": "msg_none"}])


def test_streamed_calls(agent):
    options = said(f"{CALL}\n{CALL}", tools=[SHELL], tool_choice="required")
    with agent.responses.stream(**options) as stream:
        events = list(stream)
        calls = stream.get_final_response().output
    pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    done = [event.arguments for event in events if event.type == "response.function_call_arguments.done"]
    assert "".join(pieces) == "".join(done) == "".join(call.arguments for call in calls)
    assert [call.name for call in calls] == ["shell", "shell"]
    assert len({call.call_id for call in calls}) == 2
    one = agent.responses.create(**options, parallel_tool_calls=False)
    assert len(one.output) == 1


def test_a_call_that_was_cut_off_is_incomplete(agent):
    response = agent.responses.create(**said(CALL, tools=[SHELL]) | {"max_output_tokens": 50})
    assert (response.status, response.output[0].status) == ("incomplete", "incomplete")


def test_parse(agent):
    class City(pydantic.BaseModel):
        name: str

    response = agent.responses.parse(**said('{"name": "Köln"}'), text_format=City)
    assert response.output_parsed == City(name="Köln")


CODEX = {
    "model": MODEL,
    "instructions": "You are a coding agent.",
    "tools": [
        SHELL,
        {"type": "custom", "name": "apply_patch", "description": "Edits files", "format": {"type": "text"}},
        {"type": "web_search"},
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "0198c0de",
    "stop": "#",
}


def test_two_turns_as_codex_takes_them(agent_url):
    """Nothing is stored: the second request brings back all that the first one gave."""
    asked = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Sandbox: none"}]},
        {"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": f"<think>I must look</think>{CALL}#"}]},
    ]  # fmt: skip
    first = transcript(agent_url, {**CODEX, "input": asked})
    given = [event["item"] for event in first if event["type"] == "response.output_item.done"]
    result = {"type": "function_call_output", "call_id": given[-1]["call_id"], "output": "a.txt#"}
    second = transcript(agent_url, {**CODEX, "input": [*asked, *given, result]})
    golden = Path(__file__).parents[1] / "golden" / "codex_responses.json"
    assert normalised([first, second]) == json.loads(golden.read_text("utf-8"))


def transcript(url: str, body: dict) -> list[dict]:
    """The events of a stream; checks that each has the name of its type."""
    with httpx.stream("POST", url + "/v1/responses", json=body, headers={"accept": "text/event-stream"}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        text = stream.read().decode()
    events = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def normalised(transcripts: list[list[dict]]) -> list[list[dict]]:
    """With numbers in place of ids, and without times and sizes of pieces."""
    text = json.dumps(transcripts)
    for number, found in enumerate(dict.fromkeys(re.findall(r'"((?:resp|rs|fc|msg|call)_?[0-9a-zA-Z]{8,})"', text))):
        text = text.replace(found, f"id-{number}")
    text = re.sub(r'("(?:created_at|completed_at)": )\d+', r"\g<1>0", text)
    return json.loads(text)


def test_a_real_model(smollm2_url):
    client = openai.OpenAI(base_url=smollm2_url + "/v1", api_key="any", max_retries=0)
    options = {"model": "smollm2", "max_output_tokens": 12, "temperature": 0, "store": False,
               "instructions": "Be brief.", "input": "What is the capital of France?"}  # fmt: skip
    whole = client.responses.create(**options)
    assert "Paris" in whole.output_text
    with client.responses.stream(**options) as stream:
        assert "".join(e.delta for e in stream if e.type == "response.output_text.delta") == whole.output_text
    assert json.loads(whole.to_json())["usage"]["output_tokens"] > 0


def test_a_real_model_is_held_to_tools_and_schemas(smollm2_url):
    class Weather(pydantic.BaseModel):
        sunny: bool

    client = openai.OpenAI(base_url=smollm2_url + "/v1", api_key="any", max_retries=0)
    options = {"model": "smollm2", "max_output_tokens": 60, "temperature": 0, "input": "The weather in Paris?"}
    parsed = client.responses.parse(**options, text_format=Weather).output_parsed
    assert isinstance(parsed, Weather)
    first = client.responses.create(**options, tools=[SHELL], tool_choice={"type": "function", "name": "shell"})
    (call,) = first.output
    assert (call.name, list(json.loads(call.arguments))) == ("shell", ["command"])
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny"}
    second = client.responses.create(**options | {"input": [result]}, previous_response_id=first.id, tools=[SHELL])
    assert second.output
