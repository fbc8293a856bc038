"""Which format a model writes: read off its chat template, and off what the template makes of a small conversation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from inferd.errors import InferdError
from inferd.parsing.formats import (
    CHANNEL_BEGINS,
    CHANNEL_ENDS,
    CHANNEL_TEXT,
    REASONING_FORMATS,
    TOOL_FORMATS,
    OutputFormat,
)

Render = Callable[..., str]  # (messages, tools=…, kwargs=…) -> text; raises InferdError

# the first whose texts are all in the template counts
_SIGNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("harmony", ("<|channel|>", "<|message|>")),
    ("deepseek", ("<｜tool▁call▁begin｜>",)),
    ("mistral", ("[TOOL_CALLS]",)),
    ("qwen3_coder", ("<function=", "<parameter=")),
    ("hermes", ("<tool_call>",)),
    ("bar", ("<|tool_call|>",)),
    ("gemma", ("```tool_code",)),
    ("llama3", ("<|start_header_id|>", "parameters")),
)
_OTHERS = ("<arg_key>", "<|tool_calls_section_begin|>", "<minimax:tool_call>")  # formats that no table describes
_SWITCHES = ("enable_thinking", "thinking")
_PROBE = "inferd_probe"
_KEY = "inferd_key"
_USER = {"role": "user", "content": "a"}
_TOOL = {
    "type": "function",
    "function": {
        "name": _PROBE,
        "description": "a",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "string", "description": "a"}},
            "required": ["a"],
        },
    },
}


def detect(template: str, render: Render, control_texts: Iterable[str]) -> OutputFormat:
    """template: its source. render: what it makes of messages."""
    control = frozenset(control_texts)
    tools = _tool_format(template)
    knows_tools = tools is not None and _PROBE in _text(render, [_USER], tools=[_TOOL])
    name = tools if tools is not None and (knows_tools or TOOL_FORMATS[tools].has_channels) else "json"
    reasoning = next((key for key, form in REASONING_FORMATS.items() if form.end in template), None)
    switch = next((name for name in _SWITCHES if _has_variable(template, name)), None)
    return OutputFormat(
        tools=name,
        knows_tools=knows_tools,
        knows_system=_PROBE in _text(render, [{"role": "system", "content": _PROBE}, _USER]),
        takes_argument_text=knows_tools and _takes_argument_text(render),
        reasoning=reasoning,
        reasoning_switch=switch,
        knows_effort=_has_variable(template, "reasoning_effort"),
        knows_documents=_has_variable(template, "documents"),
        **_openings(render, reasoning, switch),
        hidden=tuple(sorted(control)) if control & _markers(name, reasoning) else (),
    )


def _tool_format(template: str) -> str | None:
    if any(text in template for text in _OTHERS):
        return None
    return next((name for name, texts in _SIGNS if all(text in template for text in texts)), None)


def _has_variable(template: str, name: str) -> bool:
    """Inside of Jinja's braces, not in the text that it writes."""
    return re.search(r"\{[{%](?:(?![%}]\}).)*?\b" + name + r"\b", template, re.DOTALL) is not None


def _openings(render: Render, reasoning: str | None, switch: str | None) -> dict[str, bool]:
    if reasoning is None:
        return {}
    begin = REASONING_FORMATS[reasoning].begin

    def opens(**kwargs: bool) -> bool:
        return _text(render, [_USER], kwargs=kwargs).rstrip().endswith(begin)

    usual = opens()
    if switch is None:
        return {"opens": usual, "opens_on": usual, "opens_off": usual}
    return {"opens": usual, "opens_on": opens(**{switch: True}), "opens_off": opens(**{switch: False})}


def _takes_argument_text(render: Render) -> bool:
    """Where arguments that are an object make the template fail or write Python, and text does not."""

    def shows(arguments: Any) -> bool:
        return f'"{_KEY}"' in _text(render, _conversation(arguments), tools=[_TOOL])

    return not shows({_KEY: "a"}) and shows(f'{{"{_KEY}": "a"}}')


def _conversation(arguments: Any) -> list[dict[str, Any]]:
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "a", "arguments": arguments}}
    return [
        _USER,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "abcdefghi", "name": "a", "content": "a"},
    ]


def _text(render: Render, messages: Sequence[dict[str, Any]], **options: Any) -> str:
    """"" where the template refuses."""
    try:
        return render(messages, **options)
    except InferdError:
        return ""


def _markers(tools: str, reasoning: str | None) -> frozenset[str]:
    form = TOOL_FORMATS[tools]
    texts = {text for syntax in form.calls for text in (syntax.begin, *syntax.ends)} | set(form.ignored)
    if tools == "mistral":
        texts |= {"[ARGS]", "[CALL_ID]"}
    if tools == "deepseek":
        texts |= {"<｜tool▁sep｜>"}
    if form.has_channels:
        texts |= {*CHANNEL_BEGINS, CHANNEL_TEXT, *CHANNEL_ENDS}
    if reasoning is not None:
        texts |= {REASONING_FORMATS[reasoning].begin, REASONING_FORMATS[reasoning].end}
    return frozenset(texts)
