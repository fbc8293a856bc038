"""JSON schemas that can be held to. A keyword that would have to be ignored is refused by name and place.

The grammar compiler refuses most of what it does not know, but not all: unknown words, numbers beyond 53 bits, repeated
keys under minProperties and old dialects pass it with less meaning than they have. This module closes these gaps.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from inferd.errors import InvalidRequestError

MAX_DEPTH = 64  # of schemas in schemas

_SINGLE = frozenset("items additionalItems additionalProperties".split())
_LISTS = frozenset("anyOf oneOf allOf prefixItems".split())
_MAPS = frozenset("properties patternProperties $defs definitions".split())
_NUMBERS = frozenset("const enum minimum maximum exclusiveMinimum exclusiveMaximum multipleOf".split())
_PLAIN = frozenset("type required minItems maxItems minProperties maxProperties minLength maxLength".split())
# say nothing about what is valid; left out before compiling, so that no reference can lead into them
_ANNOTATIONS = frozenset(
    "title description default example examples $comment $anchor $vocabulary readOnly writeOnly deprecated "
    "contentMediaType contentEncoding discriminator".split()
)
# keywords that cannot be held to, with the values under which they forbid nothing
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "uniqueItems": (False,),
    "nullable": (False,),
    "not": (False,),
    "propertyNames": (True, {}, {"type": "string"}),
    "unevaluatedProperties": (True, {}),
    "unevaluatedItems": (True, {}),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
}
_DIALECTS = frozenset(
    "json-schema.org/draft/2020-12/schema json-schema.org/draft/2019-09/schema json-schema.org/draft-07/schema "
    "json-schema.org/draft-06/schema json-schema.org/draft-04/schema json-schema.org/schema".split()
)
_FORMATS = frozenset("date-time time date duration email hostname ipv4 ipv6 uuid uri".split())


def refusal(message: str) -> InvalidRequestError:
    return InvalidRequestError(f"structured_outputs: {message}", param="structured_outputs")


def parse_json(text: str, what: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise refusal(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise refusal(f"{what} is not JSON: {error}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def checked_schema(schema: Any) -> dict[str, Any]:
    """The schema as it is compiled: without annotations, read as draft 2020-12, which is the strictest."""
    if schema is True:
        return {}
    if not isinstance(schema, dict):
        raise refusal("the schema must be an object")
    walk = _Walk(schema)
    result: dict[str, Any] = walk.visit(schema, "#", 0)
    for reference, place in walk.references:
        if reference not in walk.places:
            raise refusal(f"$ref {reference[:100]!r} at {place} does not lead to a schema of this document")
    return result


class _Walk:
    """One pass over a schema and all in it."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self.places: set[str] = set()  # JSON pointers of all schemas
        self.references: list[tuple[str, str]] = []  # (pointer, where it stands)

    def visit(self, schema: Any, place: str, depth: int) -> Any:
        self.places.add(place)
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise refusal(f"the schema at {place} must be an object or a boolean")
        if depth > MAX_DEPTH:
            raise refusal(f"the schema is nested deeper than {MAX_DEPTH} at {place}")
        kept: dict[str, Any] = {}
        for keyword, value in schema.items():
            self._take(kept, keyword, value, place, depth)
        _check_min_properties(schema, place)
        if "oneOf" in kept and self._exclude_each_other(schema["oneOf"]):
            kept = {("anyOf" if k == "oneOf" else k): v for k, v in kept.items()} if "anyOf" not in kept else kept
        return kept

    def _take(self, kept: dict[str, Any], keyword: str, value: Any, place: str, depth: int) -> None:
        here = f"{place}/{_escaped(keyword)}"
        if keyword in _MAPS and isinstance(value, dict):
            kept[keyword] = {k: self.visit(v, f"{here}/{_escaped(k)}", depth + 1) for k, v in value.items()}
        elif isinstance(value, list) and (keyword in _LISTS or keyword == "items"):
            kept[keyword] = [self.visit(v, f"{here}/{i}", depth + 1) for i, v in enumerate(value)]
        elif keyword in _SINGLE:
            kept[keyword] = self.visit(value, here, depth + 1)
        elif keyword in _PLAIN or keyword in _MAPS or keyword in _LISTS:
            kept[keyword] = value  # of a wrong type: the compiler says so
        elif keyword in _NUMBERS:
            _check_numbers(value, here)
            kept[keyword] = value
        elif keyword == "$ref":
            kept[keyword] = self._reference(value, here)
        elif keyword in ("pattern", "format"):
            (_check_pattern if keyword == "pattern" else _check_format)(value, here)
            kept[keyword] = value
        else:
            _check_annotation(keyword, value, place)

    def _reference(self, value: Any, here: str) -> str:
        if not isinstance(value, str) or not (value == "#" or value.startswith("#/")):
            raise refusal(f"{here}: only references into the same document (#/…) are followed, got {str(value)[:100]!r}")
        self.references.append((value, here))
        return value

    def _exclude_each_other(self, options: Any) -> bool:
        """Provably at most one of the options holds: their types differ, or a required property tells them apart."""
        if not isinstance(options, list):
            return False
        known = [self._resolved(option) for option in options]
        return all(_differ(self._marks(a), self._marks(b)) for a, b in combinations(known, 2))

    def _resolved(self, schema: Any) -> dict[str, Any]:
        for _ in range(8):
            if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
                break
            schema = self._at(schema["$ref"])
        return schema if isinstance(schema, dict) else {}

    def _at(self, pointer: str) -> Any:
        node: Any = self._root
        for part in pointer.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            node = node.get(name) if isinstance(node, dict) else None
        return node

    def _marks(self, schema: Mapping[str, Any]) -> tuple[set[str], dict[str, set[Any]]]:
        """(the types it allows, per required property the few values it may have)."""
        types = schema.get("type")
        properties, marks = schema.get("properties"), {}
        if types == "object" and isinstance(properties, dict):
            required = schema.get("required")
            for name in filter(_is_text, required if isinstance(required, list) else ()):
                values = _constants(self._resolved(properties.get(name)))
                if values is not None:
                    marks[name] = values
        return set(filter(_is_text, types if isinstance(types, list) else [types])), marks


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _constants(schema: Mapping[str, Any]) -> set[Any] | None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(values, list) or any(isinstance(value, dict | list) for value in values):
        return None
    return {(isinstance(value, bool), value) for value in values}  # 1 is 1.0 in JSON, but not true


def _differ(a: tuple[set[str], dict[str, set[Any]]], b: tuple[set[str], dict[str, set[Any]]]) -> bool:
    (types_a, marks_a), (types_b, marks_b) = a, b
    if types_a and types_b and not _widened(types_a) & _widened(types_b):
        return True
    return any(not values & marks_b[name] for name, values in marks_a.items() if name in marks_b)


def _widened(types: Iterable[str]) -> set[str]:
    return {"number" if name == "integer" else name for name in types}


def _check_annotation(keyword: str, value: Any, place: str) -> None:
    at_root = place == "#"
    if keyword in _ANNOTATIONS or (keyword in ("$id", "id") and at_root):
        return
    if keyword == "$schema":
        if str(value).rstrip("#").removeprefix("http://").removeprefix("https://") not in _DIALECTS:
            raise refusal(f"{place}/$schema names a dialect that is not known: {str(value)[:100]!r}")
    elif keyword.startswith("x-") and keyword != "x-guidance":
        return
    elif keyword in ("$id", "id"):
        raise refusal(f"{place}/{keyword}: only the whole schema may have an {keyword}")
    elif not any(value == neutral and type(value) is type(neutral) for neutral in _NEUTRAL.get(keyword, ())):
        raise refusal(f"the keyword {keyword[:100]!r} at {place} is not supported")


def _check_numbers(value: Any, place: str) -> None:
    """The compiler counts in doubles: what is not one would be rounded to another number."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict | list):
            stack += item.values() if isinstance(item, dict) else item
        elif isinstance(item, int) and abs(item) > 2**53:
            raise refusal(f"{place}: whole numbers beyond 2**53 cannot be held to exactly")


def _check_min_properties(schema: Mapping[str, Any], place: str) -> None:
    """Keys outside of `properties` may repeat, and a repeated one counts once."""
    least, required = schema.get("minProperties", 0), schema.get("required", ())
    if not isinstance(least, int) or least < 2 or not isinstance(required, list | tuple):
        return
    only_named = schema.get("additionalProperties") is False and not schema.get("patternProperties")
    if least > len(set(map(str, required))) and not only_named:
        raise refusal(f"{place}/minProperties above 1 is supported only where every property is named in `properties`")


def _check_format(value: Any, place: str) -> None:
    if not isinstance(value, str) or value not in _FORMATS:
        raise refusal(f"{place}: the format {str(value)[:100]!r} is not supported; known: {', '.join(sorted(_FORMATS))}")


def _check_pattern(value: Any, place: str) -> None:
    """Operators on character classes have a meaning in the compiler's syntax and none in JSON Schema's."""
    if not isinstance(value, str):
        raise refusal(f"{place} must be a string")
    at, in_class = 0, False
    while at < len(value):
        if value[at] == "\\":
            at += 2
            continue
        if in_class and (value[at] == "[" or value[at : at + 2] in ("&&", "--", "~~")):
            raise refusal(f"{place}: write {value[at]!r} in a character class with a backslash (character {at + 1})")
        if not in_class and value[at] == "[":
            in_class = True
            at += 2 if value[at + 1 : at + 2] == "^" else 1
            at += value[at : at + 1] == "]"  # the compiler takes a first ] as a member
            continue
        in_class &= value[at] != "]"
        at += 1


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
