"""What the engine is told to let a model write: calls of the tools that were asked for, and answers in a given form.

Reasoning is free: a constraint begins where it ends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from inferd.errors import InvalidRequestError
from inferd.gateway.tools import Tool, name_of
from inferd.parsing.formats import OutputFormat
from inferd.types import StructuredOutputs

_BEGIN, _END = "<tool_call>\n", "\n</tool_call>"
# the formats whose calls are objects in these tags: their begin is no text that an answer could have
TAGGED = frozenset(("hermes", "json"))


def free_calls(tools: Sequence[Tool], form: OutputFormat) -> StructuredOutputs | None:
    """The model chooses; once it has begun a call, it is one of these tools, with an object, by its schema where the
    tool is strict. None for formats whose begin could be an answer's, or is not text."""
    if form.tools not in TAGGED:
        strict = next((tool for tool in tools if tool["function"].get("strict")), None)
        if strict is not None:
            message = f"tools: strict is not possible with tool_choice auto in this model's format; {name_of(strict)}"
            raise InvalidRequestError(f"{message} asks for it", param="tools")
        return None
    part = {"begin": _BEGIN, "schema": _one_of(tools, only_strict=True), "end": _END}
    return StructuredOutputs(kind="lazy", value=json.dumps([part]))


def forced_calls(tools: Sequence[Tool], form: OutputFormat, *, may_repeat: bool, thought: str) -> StructuredOutputs:
    """Calls and nothing else. In the other formats they are written as a list of objects."""
    schema = _one_of(tools)
    if form.tools in TAGGED:
        rules = f"call: {_text(_BEGIN)} object {_text(_END)}\nobject: %json {json.dumps(schema)}\n"
        body = f"call ({_text(chr(10))} call)*" if may_repeat else "call"
        return _grammar(body, rules, thought)
    several = {"type": "array", "items": schema, "minItems": 1} if may_repeat else schema
    return _after(StructuredOutputs(kind="json_schema", value=json.dumps(several)), thought)


def answer(structured: StructuredOutputs, thought: str) -> StructuredOutputs:
    return _after(structured, thought)


def calls_or_answer(
    tools: Sequence[Tool], structured: StructuredOutputs, form: OutputFormat, thought: str
) -> StructuredOutputs:
    """Either calls or an answer in its form; the model chooses by how it begins."""
    if form.tools not in TAGGED:
        message = "cannot be combined with tools in this model's format: force a tool, or offer none"
        raise InvalidRequestError(f"structured_outputs {message}", param="structured_outputs")
    body, rules = _as_rule(structured)
    call = f"call: {_text(_BEGIN)} %json {json.dumps(_one_of(tools, only_strict=True))} {_text(_END)}\n"
    return _grammar(f"call ({_text(chr(10))} call)* | answer", f"{call}answer: {body}\n{rules}", thought)


def thought_rule(form: OutputFormat, *, is_open: bool) -> str:
    """A rule for the reasoning before a constraint; "" where there is none."""
    reasoning = form.reasoning_format
    if reasoning is None:
        return ""
    begin, end = (_literal(text, form) for text in (reasoning.begin, reasoning.end))
    is_token = reasoning.end in form.hidden
    rest = f"THOUGHT {end}" if is_token else "thought_end"
    rules = "THOUGHT: /(.|\\n)*/\n" + ("" if is_token else f"thought_end[lazy]: THOUGHT {end}\n")
    return f"thought: {rest if is_open else f'({begin} {rest})?'} SPACE\nSPACE: /[ \\n]{{0,4}}/\n{rules}"


def _after(structured: StructuredOutputs, thought: str) -> StructuredOutputs:
    return _grammar(*_as_rule(structured), thought) if thought else structured


def _as_rule(structured: StructuredOutputs) -> tuple[str, str]:
    """What stands for it in a rule of a grammar, and the rules that this needs."""
    value = structured.value
    match structured.kind:
        case "json_object":
            return '%json {"type": "object"}', ""
        case "json_schema":
            return f"%json {value}", ""
        case "regex":
            return "ANSWER", f"ANSWER: /{value.replace('/', chr(92) + '/')}/\n"
        case "choice":
            return " | ".join(map(_text, json.loads(value))), ""
        case _:
            message = "a grammar cannot be combined with tools, or with this model's reasoning"
            raise InvalidRequestError(f"structured_outputs: {message}", param="structured_outputs")


def _grammar(body: str, rules: str, thought: str) -> StructuredOutputs:
    start = f"start: {'thought ' if thought else ''}body\nbody: {body}\n"
    return StructuredOutputs(kind="grammar", value=f"%llguidance {{}}\n{start}{rules}{thought}")


def _one_of(tools: Sequence[Tool], *, only_strict: bool = False) -> dict[str, Any]:
    """The schema of a call of one of the tools. What a tool's own schema refers to as its root moves to $defs."""
    defs: dict[str, Any] = {}
    schemas = []
    for number, tool in enumerate(tools):
        function = tool["function"]
        arguments: Any = {"type": "object"}
        if function.get("strict") or not only_strict:
            arguments = {key: value for key, value in function["parameters"].items() if key not in ("$schema", "$id")}
        if '"$ref"' in json.dumps(arguments):
            defs[f"tool{number}"] = _moved(arguments, f"#/$defs/tool{number}")
            arguments = {"$ref": f"#/$defs/tool{number}"}
        schemas.append(
            {
                "type": "object",
                "properties": {"name": {"const": function["name"]}, "arguments": arguments},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {**schema, "$defs": defs} if defs else schema


def _moved(schema: Any, root: str) -> Any:
    """schema with its references into itself changed to where it stands now."""
    if isinstance(schema, list):
        return [_moved(item, root) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    moved = {key: _moved(value, root) for key, value in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = root + reference[1:]
    return moved


def _text(text: str) -> str:
    return json.dumps(text)


def _literal(text: str, form: OutputFormat) -> str:
    """A control token has no text to a grammar, only its name."""
    return text if text in form.hidden else _text(text)
