"""Items of the Responses API as turns of a chat, and deltas as items."""

from __future__ import annotations

from typing import Any

import pytest

from inferd.errors import InvalidRequestError
from inferd.gateway.dialects.responses.bodies import HONOURED
from inferd.gateway.dialects.responses.call import read, turn_of
from inferd.gateway.dialects.responses.items import chat_of, encrypted, items_of
from inferd.gateway.dialects.responses.openapi import RESPONSES
from inferd.gateway.dialects.responses.output import Output
from inferd.gateway.segments import Closed, Opened, Piece, Segments
from inferd.parsing.deltas import Content, Reasoning, ToolCallArguments, ToolCallBegin

CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at": 1}'}
CALL_OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "seen"}
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object"}}


def chat(*items: dict[str, Any], instructions: str | None = None) -> list[dict[str, Any]]:
    return chat_of(instructions, items_of(list(items)))


def test_every_item_has_a_type_and_an_id():
    (message,) = items_of("hi")
    assert (message["type"], message["role"], message["content"]) == ("message", "user", "hi")
    assert message["id"].startswith("msg_")
    assert [item["id"][:3] for item in items_of([CALL, CALL_OUTPUT, {"type": "reasoning"}])] == ["fc_", "fco", "rs_"]
    assert items_of([{"role": "user", "content": "a", "id": "own"}])[0]["id"] == "own"


def test_an_agents_turn_becomes_one_message():
    turns = chat(
        {"role": "user", "content": "go"},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "I look"}]},
        CALL,
        {**CALL, "call_id": "c2"},
        CALL_OUTPUT,
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "too"}]},
    )
    calls = [{"id": name, "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
             for name in ("c1", "c2")]  # fmt: skip
    assert turns == [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "I look", "reasoning_content": "hm", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "seen", "name": "look"},
        {"role": "tool", "tool_call_id": "c2", "content": "too", "name": "look"},
    ]


def test_instructions_join_only_what_follows_at_once():
    system, user = {"role": "developer", "content": "b"}, {"role": "user", "content": "c"}
    assert chat(system, user, system, instructions="a") == [
        {"role": "system", "content": "a\n\nb"}, user, {"role": "system", "content": "b"}]  # fmt: skip


def test_reasoning_comes_back_from_what_was_encrypted():
    item = {"type": "reasoning", "summary": [], "encrypted_content": encrypted("hm é")}
    assert chat(item)[0]["reasoning_content"] == "hm é"
    assert chat({**item, "encrypted_content": "gAAAA-of-another-server"}) == []
    with pytest.raises(InvalidRequestError, match="encrypted_content"):
        chat({**item, "encrypted_content": "inferd:%"})


@pytest.mark.parametrize("item", [
    {}, {"type": "item_reference"}, {"type": ["a"]}, {"role": ["user"], "content": "a"},
    {"role": "tool", "content": "a"}, {"role": "user"},
    {"role": "user", "content": [{"type": "input_image"}]}, {"role": "user", "content": [3]}, {**CALL, "name": 3},
    {"type": "function_call_output", "output": "a"}, {"type": "function_call_output", "call_id": "a"},
    {"role": "user", "content": "a", "id": 3}], ids=str)  # fmt: skip
def test_what_cannot_be_read_is_refused(item: dict[str, Any]):
    with pytest.raises(InvalidRequestError) as caught:
        chat(item)
    assert caught.value.param == "input"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", ("none", 2)),
        ("auto", ("auto", 2)),
        ("required", ("required", 2)),
        ({"type": "function", "name": "look"}, ("=look", 2)),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "go"}]}, ("required", 1)),
    ],
)
def test_tool_choice(choice: Any, expected: tuple[str, int]):  # fmt: skip
    asked = read({"input": "a", "tools": [TOOL, {**TOOL, "name": "go"}], "tool_choice": choice})
    turn, _ = turn_of(asked.body, asked.items)
    assert (turn.tool_choice, len(turn.tools)) == expected


@pytest.mark.parametrize(
    "choice",
    [
        "some",
        {"type": "function", "name": "other"},
        {"type": "mcp"},
        {"type": "function", "name": ["look"]},
        {"type": "allowed_tools", "tools": 3, "mode": {}},
        {"type": "allowed_tools", "mode": "required"},
    ],
)
def test_a_bad_tool_choice_is_named(choice: Any):  # fmt: skip
    asked = read({"input": "a", "tools": [TOOL], "tool_choice": choice})
    with pytest.raises(InvalidRequestError) as caught:
        turn_of(asked.body, asked.items)
    assert caught.value.param == "tool_choice"


def test_the_document_lists_every_honoured_field():
    assert set(RESPONSES["properties"]) >= HONOURED


def test_text_format_and_effort():
    body = {"input": "a", "reasoning": {"effort": "none"}, "text": {"format": {"type": "json_object"}}}
    asked = read(body)
    turn, _ = turn_of(asked.body, asked.items)
    assert turn.structured is not None
    assert (turn.thinks, turn.reasoning_effort, turn.structured.kind) == (False, "none", "json_object")


DELTAS = [
    Content(" "), Reasoning("a"), Reasoning("b"), Content("\n"), Content("c"), ToolCallBegin(0, "c0", "look"),
    ToolCallArguments(0, "{"), ToolCallArguments(0, ""), ToolCallArguments(0, "}"), Content(" \n"),
]  # fmt: skip


def test_segments():
    segments = Segments()
    assert [*segments.push(DELTAS), *segments.close()] == [
        Opened("reasoning"), Piece("a"), Piece("b"), Closed("reasoning", "ab"),
        Opened("text"), Piece("\nc"), Closed("text", "\nc"),
        Opened("call", DELTAS[5]), Piece("{"), Piece("}"), Closed("call", "{}"),
    ]  # fmt: skip


def test_items_and_events_say_the_same():
    output = Output(is_encrypted=True)
    events = [*output.push(DELTAS), *output.close("incomplete")]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == output.items
    assert [(item["type"], item["status"]) for item in output.items] == [
        ("reasoning", "completed"), ("message", "completed"), ("function_call", "incomplete")]  # fmt: skip
    assert output.items[0]["encrypted_content"] == encrypted("ab")
    for index, item in enumerate(output.items):
        own = [event for event in events if event["output_index"] == index]
        assert {event["item_id"] for event in own if "item_id" in event} == {item["id"]}
        joined = "".join(event["delta"] for event in own if event["type"].endswith(".delta"))
        assert joined == ("ab", "\nc", "{}")[index]
