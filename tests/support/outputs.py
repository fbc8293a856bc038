"""What models write, and what it means: the golden outputs of the parser's tests."""

from __future__ import annotations

from dataclasses import dataclass, field

TOOLS = {
    "get_weather": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
    "write_file": {"type": "object", "properties": {"path": {"type": "string"}, "text": {"type": "string"}}},
    "now": {"type": "object", "properties": {}},
    "rank": {"type": "object", "properties": {"rows": {"type": "array"}, "deep": {"type": "object"}}},
}


@dataclass(frozen=True, kw_only=True)
class Output:
    """calls: (name, the text of the arguments)."""

    id: str
    text: str
    tools: str | None = None
    reasoning: str | None = None
    opens_reasoning: bool = False
    hidden: tuple[str, ...] = ()
    content: str = ""
    thought: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)


PARIS = '{"city": "Paris"}'
OSLO = '{"city": "Oslo", "days": 3}'
NASTY = r'{"path": "a\\b\"c\".py", "text": "x = {\n\t[\"é😀\u00e9\", \"}]</tool_call>\"]\n} # <tool_call>"}'


def hermes(*calls: tuple[str, str]) -> str:
    return "\n".join(f'<tool_call>\n{{"name": "{n}", "arguments": {a}}}\n</tool_call>' for n, a in calls)


W, O = ("get_weather", PARIS), ("get_weather", OSLO)

OUTPUTS = [
    Output(id="plain", text="Just text. ", content="Just text. "),
    Output(id="no tools offered", text=hermes(W), content=hermes(W)),
    Output(id="hermes", tools="hermes", text=hermes(W), calls=[W]),
    Output(id="two", tools="hermes", text=hermes(W, O), calls=[W, O]),
    Output(
        id="text around",
        tools="hermes",
        text=f"Let me look.\n\n{hermes(W)}\n and {hermes(O)}\nDone. ",
        content="Let me look.\n\nand Done. ",
        calls=[W, O],
    ),
    Output(id="nasty strings", tools="hermes", text=hermes(("write_file", NASTY)), calls=[("write_file", NASTY)]),
    Output(
        id="nested",
        tools="hermes",
        text=hermes(("rank", '{"rows": [[1, {"a": []}], "]"], "deep": {"b": {"c": {}}}}')) + "\n\n",
        calls=[("rank", '{"rows": [[1, {"a": []}], "]"], "deep": {"b": {"c": {}}}}')],
    ),
    Output(
        id="compact",
        tools="hermes",
        text='<tool_call>{"name":"now","arguments":{}}</tool_call><tool_call>{"name":"now"}</tool_call>',
        calls=[("now", "{}"), ("now", "{}")],
    ),
    Output(
        id="keys in another order",
        tools="hermes",
        text='<tool_call>{"id": "x", "arguments": {"city": "Paris"}, "name": "get_weather"}</tool_call>',
        calls=[W],
    ),
    Output(
        id="arguments as text",
        tools="hermes",
        text=r'<tool_call>{"name": "get_weather", "arguments": "{\"city\": \"Paris\"}"}</tool_call>',
        calls=[W],
    ),
    Output(
        id="null arguments", tools="hermes", text='<tool_call>{"name": "now", "arguments": null}</tool_call>',
        calls=[("now", "{}")],
    ),
    Output(
        id="a list in tags",
        tools="hermes",
        text=f'<tool_call>[{{"name": "now", "arguments": {{}}}}, {{"name": "get_weather", "arguments": {OSLO}}}]</tool_call>',
        calls=[("now", "{}"), O],
    ),
    Output(
        id="line break in a string",
        tools="hermes",
        text='<tool_call>{"name": "write_file", "arguments": {"text": "a\nb\tc"}}</tool_call>',
        calls=[("write_file", r'{"text": "a\nb\tc"}')],
    ),
    Output(
        id="unfinished arguments", tools="hermes", text='<tool_call>\n{"name": "get_weather", "arguments": {"city": "Pa\\',
        calls=[("get_weather", '{"city": "Pa\\')],
    ),
    Output(
        id="unfinished name", tools="hermes", text='One moment. <tool_call>\n{"name": "get_wea',
        content='One moment. <tool_call>\n{"name": "get_wea',
    ),
    Output(
        id="missing brace", tools="hermes", text='<tool_call>\n{"name": "now", "arguments": {}\n</tool_call>',
        calls=[("now", "{}")],
    ),
    Output(
        id="missing end", tools="hermes", text='<tool_call>\n{"name": "now", "arguments": {}}',
        calls=[("now", "{}")],
    ),
    Output(
        id="broken arguments",
        tools="hermes",
        text='<tool_call>{"name": "rank", "arguments": {"rows": [1, 2}}</tool_call>\nSorry.',
        calls=[("rank", '{"rows": [1, 2}}')],
        content="Sorry.",
    ),
    Output(
        id="no call in tags", tools="hermes", text="Say <tool_call> hello </tool_call>, <tool_cal or <tool_call>[]",
        content="Say <tool_call> hello </tool_call>, <tool_cal or <tool_call>[]",
    ),
    Output(id="arguments that are none", tools="hermes",
           text='<tool_call>{"name": "now", "arguments": [1]}</tool_call>',
           content='<tool_call>{"name": "now", "arguments": [1]}</tool_call>'),
    Output(
        id="a broken call before a good one", tools="hermes", text=f"<tool_call>oops\n{hermes(W)}",
        content="<tool_call>oops", calls=[W],
    ),
    Output(
        id="prefixes", tools="hermes", text="a < b <t <tool <tool_call <<tool_calls> </tool_call> <",
        content="a < b <t <tool <tool_call <<tool_calls> </tool_call> <",
    ),
    Output(
        id="think", tools="hermes", reasoning="think",
        text=f"<think>\nThe user wants é. <tool_call> no </think\n</think>\n\nHere:\n{hermes(W)}",
        thought="The user wants é. <tool_call> no </think", content="Here:", calls=[W],
    ),
    Output(id="think only", reasoning="think", text="<think>a\nb</think>\n\n c <think>d", thought="a\nb", content="c <think>d"),
    Output(id="opened", reasoning="think", opens_reasoning=True, text="hm\n</think>\n\n42\n", thought="hm", content="42\n"),
    Output(id="opened twice", reasoning="think", opens_reasoning=True, text="\n<think>\nhm</think>42", thought="hm", content="42"),
    Output(id="thinks to the end", reasoning="think", text=" <think> a < b ", thought="a < b "),
    Output(id="empty thought", reasoning="think", text="<think>\n\n</think>\n\nYes", content="Yes"),
    Output(id="no thought", reasoning="think", text="  <thin air", content="  <thin air"),
    Output(id="brackets", reasoning="bracket", tools="mistral", text="[THINK]so[/THINK]ok", thought="so", content="ok"),
    Output(
        id="qwen3 coder", tools="qwen3_coder",
        text="I write.\n<tool_call>\n<function=write_file>\n<parameter=path>\na.py\n</parameter>\n<parameter=text>\n"
             "def f():\n    return \"é\" < 1\n\n</parameter>\n</function>\n</tool_call>",
        content="I write.",
        calls=[("write_file", '{"path": "a.py", "text": "def f():\\n    return \\"é\\" < 1\\n"}')],
    ),
    Output(
        id="qwen3 coder types", tools="qwen3_coder",
        text="<tool_call>\n<function=get_weather>\n<parameter=city>\n12\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
             "</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>\n"
             "<function=rank>\n<parameter=rows>\n[1, \"a\"]\n</parameter>\n<parameter=deep>None</parameter>\n</function>",
        calls=[("get_weather", '{"city": "12", "days": 3}'), ("now", "{}"), ("rank", '{"rows": [1, "a"], "deep": null}')],
    ),
    Output(
        id="qwen3 coder unfinished", tools="qwen3_coder",
        text="<tool_call>\n<function=write_file>\n<parameter=path>\na</parameter>\n<parameter=text>\nhal",
        calls=[("write_file", '{"path": "a", "text": "hal')],
    ),
    Output(id="qwen3 coder none", tools="qwen3_coder", text="<tool_call> <functions", content="<tool_call> <functions"),
    Output(id="llama", tools="llama3", text='{"name": "get_weather", "parameters": {"city": "Paris"}}', calls=[W]),
    Output(
        id="llama several", tools="llama3",
        text='<|python_tag|>{"name": "now", "parameters": {}}; {"type": "function", "name": "get_weather", "parameters": '
             + OSLO + "}<|eom_id|>",
        calls=[("now", "{}"), O],
    ),
    Output(id="llama function tag", tools="llama3", text=f"Sure. <function=get_weather>{PARIS}</function>",
           content="Sure.", calls=[W]),
    Output(id="llama answers in JSON", tools="llama3", text='{"name": "Ann", "age": 3}', content='{"name": "Ann", "age": 3}'),
    Output(id="llama answers in other JSON", tools="llama3", text=' {"age": 3}\n', content=' {"age": 3}\n'),
    Output(
        id="mistral list", tools="mistral",
        text=f'[TOOL_CALLS] [{{"name": "get_weather", "arguments": {PARIS}, "id": "a1b2c3d4e"}}, '
             f'{{"name": "get_weather", "arguments": {OSLO}}}]',
        calls=[W, O],
    ),
    Output(id="mistral names", tools="mistral",
           text=f"ok[TOOL_CALLS]get_weather[CALL_ID]a1b2c3d4e[ARGS]{PARIS}[TOOL_CALLS]get_weather[ARGS]{OSLO}",
           content="ok", calls=[W, O]),
    Output(id="mistral no call", tools="mistral", text="[TOOL_CALLS]no call! {}", content="[TOOL_CALLS]no call! {}"),
    Output(id="mistral long header", tools="mistral", text="[TOOL_CALLS]" + "x" * 300 + "{}",
           content="[TOOL_CALLS]" + "x" * 300 + "{}"),
    Output(id="bar", tools="bar", text=f'<|tool_call|>[{{"name": "get_weather", "arguments": {PARIS}}}]<|/tool_call|>',
           calls=[W]),
    Output(id="gemma code", tools="gemma", text='```tool_code\nprint(get_weather(city="Paris", days=-1))\n```\nThere.',
           content="There.", calls=[("get_weather", '{"city": "Paris", "days": -1}')]),
    Output(id="gemma code list", tools="gemma", text='```tool_code\n[now(), rank(rows=[1, "é"], deep={"a": None})]\n```',
           calls=[("now", "{}"), ("rank", '{"rows": [1, "é"], "deep": {"a": null}}')]),
    Output(id="gemma other code", tools="gemma", text="```tool_code\nimport os\n```", content="```tool_code\nimport os\n```"),
    Output(id="gemma fence", tools="gemma", text='Yes:\n```json\n{"name": "get_weather", "parameters": {"city": "Paris"}}\n```',
           content="Yes:", calls=[W]),
    Output(id="gemma JSON that is none", tools="gemma", text='```json\n{"a": "get_weather"}\n```',
           content='```json\n{"a": "get_weather"}\n```'),
    Output(
        id="deepseek v3", tools="deepseek", reasoning="think",
        text="<think>hm</think>\n\nLooking. <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
             f"{PARIS}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{OSLO}\n```"
             "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        thought="hm", content="Looking.", calls=[W, O],
    ),
    Output(
        id="deepseek v3.1", tools="deepseek", reasoning="think", opens_reasoning=True,
        text=f"</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{PARIS}<｜tool▁call▁end｜>"
             "<｜tool▁calls▁end｜>",
        calls=[W],
    ),
    Output(
        id="harmony", tools="harmony",
        text="<|channel|>analysis<|message|>Need é.\n<|end|><|start|>assistant<|channel|>commentary<|message|>Looking up."
             "<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
             f"{PARIS}<|call|>",
        thought="Need é.", content="Looking up.", calls=[W],
    ),
    Output(
        id="harmony recipient first", tools="harmony",
        text=f"<|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>{OSLO}", calls=[O],
    ),
    Output(id="harmony final", tools="harmony",
           text="<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b < c\n<|return|>",
           thought="a", content="b < c"),
    Output(id="harmony unfinished header", tools="harmony", text="<|channel|>ana", content="<|channel|>ana"),
    Output(id="generic", tools="json", text=' {"name": "get_weather", "arguments": {"city": "Paris"}}', calls=[W]),
    Output(id="generic list", tools="json",
           text=f'[{{"name": "get_weather", "arguments": {PARIS}}},\n{{"function": "get_weather", "parameters": {OSLO}}}]',
           calls=[W, O]),
    Output(id="generic in a row", tools="json",
           text=f'{{"name": "get_weather", "arguments": {PARIS}}}\n{{"name": "now"}}, then', content=", then",
           calls=[W, ("now", "{}")]),
    Output(id="generic tags", tools="json", text="So: " + hermes(O), content="So:", calls=[O]),
    Output(id="generic unknown name", tools="json", text='{"name": "rm", "arguments": {}}', content='{"name": "rm", "arguments": {}}'),
    Output(id="generic list of something", tools="json", text='[1, {"name": "now"}]', content='[1, {"name": "now"}]'),
    Output(id="hidden", tools="hermes", hidden=("<|im_end|>", "<tool_call>"), text=f"a<|im_end|>b {hermes(W)}<|im_end|>",
           content="ab", calls=[W]),
    Output(id="hidden in thoughts", reasoning="think", hidden=("<pad>", "<think>"), text="<think>a<pad>b</think><pad>c",
           thought="ab", content="c"),
]  # fmt: skip
