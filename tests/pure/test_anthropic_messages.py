"""Anthropic's history as that of a chat template, and deltas as blocks of content."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from inferd.errors import InvalidRequestError
from inferd.gateway.dialects.anthropic.answer import Blocks
from inferd.gateway.dialects.anthropic.call import parse
from inferd.gateway.dialects.anthropic.history import chat_of, signature_of, tools_of
from inferd.parsing.deltas import Content, Delta, Reasoning, ToolCallArguments, ToolCallBegin

USE = {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "é"}}
BILLING = "x-anthropic-billing-header: cc_version=2.1; cch=a1b2c;"


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value, "cache_control": {"type": "ephemeral"}}


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def test_system_blocks_are_lines_and_the_changing_one_is_gone():
    turns = [user(text("hi"))]
    assert chat_of([text(BILLING), text("You are"), text("kind")], turns)[0] == {
        "role": "system", "content": "You are\nkind"}  # fmt: skip
    assert chat_of(BILLING + "\n\nYou are", turns)[0]["content"] == "You are"
    assert chat_of([text(BILLING)], turns) == [{"role": "user", "content": "hi"}]


def test_a_tool_round_trip():
    turns = [
        user(text("hi")),
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "x"}, text("I look"), USE]},
        user({"type": "tool_result", "tool_use_id": "t1", "content": [text("a"), text("b")], "is_error": True},
             text("go on")),
    ]  # fmt: skip
    assert chat_of("", turns) == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "I look", "reasoning_content": "hm", "tool_calls": [
            {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"at":"é"}'}}]},
        {"role": "tool", "tool_call_id": "t1", "content": "Error: a\nb", "name": "look"},
        {"role": "user", "content": "go on"},
    ]  # fmt: skip


def test_turns_in_a_row_become_one_and_system_may_stand_in_the_middle():
    turns = [user(text("a")), user(text("b")), {"role": "system", "content": "now"}, {"role": "user", "content": "c"}]
    assert [(turn["role"], turn["content"]) for turn in chat_of("s", turns)] == [
        ("system", "s"), ("user", "a\nb"), ("system", "now"), ("user", "c")]  # fmt: skip


def test_hidden_thinking_comes_back_in_its_signature():
    block = {"type": "thinking", "thinking": "", "signature": signature_of("secret é")}
    assert chat_of("", [{"role": "assistant", "content": [block]}])[0]["reasoning_content"] == "secret é"
    foreign = {"type": "redacted_thinking", "data": "abc"}
    assert "reasoning_content" not in chat_of("", [{"role": "assistant", "content": [foreign]}])[0]


def test_documents_of_text():
    document = {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "d"}}
    assert chat_of("", [user(document, text("q"))])[0]["content"] == "T\nd\nq"


@pytest.mark.parametrize("block", [
    {"type": "image", "source": {}}, {"type": "document", "source": {"type": "base64"}}, {"type": "text"},
    {"type": "tool_use", "id": "a"}, {"type": "tool_result"}, {}])  # fmt: skip
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_what_cannot_be_read_is_refused(block: dict[str, Any], role: str):
    with pytest.raises(InvalidRequestError) as caught:
        chat_of("", [{"role": role, "content": [block]}])
    assert caught.value.param == "messages"


def test_tools():
    schema = {"type": "object"}
    tools, warnings = tools_of([{"name": "f", "input_schema": schema, "strict": True, "cache_control": {}},
                                {"type": "web_search_20250305", "name": "web_search"}])  # fmt: skip
    assert tools == [{"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}]
    assert warnings == ["tools: 'web_search_20250305' is not known here and was left out"]
    with pytest.raises(InvalidRequestError, match="each needs a name and an input_schema"):
        tools_of([{"name": "f"}])


BODY = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
TOOL = {"name": "f", "input_schema": {"type": "object"}}


@pytest.mark.parametrize(("choice", "turn"), [
    ({"type": "auto"}, ("auto", True)), ({"type": "any"}, ("required", True)), ({"type": "none"}, ("none", True)),
    ({"type": "tool", "name": "f", "disable_parallel_tool_use": True}, ("=f", False))])  # fmt: skip
def test_tool_choice(choice: dict[str, Any], turn: tuple[str, bool]):
    call = parse({**BODY, "tools": [TOOL], "tool_choice": choice})
    assert (call.turn.tool_choice, call.turn.parallel_tool_calls) == turn


@pytest.mark.parametrize(("thinking", "turn"), [
    (None, (False, None)), ({"type": "disabled"}, (False, None)), ({"type": "adaptive"}, (None, None)),
    ({"type": "enabled", "budget_tokens": 2048}, (True, 2048))])  # fmt: skip
def test_thinking(thinking: dict[str, Any] | None, turn: tuple[bool | None, int | None]):
    call = parse({**BODY, "thinking": thinking} if thinking else dict(BODY))
    assert (call.turn.thinks, call.turn.thinking_budget) == turn


def test_output_config():
    schema = {"type": "object", "properties": {}}
    config = {"effort": "high", "format": {"type": "json_schema", "schema": schema}}
    turn = parse({**BODY, "output_config": config}).turn
    assert turn.reasoning_effort == "high"
    assert turn.structured is not None
    assert (turn.structured.kind, turn.structured.value) == ("json_schema", '{"type":"object","properties":{}}')


@pytest.mark.parametrize(("fields", "param"), [
    ({"max_tokens": None}, "max_tokens"), ({"messages": []}, "messages"), ({"messages": "hi"}, "messages"),
    ({"thinking": {"type": "enabled"}}, "thinking"), ({"thinking": {"type": "big"}}, "thinking"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"), ({"tool_choice": {"type": "tool", "name": "g"}}, "tool_choice"),
    ({"system": 3}, "system"), ({"system": [{"type": "image"}]}, "system"), ({"mcp_servers": [{}]}, "mcp_servers"),
    ({"output_config": {"effort": "huge"}}, "output_config"), ({"tools": [{}]}, "tools"),
    ({"messages": [*BODY["messages"], {"role": "assistant", "content": [USE]}]}, "messages")])  # fmt: skip
def test_a_bad_field_is_named(fields: dict[str, Any], param: str):
    with pytest.raises(InvalidRequestError) as caught:
        parse({name: value for name, value in {**BODY, **fields}.items() if value is not None})
    assert caught.value.param == param
    assert param in caught.value.message


def test_unknown_fields_are_named():
    assert parse({**BODY, "temprature": 1, "metadata": {"user_id": "u"}}).warnings == (
        "unknown field 'temprature' was ignored",
    )


DELTAS = [
    Reasoning("I "), Reasoning("think"), Content("\n\n"), Content("So:"), Content(" now"), Content("\n"),
    ToolCallBegin(0, "c0", "look"), ToolCallArguments(0, '{"at'), ToolCallArguments(0, '":1}'), Content("\n"),
    ToolCallBegin(1, "c1", "go"), ToolCallArguments(1, "{}"),
]  # fmt: skip


def blocks_of(deltas: list[Delta], *, shows_thinking: bool = True) -> list[dict[str, Any]]:
    """The blocks, as a client puts them together; checks the order of the events."""
    made: list[dict[str, Any]] = []
    is_open = False
    blocks = Blocks(shows_thinking=shows_thinking)
    for event in [*itertools.chain.from_iterable(blocks.push([delta]) for delta in deltas), *blocks.close()]:
        if event["type"] == "content_block_start":
            assert not is_open
            assert event["index"] == len(made)
            made.append({**event["content_block"], "deltas": []})
            is_open = True
        assert is_open
        assert event["index"] == len(made) - 1
        if event["type"] == "content_block_delta":
            made[-1]["deltas"].append(event["delta"])
        is_open = event["type"] != "content_block_stop"
    assert not is_open
    return made


def test_blocks():
    thinking, said, look, go = blocks_of(DELTAS)
    assert [delta["type"] for delta in thinking["deltas"]] == ["thinking_delta", "thinking_delta", "signature_delta"]
    assert "".join(delta["text"] for delta in said["deltas"]) == "\n\nSo: now\n"
    assert (look["type"], look["id"], look["name"], look["input"]) == ("tool_use", "c0", "look", {})
    assert [delta["partial_json"] for delta in look["deltas"]] == ['{"at', '":1}']
    assert go["id"] == "c1"


def test_hidden_thinking_is_only_in_the_signature():
    (thinking, *_) = blocks_of(DELTAS, shows_thinking=False)
    assert thinking["deltas"] == [{"type": "signature_delta", "signature": signature_of("I think")}]


def test_white_space_alone_is_kept_where_there_is_nothing_else():
    assert [block["deltas"] for block in blocks_of([Content(" "), Content("\n")])] == [
        [{"type": "text_delta", "text": " \n"}]
    ]
    assert blocks_of([]) == []
