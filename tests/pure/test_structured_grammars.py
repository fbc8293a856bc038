"""What structured outputs hold to, and that the rest is refused by name."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inferd.errors import InvalidRequestError
from inferd.structured.compiler import Grammar, GrammarCompiler
from inferd.types import StructuredOutputs
from support.tiny_engine import EOS, tiny_tokenizer

BOS = 257
SUITE = Path(__file__).parents[1] / "golden" / "schema_suite.json"
# Where the suite says no and the grammar yes: formats are held to in shape (a 29th of February in any year, a 60th
# second in any minute, a label in Punycode unread), and U+FEFF is a space only to ECMAScript.
KNOWN_AS_LOOSER = {f"optional/format/{name}" for name in ("date", "date-time", "time", "hostname")}


@pytest.fixture(scope="module")
def compiler() -> Iterator[GrammarCompiler]:
    one = GrammarCompiler(tiny_tokenizer())
    yield one
    one.close()


def asked(kind: str, value: Any) -> StructuredOutputs:
    return StructuredOutputs(kind=kind, value=value if isinstance(value, str) else json.dumps(value))  # type: ignore[arg-type]


def accepts(grammar: Grammar, text: str | list[int]) -> bool:
    """Whether an output may be exactly this; ids of tiny_tokenizer are bytes."""
    matcher = grammar.matcher()
    for token in text if isinstance(text, list) else text.encode():
        if matcher.is_complete or not _allows(matcher.masks()[0], token):
            return False
        matcher.advance(token)
        assert matcher.error == ""
    return matcher.is_complete or _allows(matcher.masks()[0], EOS)


def _allows(mask: Any, token: int) -> bool:
    return bool(mask[token >> 5] >> (token & 31) & 1)


TAG = {"begin": "<f>", "schema": {"type": "integer"}, "end": "</f>"}
UNION = {"$defs": {n: {"type": "object", "properties": {"k": {"const": n}}, "required": ["k"]} for n in ("a", "b")}}

TAKEN: list[tuple[str, Any, list[Any], list[Any]]] = [  # kind, value, texts it allows, texts it does not
    ("json_object", "", ["{}", '{"a": [1, "\\n", {}]}'], ["[]", "{} ", "1", '{"a":   1}']),
    ("json_schema", {"type": "integer", "minimum": 3}, ["3", "12"], ["2", "3.5", '"3"']),
    ("json_schema", True, ["1", "null"], ["nul"]),
    ("json_schema", {"oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}], **UNION}, ['{"k":"b"}'], ['{"k":"c"}']),
    ("json_schema", {"type": "object", "propertyNames": {"type": "string"}, "uniqueItems": False}, ["{}"], ["1"]),
    ("json_schema", {"$schema": "http://json-schema.org/draft-04/schema#", "const": 5}, ["5"], ["6"]),
    ("json_schema", {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "null"}}}, ["null"], ["1"]),
    ("json_schema", {"title": "t", "x-order": 1, "discriminator": {}, "type": "null"}, ["null"], ["1"]),
    # a key spelled with an escape would not be the key whose schema is known
    ("json_schema", {"properties": {"a": {"const": 2}}, "type": "object"}, ['{"b":1}'], ['{"a":1}', r'{"\u0061":1}']),
    ("regex", "a/b\\/[0-9]{2}", ["a/b/12"], ["a/b/1", "xa/b/12"]),
    ("regex", "^(yes|no)$", ["yes"], ["yesno"]),
    ("choice", ["yes", "yes sir", 'q"\\\n\x01é😀'], ["yes", "yes sir", 'q"\\\n\x01é😀'], ["yes ", "no"]),
    ("grammar", 'start: "a" B+\nB: /[0-9]/', ["a1", "a123"], ["a", "1"]),
    ("grammar", 'start: %json {"type": "integer"} "x"', ["12x"], ["12", "x"]),
    ("grammar", 'root ::= "a\\u00e9" [x-z]+ | foo\nfoo ::= "\\"q\\""', ["aéxy", '"q"'], ["aé", "q"]),
    ("lazy", [TAG], ["", "hi", "hi<f>1</f>", "<f>1</f>\nand<f>22</f>!"], ["<f>", "<f>x", "<f>1</f", "a<f>1 b"]),
    ("lazy", [TAG, {**TAG, "schema": {"type": "null"}}], ["<f>1</f>", "<f>null</f>"], ["<f>true</f>"]),
    ("lazy", [{"begin": "<bos>", "schema": True, "end": "<eos>"}], [[97, BOS, 49], "a"], [[BOS], [BOS, 97]]),
]  # fmt: skip

REFUSED: list[tuple[str, Any, str]] = [  # kind, value, what the message names
    ("json_schema", "{nope", "not JSON"),
    ("json_schema", '{"const": NaN}', "not JSON"),
    ("json_schema", "[1]", "must be an object"),
    ("json_schema", False, "must be an object"),
    ("json_schema", "[" * 100_000, "nested too deeply"),
    ("json_schema", '{"items":' * 70 + "{}" + "}" * 70, "nested deeper than 64"),
    ("json_schema", {"type": "string", "maxLenght": 3}, "'maxLenght' at #"),
    ("json_schema", {"properties": {"a": {"not": {}}}}, "'not' at #/properties/a"),
    *[("json_schema", {"type": "array", word: value}, f"'{word}'") for word, value in {
        "uniqueItems": True, "contains": {}, "if": {}, "then": {}, "dependentRequired": {"a": ["b"]}, "nullable": True,
        "unevaluatedItems": False, "propertyNames": {"pattern": "a"}, "dependencies": {"a": ["b"]}, "x-guidance": {},
        "$dynamicRef": "#a", "minContains": 1,
    }.items()],
    ("json_schema", {"$schema": "https://example.com/mine"}, "dialect"),
    ("json_schema", {"items": {"$id": "x"}}, "$id"),
    ("json_schema", {"$ref": "https://example.com/s"}, "#/$ref"),
    ("json_schema", {"$ref": "#/default", "default": {}}, "'#/default'"),
    ("json_schema", {"type": "string", "format": "int32"}, "'int32'"),
    ("json_schema", {"type": "string", "pattern": "[a-z&&[^b]]"}, "#/pattern"),
    ("json_schema", {"type": "string", "pattern": "a(?=b)"}, "look-around"),
    ("json_schema", {"type": "string", "pattern": "a\\x00b"}, "control characters"),
    ("json_schema", {"type": "string", "pattern": "a[\\x1f]"}, "control characters"),
    ("json_schema", {"enum": ["a\x00b"]}, "control characters"),
    ("json_schema", {"const": 2**53 + 1}, "#/const"),
    ("json_schema", {"type": "integer", "maximum": 2**60}, "#/maximum"),
    ("json_schema", {"type": "object", "minProperties": 2}, "minProperties"),
    ("json_schema", {"type": "number", "exclusiveMinimum": 2, "maximum": 2.5}, "less than 1 apart"),
    ("json_schema", {"allOf": [{"type": "number", "exclusiveMaximum": -1}, {"minimum": -1.5}]}, "less than 1 apart"),
    ("json_schema", {"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
    ("json_schema", {"type": "integer", "minimum": 5, "maximum": 4}, "nsatisfiable"),
    ("json_schema", {"$ref": "#"}, "nothing satisfies"),
    ("json_schema", {"type": "bogus"}, "bogus"),
    ("json_schema", {"type": "integer", "multipleOf": 999983, "minimum": 1, "maximum": 10**15}, "fuel"),
    ("regex", "", "empty"),
    ("regex", "(", "unclosed group"),
    ("regex", "a$b", "End"),
    ("choice", "[1", "not JSON"),
    ("choice", [], "1 to"),
    ("choice", ["a", ""], "choice[1]"),
    ("grammar", " ", "empty"),
    ("grammar", "start: b", "unknown name"),
    ("grammar", '{"grammars": []}', "Lark or GBNF"),
    ("grammar", "start: a\na[temperature=1]: /x/", "'temperature' of a rule is not supported (line 2)"),
    ("grammar", 'start: %json {"type": "string", "maxLenght": 3}', "'maxLenght'"),
    ("grammar", "start: %json {", "line 1"),
    ("grammar", '%llguidance {"no_forcing": true}\nstart: "a"', "%llguidance"),
    ("grammar", 'start: a\na: "x" a', "Too many items"),
    ("grammar", "root ::= foo", "'foo' not found"),
    ("grammar", 'root ::= "\\u0041b"', "\\u0041"),
    ("lazy", [], "1 to"),
    ("lazy", [{"begin": "a", "schema": {}}], "lazy[0]"),
    ("lazy", [{**TAG, "begin": ""}], "lazy[0]"),
    ("lazy", [{**TAG, "schema": {"not": {}}}], "'not'"),
    ("lazy", [TAG, {**TAG, "end": "x"}], "two different ends"),
    ("lazy", [TAG, {**TAG, "begin": "<f"}], "never reached"),
    ("lazy", [{**TAG, "begin": "a<bos>"}], "control token only at its start"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "good", "bad"), TAKEN)
def test_what_is_taken_is_held_to(
    compiler: GrammarCompiler, kind: str, value: Any, good: list[Any], bad: list[Any]
) -> None:
    grammar = compiler.compile(asked(kind, value))
    assert [text for text in good if not accepts(grammar, text)] == []
    assert [text for text in bad if accepts(grammar, text)] == []


@pytest.mark.parametrize(("kind", "value", "named"), REFUSED)
def test_what_cannot_be_held_to_is_refused_by_name(
    compiler: GrammarCompiler, kind: str, value: Any, named: str
) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        compiler.compile(asked(kind, value))
    assert named in refusal.value.message
    assert refusal.value.param == "structured_outputs"
    assert len(refusal.value.message) < 400


def test_nothing_invalid_of_the_public_suite_is_accepted(compiler: GrammarCompiler) -> None:
    num_taken = num_valid = num_accepted = 0
    for name, schema, instances in json.loads(SUITE.read_text("utf-8")):
        try:
            grammar = compiler.compile(asked("json_schema", schema))
        except InvalidRequestError:
            continue
        num_taken += 1
        for instance, is_valid in instances:
            is_accepted = accepts(grammar, json.dumps(instance, ensure_ascii=False))
            num_valid += is_valid
            num_accepted += is_valid and is_accepted
            if is_accepted and not is_valid:
                assert name in KNOWN_AS_LOOSER or instance == "\ufeff", (name, schema, instance)
    assert num_taken >= 185
    assert num_accepted >= 0.93 * num_valid  # the rest: keys in another order, 1.0 for 1, quoted local parts of email


def test_masks_after_guesses_are_those_without(compiler: GrammarCompiler) -> None:
    grammar = compiler.compile(asked("json_schema", {"type": "array", "items": {"enum": ["ab", "ac"]}, "minItems": 2}))
    guesses = list(b'["ab","ac"')
    together, single = grammar.matcher(), grammar.matcher()
    rows = together.masks(guesses)
    for at, token in enumerate(guesses):
        assert (single.masks()[0] == rows[at]).all()
        single.advance(token)
    assert (together.masks()[0] == rows[0]).all()  # nothing was consumed
    assert together.cut([*guesses, EOS, 1]) == tuple(guesses)
    assert together.cut(list(b'["ax')) == tuple(b'["a')
    assert together.forced() == tuple(b"[")


def test_equal_requests_share_a_grammar_until_it_is_worn(compiler: GrammarCompiler) -> None:
    first = compiler.compile(asked("regex", "[a-f]+"))
    assert compiler.compile(asked("regex", "[a-f]+")) is first
    worn = compiler.compile(asked("regex", "(a{0,65535}){0,65535}b"))  # its lexer meets the limit on expressions
    matcher = worn.matcher()
    for _ in range(200):
        matcher.masks()
        matcher.advance(ord("a"))
    assert matcher.error.startswith("structured_outputs: lexer error")
    assert compiler.compile(asked("regex", worn.value)) is not worn


def test_a_hostile_grammar_costs_its_child_and_nobody_else() -> None:
    compiler = GrammarCompiler(tiny_tokenizer())
    wide = {f"p{i}": {"type": "string", "pattern": f"^[a-z]{{{i},}}$"} for i in range(4000)}
    with pytest.raises(InvalidRequestError, match=r"too long|too large|too deeply|Too many|items"):
        compiler.compile(asked("json_schema", {"type": "object", "properties": wide}))
    assert accepts(compiler.compile(asked("choice", ["a"])), "a")
    assert compiler._sandbox is not None
    assert compiler._sandbox._child is not None
    child = compiler._sandbox._child
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert accepts(compiler.compile(asked("choice", ["b"])), "b")
    compiler.close()
