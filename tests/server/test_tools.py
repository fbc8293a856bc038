"""Tools, reasoning and structured fields of the OpenAI routes: the mock engine says what a test puts into its mouth."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from support.server import running

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": CITY}}]
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
STOP = "§"
NAMED = {"type": "function", "function": {"name": "get_weather"}}


@pytest.fixture(scope="module")
def agent() -> Iterator[str]:
    with running(worker_factory="support.mock_agent:build") as (url, _):
        yield url


def ask(url, says, **body):
    """The answer to a chat in which the model says `says`."""
    messages = [{"role": "user", "content": says + STOP}]
    return httpx.post(url + "/v1/chat/completions", json={"messages": messages, "stop": [STOP], **body}, timeout=20)


def choice_of(url, says, **body):
    answer = ask(url, says, **body)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


def deltas_of(url, says, **body):
    answer = ask(url, says, stream=True, **body)
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [choice for line in lines[:-1] for choice in json.loads(line)["choices"]]


def put_together(choices):
    """A message as clients make it of deltas."""
    message = {"content": "", "reasoning_content": "", "tool_calls": []}
    for choice in choices:
        delta = choice["delta"]
        message["content"] += delta.get("content") or ""
        message["reasoning_content"] += delta.get("reasoning_content") or ""
        for call in delta.get("tool_calls", ()):
            assert "function" in call
            if "id" in call:
                assert (call["type"], call["index"]) == ("function", len(message["tool_calls"]))
                assert call["function"]["arguments"] == ""
                message["tool_calls"].append({**call, "function": dict(call["function"])})
            else:
                assert set(call["function"]) == {"arguments"}
                message["tool_calls"][call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    return message, choices[-1]["finish_reason"]


def test_a_call(agent):
    choice = choice_of(agent, CALL, tools=TOOLS)
    message = choice["message"]
    assert (choice["finish_reason"], message["content"]) == ("tool_calls", None)
    [call] = message["tool_calls"]
    assert (call["type"], call["function"]) == ("function", {"name": "get_weather", "arguments": '{"city": "Paris"}'})
    assert call["id"].startswith("call_")


def test_an_answer_in_words_has_no_tool_calls(agent):
    choice = choice_of(agent, "Hello.", tools=TOOLS)
    assert choice["message"] == {"role": "assistant", "content": "Hello."}
    assert choice["finish_reason"] == "stop"


def test_a_streamed_call(agent):
    says = f"<think>\nhm é\n</think>\nLooking.\n{CALL}\n{CALL}"
    message, reason = put_together(deltas_of(agent, says, tools=TOOLS))
    whole = choice_of(agent, says, tools=TOOLS)["message"]
    assert (message["content"], message["reasoning_content"], reason) == ("Looking.", "hm é", "tool_calls")
    assert (whole["content"], whole["reasoning_content"], whole["reasoning"]) == ("Looking.", "hm é", "hm é")
    functions = [[call["function"] for call in one["tool_calls"]] for one in (message, whole)]
    assert functions[0] == functions[1] == [{"name": "get_weather", "arguments": '{"city": "Paris"}'}] * 2
    assert len({call["id"] for call in message["tool_calls"] + whole["tool_calls"]}) == 4


def test_streamed_logprobs_cover_every_token(agent):
    choices = deltas_of(agent, CALL, tools=TOOLS, logprobs=True, return_token_ids=True)
    entries = [entry for choice in choices if choice["logprobs"] for entry in choice["logprobs"]["content"]]
    text = bytes(byte for entry in entries for byte in entry["bytes"])
    assert text.decode().startswith(CALL)
    assert sum(len(choice.get("token_ids", ())) for choice in choices) == len(text)


def test_without_tools_a_call_is_text(agent):
    assert choice_of(agent, CALL)["message"]["content"] == CALL
    assert choice_of(agent, CALL, tools=TOOLS, tool_choice="none")["message"]["content"] == CALL


def test_tools_reach_the_template(agent):
    def prompt(**body):
        answer = ask(agent, "a", tools=TOOLS, return_prompt_text=True, max_tokens=1, **body).json()
        return answer["prompt_text"]

    assert prompt().endswith("(get_weather)")
    assert prompt(tool_choice="auto").endswith("(get_weather)")
    assert not prompt(tool_choice="none").endswith("(get_weather)")
    assert prompt(reasoning_effort="none").endswith("(quick)")
    assert prompt(chat_template_kwargs={"enable_thinking": False}).endswith("(quick)")


def test_one_call_where_more_are_not_wanted(agent):
    says = f"{CALL}\n{CALL}"
    assert len(choice_of(agent, says, tools=TOOLS)["message"]["tool_calls"]) == 2
    assert len(choice_of(agent, says, tools=TOOLS, parallel_tool_calls=False)["message"]["tool_calls"]) == 1


def test_history_reaches_the_template(agent):
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    for key in ("reasoning", "reasoning_content", "thinking"):
        messages = [
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": None, "tool_calls": [call], key: "hm"},
            {"role": "tool", "tool_call_id": "c1", "content": "sun"},
        ]
        body = {"messages": messages, "max_tokens": 1, "return_prompt_text": True, "tools": TOOLS}
        answer = httpx.post(agent + "/v1/chat/completions", json=body).json()
        shown = '{"name": "get_weather", "arguments": {"city": "Paris"}}'  # an object, as templates want it
        assert answer["prompt_text"] == f"<bos>sun<think>hm</think><tool_call>{shown}</tool_call>u(get_weather)"


def test_a_template_without_tools_is_told_in_words(url):
    def prompt(messages, **body):
        body = {"messages": messages, "max_tokens": 1, "return_prompt_text": True, "tools": TOOLS, **body}
        answer = httpx.post(url + "/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["prompt_text"]

    told = prompt([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}])
    assert told.startswith("<bos>Be brief.\n\nYou can call")
    assert '{"name": "get_weather", "description": "Weather"' in told
    assert told.endswith("hi")
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "So:", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sun"},
        {"role": "tool", "tool_call_id": "c2", "content": "rain"},
    ]
    results = "<tool_response>\nsun\n</tool_response>\n<tool_response>\nrain\n</tool_response>"
    assert prompt(messages).endswith(f"hiSo:\n{CALL}{results}")
    assert prompt(messages, tool_choice="none") == f"<bos>hiSo:\n{CALL}{results}"


def test_legacy_functions(agent):
    functions = [TOOLS[0]["function"]]
    choice = choice_of(agent, CALL, functions=functions)
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    assert "tool_calls" not in choice["message"]
    deltas = [one["delta"] for one in deltas_of(agent, CALL, functions=functions)]
    deltas = [delta["function_call"] for delta in deltas if "function_call" in delta]
    assert deltas[0] == {"name": "get_weather", "arguments": ""}
    assert "".join(one["arguments"] for one in deltas) == '{"city": "Paris"}'
    history = [{"role": "user", "content": "u"},
               {"role": "assistant", "content": None, "function_call": choice["message"]["function_call"]},
               {"role": "function", "name": "get_weather", "content": "sun"}]  # fmt: skip
    body = {"messages": history, "functions": functions, "max_tokens": 3}
    answer = httpx.post(agent + "/v1/chat/completions", json=body).json()
    assert answer["choices"][0]["message"]["content"] == "sun"


def test_reasoning_is_counted_and_can_be_left_out(agent):
    answer = ask(agent, "<think>four</think>five").json()
    usage = answer["usage"]["completion_tokens_details"]
    assert usage["reasoning_tokens"] == len("four</think>") + 1  # the mock's tokens are bytes
    message = choice_of(agent, "<think>four</think>five", include_reasoning=False)["message"]
    assert message == {"role": "assistant", "content": "five"}
    deltas = deltas_of(agent, "<think>four</think>five", include_reasoning=False)
    assert not any("reasoning" in one["delta"] or "reasoning_content" in one["delta"] for one in deltas)


def test_what_changes_nothing_is_said(url, agent):
    body = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "reasoning_effort": "high"}
    [warning] = httpx.post(url + "/v1/chat/completions", json=body).json()["warnings"]
    assert warning.startswith("reasoning_effort changes nothing")
    assert "warnings" not in httpx.post(agent + "/v1/chat/completions", json=body).json()


BAD = [
    ({"tools": [{}]}, "tools"), ({"tools": "x"}, "tools"), ({"tools": [{"type": "web_search"}]}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "a", "parameters": 1}}]}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "a", "strict": 1}}]}, "tools"),
    ({"tools": TOOLS * 2}, "tools"), ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"), ({"tools": TOOLS, "tool_choice": {"type": "custom"}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "b"}}}, "tool_choice"),
    ({"tools": TOOLS, "functions": [TOOLS[0]["function"]]}, "functions"), ({"functions": [{}]}, "functions"),
    ({"functions": [TOOLS[0]["function"]], "function_call": {"name": "b"}}, "function_call"),
    ({"reasoning_effort": "huge"}, "reasoning_effort"), ({"thinking_token_budget": -1}, "thinking_token_budget"),
    ({"documents": [{"text": "a"}]}, "documents"),
    ({"response_format": {"type": "xml"}}, "response_format"), ({"response_format": 1}, "response_format"),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
    ({"structured_outputs": {"json": CITY, "regex": "a"}}, "structured_outputs"),
    ({"structured_outputs": {"whitespace_pattern": "a"}}, "structured_outputs"),
    ({"guided_choice": []}, "guided_choice"),
    ({"guided_regex": 5}, "guided_regex"), ({"regex": "a", "ebnf": "b"}, "ebnf"), ({"grammar": ["a"]}, "grammar"),
    ({"guided_whitespace_pattern": "a"}, "guided_whitespace_pattern"),
    # what the grammar compiler refuses comes back under the name the request has for it
    ({"guided_regex": "((("}, "guided_regex"), ({"guided_grammar": "start: ((("}, "guided_grammar"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}}, "response_format"),
    ({"tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": "object", "not": {}}}}],
      "tool_choice": "required"}, "tools"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "param"), BAD, ids=lambda value: str(value)[:60])
def test_bad_values_are_refused_by_name(url, body, param):
    answer = ask(url, "a", max_tokens=2, **body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert "structured_outputs" not in error["message"] or param == "structured_outputs"


GOOD = [
    {"response_format": {"type": "text"}}, {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": CITY}}},
    {"structured_outputs": {"json": CITY}}, {"structured_outputs": {"json": json.dumps(CITY)}},
    {"structured_outputs": {"regex": "a+"}}, {"structured_outputs": {"choice": ["a", "b"]}}, {"structured_outputs": {}},
    {"structured_outputs": {"grammar": 'start: "a"'}}, {"structured_outputs": {"json_object": True}},
    {"structured_outputs": {"structural_tag": {"structures": [{"begin": "<a>", "schema": CITY, "end": "</a>"}],
                                               "triggers": ["<a"]}}},
    {"guided_json": CITY}, {"guided_regex": "a/b"}, {"guided_choice": ["a"]}, {"guided_grammar": 'root ::= "a"'},
    {"regex": "a"}, {"ebnf": 'root ::= "a"'}, {"json_schema": json.dumps(CITY)}, {"grammar": 'root ::= "a"'},
    {"tools": TOOLS, "tool_choice": "required"}, {"tools": TOOLS, "tool_choice": NAMED},
    {"tools": TOOLS, "tool_choice": NAMED, "parallel_tool_calls": False},
    {"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}}},
    {"tools": TOOLS, "response_format": {"type": "json_object"}},
    {"tools": [{"type": "function", "function": {**TOOLS[0]["function"], "strict": True}}]},
    {"tools": [{"type": "function", "function": {"name": "a", "parameters": {
        "type": "object", "properties": {"b": {"$ref": "#/$defs/B"}}, "$defs": {"B": {"type": "integer"}}}}}],
     "tool_choice": "required"},
]  # fmt: skip


@pytest.mark.parametrize("body", GOOD, ids=lambda value: str(value)[:80])
@pytest.mark.parametrize("model", ["plain", "agent"])
def test_every_form_is_compiled(url, agent, model, body):
    """Also behind reasoning: the agent's model may think before it answers."""
    answer = ask(agent if model == "agent" else url, "a", max_tokens=2, **body)
    has_grammar = {"ebnf", "grammar", "guided_grammar"} & body.keys() or "grammar" in body.get("structured_outputs", {})
    if model == "agent" and has_grammar:
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(body)))
        answer = ask(agent, "a", max_tokens=2, **body, reasoning_effort="none")
    assert answer.status_code == 200, answer.text
