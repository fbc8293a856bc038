"""Conversations for chat templates, and a template of the constructs that published ones use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather <now> & \"there\", é",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
_ARGUMENTS = {"place": "Łódź", "days": [1, 2.5, None, True]}
_CALL = {"type": "function", "function": {"name": "weather", "arguments": _ARGUMENTS}}


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


# title -> messages, and where given tools and options
CONVERSATIONS: dict[str, dict[str, Any]] = {
    "one": {"messages": [_user("Hello")]},
    "system": {"messages": [_system("Be brief."), _user("Who are you?")]},
    "turns": {"messages": [_user("a"), _assistant("b"), _user("c"), _assistant("d"), _user("e")]},
    "system and turns": {"messages": [_system("S"), _user("a"), _assistant("b"), _user("c")]},
    "no generation prompt": {"messages": [_user("a"), _assistant("b")], "options": {"add_generation_prompt": False}},
    "spaces": {"messages": [_system("  s\n"), _user("\n\n  a \t\n"), _assistant(" b "), _user("\r\nc\r\n")]},
    "unicode": {"messages": [_user("héllo 日本 👩‍👩‍👧 e\u0301 \u0000 \u2028 <b>&amp;\"'</b>")]},
    "empty": {"messages": [_user("")]},
    "code": {"messages": [_user("{{ 7 * 7 }} {% for x in y %}{# c #}\n    indented\n```py\nprint('x')\n```")]},
    "late system": {"messages": [_user("a"), _system("now in verse"), _user("b")]},
    "tools": {"messages": [_user("Weather in Łódź?")], "tools": [_WEATHER]},
    "tool call": {
        "messages": [
            _system("Use tools."),
            _user("Weather?"),
            {"role": "assistant", "content": "", "tool_calls": [_CALL, _CALL]},
            {"role": "tool", "content": '{"sky": "grey"}'},
            {"role": "tool", "content": "rain"},
            _assistant("It rains."),
            _user("Thanks"),
        ],
        "tools": [_WEATHER],
    },
    "odd roles": {"messages": [_assistant("first"), _user("second")]},
}

WILD_TEMPLATE = (Path(__file__).parent / "wild.jinja").read_text("utf-8")
