"""The ways in which a body asks for an answer in a given form: those of OpenAI, vLLM, SGLang and llama.cpp."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from inferd.errors import InvalidRequestError
from inferd.gateway.json_fields import MAX_DEPTH, is_deep
from inferd.types import StructuredOutputs


def structured_of(fields: Mapping[str, Any]) -> tuple[StructuredOutputs | None, str]:
    """(what the answer must be, the field that says so). Raises InvalidRequestError with the field's name."""
    found = [(name, read(fields[name], name)) for name, read in _READERS.items() if name in fields]
    wanted = [(name, structured) for name, structured in found if structured is not None]
    if len(wanted) > 1:
        raise InvalidRequestError(f"{wanted[1][0]} cannot be combined with {wanted[0][0]}", param=wanted[1][0])
    return (wanted[0][1], wanted[0][0]) if wanted else (None, "structured_outputs")


def _schema(value: Any, name: str) -> StructuredOutputs:
    if isinstance(value, dict | bool):
        value = msgspec.json.encode(value).decode()
    return _of("json_schema", value, name, "a JSON schema")


def _regex(value: Any, name: str) -> StructuredOutputs:
    return _of("regex", value, name, "a regular expression")


def _grammar(value: Any, name: str) -> StructuredOutputs:
    return _of("grammar", value, name, "a grammar in Lark or GBNF")


def _choice(value: Any, name: str) -> StructuredOutputs:
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise InvalidRequestError(f"{name} must be a list of at least one text", param=name)
    return _of("choice", msgspec.json.encode(value).decode(), name, "")


def _object(value: Any, name: str) -> StructuredOutputs | None:
    if not isinstance(value, bool):
        raise InvalidRequestError(f"{name} must be true or false", param=name)
    return StructuredOutputs(kind="json_object") if value else None


def _of(kind: Any, value: Any, name: str, allowed: str) -> StructuredOutputs:
    if not isinstance(value, str):
        raise InvalidRequestError(f"{name} must be {allowed}", param=name)
    try:
        return StructuredOutputs(kind=kind, value=value)
    except InvalidRequestError as error:
        raise InvalidRequestError(error.message.replace("structured_outputs", name), param=name) from None


def _structural_tag(value: Any, name: str) -> StructuredOutputs:
    """begin, schema and end of each structure; what triggers one is its begin."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidRequestError(f"{name}: a structural tag must be JSON", param=name) from error
        if is_deep(value):
            raise InvalidRequestError(f"{name} is nested more than {MAX_DEPTH} levels deep", param=name)
    structures = value.get("structures") if isinstance(value, dict) else None
    if not isinstance(structures, list) or not structures:
        raise InvalidRequestError(f"{name}: a structural tag must have a list of structures", param=name)
    parts = []
    for one in structures:
        if not isinstance(one, dict) or not isinstance(one.get("begin"), str) or not isinstance(one.get("end"), str):
            raise InvalidRequestError(f"{name}: each structure must have begin, schema and end", param=name)
        parts.append({"begin": one["begin"], "schema": one.get("schema", {}), "end": one["end"]})
    triggers = value.get("triggers", [part["begin"] for part in parts])
    if not isinstance(triggers, list) or not all(
        any(part["begin"].startswith(trigger) for trigger in triggers if isinstance(trigger, str)) for part in parts
    ):
        raise InvalidRequestError(f"{name}: every begin must start with one of the triggers", param=name)
    return _of("lazy", msgspec.json.encode(parts).decode(), name, "")


def _response_format(value: Any, name: str) -> StructuredOutputs | None:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return StructuredOutputs(kind="json_object")
    if kind == "structural_tag":
        return _structural_tag(value, name)
    if kind != "json_schema":
        allowed = "text, json_object, json_schema or structural_tag"
        raise InvalidRequestError(f"{name}: type must be {allowed}, got {str(kind)[:80]!r}", param=name)
    schema = value.get("json_schema")
    if not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict):
        raise InvalidRequestError(f"{name}: json_schema must have a schema, an object", param=name)
    return _schema(schema["schema"], name)


_PARTS: dict[str, Callable[[Any, str], StructuredOutputs | None]] = {
    "json": _schema,
    "regex": _regex,
    "choice": _choice,
    "grammar": _grammar,
    "json_object": _object,
    "structural_tag": _structural_tag,
}


def _structured_outputs(value: Any, name: str) -> StructuredOutputs | None:
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{name} must be an object", param=name)
    given = {key: one for key, one in value.items() if one is not None and one is not False}
    for key in given:
        if key not in _PARTS:
            allowed = ", ".join(_PARTS)
            raise InvalidRequestError(f"{name}: {key[:80]} is not supported; one of {allowed} is", param=name)
    found = [_PARTS[key](one, name) for key, one in given.items()]
    if len(found) > 1:
        raise InvalidRequestError(f"{name} must hold one of {', '.join(_PARTS)}, got {len(found)}", param=name)
    return found[0] if found else None


_READERS: dict[str, Callable[[Any, str], StructuredOutputs | None]] = {
    "response_format": _response_format,
    "structured_outputs": _structured_outputs,
    "guided_json": _schema,
    "guided_regex": _regex,
    "guided_choice": _choice,
    "guided_grammar": _grammar,
    "regex": _regex,
    "ebnf": _grammar,
    "json_schema": _schema,
    "grammar": _grammar,
}
FIELDS = frozenset(_READERS)
