"""Grammars that users write: Lark in the dialect of the compiler, or GBNF, which becomes Lark."""

from __future__ import annotations

import json
import re
from typing import Any

from inferd.structured.schema import checked_schema, refusal

# What JSON may have between its parts: unbounded, a small model writes spaces until its tokens are used up.
JSON_OPTIONS = {
    "whitespace_pattern": r"\x20|\r?\n[\x20\t]{0,40}",
    # without \uXXXX a character has one spelling: "\u0061" would be a key beside "a" that escapes the schema of "a"
    "json_allowed_escapes": 'nrbtf\\"',
}

_DIRECTIVE = re.compile(r"%(json|llguidance)\b")
_ATTRIBUTES = re.compile(r"^[ \t]*[?!]?[\w-]+[ \t]*\[[^\]\n]*\b(max_tokens|temperature|stop|stop_capture)\b[ \t]*=", re.M)
_UNICODE_ESCAPE = re.compile(r"\\\\|\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})")
_DECODER = json.JSONDecoder()
_GBNF_RULE = re.compile(r"^[ \t]*[A-Za-z][\w-]*[ \t]*::=", re.M)


def with_options(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "x-guidance": JSON_OPTIONS}


def json_rule(schema: dict[str, Any]) -> str:
    """An expression of Lark for a checked schema."""
    return "%json " + json.dumps(with_options(schema))


def literal(text: str) -> str:
    """An expression of Lark for exactly this text."""
    return json.dumps(text, ensure_ascii=False)


def from_user(text: str) -> str:
    if not text.strip():
        raise refusal("the grammar is empty")
    if text.lstrip().startswith("{"):
        raise refusal("the grammar must be Lark or GBNF")
    if _GBNF_RULE.search(text):
        return _from_gbnf(text)
    found = _ATTRIBUTES.search(text)
    if found:
        raise refusal(f"the attribute {found[1]!r} of a rule is not supported (line {_line(text, found.start(1))})")
    return _with_checked_directives(text)


def _with_checked_directives(text: str) -> str:
    """Every %json holds a schema that is checked like any other, and no option of the compiler is changed."""
    parts, at = [], 0
    while found := _DIRECTIVE.search(text, at):
        begin = found.end() + len(text[found.end() :]) - len(text[found.end() :].lstrip())
        try:
            value, end = _DECODER.raw_decode(text, begin)
        except (ValueError, RecursionError) as error:
            raise refusal(f"no JSON after %{found[1]} in line {_line(text, begin)}: {error}") from None
        if found[1] == "json":
            parts += [text[at : found.start()], json_rule(checked_schema(value))]
        elif value == {}:
            parts += [text[at:end]]
        else:
            raise refusal(f"options of %llguidance are not supported (line {_line(text, begin)})")
        at = end
    return "".join(parts) + text[at:]


def _from_gbnf(text: str) -> str:
    from llguidance.gbnf_to_lark import gbnf_to_lark

    plain = _UNICODE_ESCAPE.sub(_as_character, text)
    try:
        return gbnf_to_lark(plain)
    except Exception as error:  # the converter raises Exception itself
        raise refusal(f"the grammar is not GBNF: {error}") from None


def _as_character(found: re.Match[str]) -> str:
    """The converter drops leading zeros, so that \\u0041 followed by a letter a to f would mean another character."""
    if found[1] is None:
        return found[0]
    code = int(found[1][1:], 16)
    if code < 0xA0 or 0xD800 <= code < 0xE000 or code > 0x10FFFF:
        raise refusal(f"write {found[0]} in the grammar as a plain character or as \\xHH")
    return chr(code)


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
