"""JSON schemas of the kinds that clients send: a small one, and random ones, each a function of its seed alone."""

from __future__ import annotations

import random
from typing import Any

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
FORMATS = ("date", "time", "date-time", "uuid", "ipv4", "email", "hostname", "duration", "uri")
PATTERNS = ("^[a-z]{1,5}$", "^\\d{3}-\\d{2}$", "ab|cd", "^(red|green|blue)$", "^[A-Z][a-z]*( [A-Z])?$", "^\\w+@x\\.y$")


def random_schema(seed: int) -> dict[str, Any]:
    rng = random.Random(f"schema {seed}")
    schema = _object(rng, 0) if rng.random() < 0.7 else _any(rng, 0)
    if rng.random() < 0.2:
        schema = _tree(rng) if rng.random() < 0.5 else _with_definitions(rng)
    return schema | ({"$schema": "https://json-schema.org/draft/2020-12/schema"} if rng.random() < 0.3 else {})


def _any(rng: random.Random, depth: int) -> dict[str, Any]:
    scalars = (_string, _number, _constant, _flag)
    return rng.choice(scalars if depth > 2 else (*scalars, _string, _object, _array, _union, _both))(rng, depth)


def _string(rng: random.Random, depth: int) -> dict[str, Any]:
    shape = rng.randrange(4)
    if shape == 0:
        return {"type": "string", "pattern": rng.choice(PATTERNS), "maxLength": 12}
    if shape == 1:
        return {"type": "string", "format": rng.choice(FORMATS)}
    low = rng.randrange(4)
    return {"type": "string", "minLength": low, "maxLength": low + rng.randrange(8)}


def _number(rng: random.Random, depth: int) -> dict[str, Any]:
    low = rng.randint(-1000, 1000)
    if rng.random() < 0.5:
        limits = {"minimum": low, "maximum": low + rng.randrange(500)}
        return {"type": "integer", **limits} | ({"multipleOf": 1} if rng.random() < 0.2 else {})
    words = rng.choice((("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")))
    return {"type": "number", words[0]: low / 8, words[1]: low / 8 + rng.choice((0.5, 1, 3, 1000))}


def _constant(rng: random.Random, depth: int) -> dict[str, Any]:
    values = [None, True, -3, 2.5, "text", 'q"\\\n', "é😀", [1, "a"], {"k": [None]}]
    return {"const": rng.choice(values)} if rng.random() < 0.3 else {"enum": rng.sample(values, rng.randint(1, 5))}


def _flag(rng: random.Random, depth: int) -> dict[str, Any]:
    return {"type": rng.choice(("boolean", "null", ["boolean", "null"]))}


def _object(rng: random.Random, depth: int) -> dict[str, Any]:
    names = rng.sample(["name", "age", "a b", "é", 'quo"te', "tags", "x/y", "id"], rng.randint(0, 4))
    schema: dict[str, Any] = {"type": "object", "properties": {name: _any(rng, depth + 1) for name in names}}
    schema["required"] = [name for name in names if rng.random() < 0.7]
    shape = rng.randrange(4)
    if shape < 2:
        schema["additionalProperties"] = False
    elif shape == 2:
        schema |= {"additionalProperties": _number(rng, depth), "maxProperties": len(schema["required"]) + 2}
        schema["properties"] = {name: schema["properties"][name] for name in schema["required"]}
    else:
        schema |= {"patternProperties": {"^x-[a-z]{1,3}$": _flag(rng, depth)}, "additionalProperties": False}
    return schema


def _array(rng: random.Random, depth: int) -> dict[str, Any]:
    low = rng.randrange(3)
    schema: dict[str, Any] = {"type": "array", "items": _any(rng, depth + 1), "minItems": low, "maxItems": low + 2}
    if rng.random() < 0.3:
        schema["prefixItems"] = [_any(rng, depth + 1) for _ in range(rng.randint(1, 2))]
    return schema


def _union(rng: random.Random, depth: int) -> dict[str, Any]:
    if rng.random() < 0.5:
        return {"anyOf": [_any(rng, depth + 1) for _ in range(rng.randint(1, 3))]}
    kinds = rng.sample(["cat", "dog", "bird"], 2)
    return {"oneOf": [_tagged(rng, kind) for kind in kinds]}


def _tagged(rng: random.Random, kind: str) -> dict[str, Any]:
    properties = {"kind": {"const": kind}, "of": _number(rng, 9)}
    return {"type": "object", "properties": properties, "required": ["kind", "of"], "additionalProperties": False}


def _both(rng: random.Random, depth: int) -> dict[str, Any]:
    first, second = rng.sample(["a", "b", "c"], 2)
    parts = [{"type": "object", "properties": {n: _any(rng, depth + 1)}, "required": [n]} for n in (first, second)]
    return {"allOf": parts, "maxProperties": 3}


def _with_definitions(rng: random.Random) -> dict[str, Any]:
    definitions = {"one": _any(rng, 1), "two/three": _object(rng, 2)}
    properties = {"p": {"$ref": "#/$defs/one"}, "q": {"$ref": "#/$defs/two~1three"}}
    return {"type": "object", "properties": properties, "required": ["p"], "$defs": definitions}


def _tree(rng: random.Random) -> dict[str, Any]:
    node = {
        "type": "object",
        "properties": {"v": _number(rng, 9), "left": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}},
    }
    return {"$ref": "#/$defs/n", "$defs": {"n": {**node, "required": ["v", "left"], "additionalProperties": False}}}
