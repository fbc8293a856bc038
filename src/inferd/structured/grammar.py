"""StructuredOutputs -> a grammar of llguidance, or a refusal that names what cannot be held to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inferd.structured import lark
from inferd.structured.schema import checked_schema, parse_json, refusal

MAX_CHOICES = 10_000
MAX_TAGS = 256


@dataclass(frozen=True, slots=True)
class Controls:
    """The control tokens of a vocabulary: a marker may be one of them, and free text may hold any."""

    ids: Mapping[str, int]  # text -> id
    eos_token_ids: frozenset[int]

    def pieces(self, text: str) -> list[str | int]:
        """text cut at its control tokens: plain texts and ids, in order. The longest token where several begin."""
        found: list[str | int] = []
        by_length = sorted(self.ids, key=len, reverse=True)
        at = begin = 0
        while at < len(text):
            name = next((name for name in by_length if name and text.startswith(name, at)), None)
            if name is None:
                at += 1
                continue
            found += [*([text[begin:at]] if at > begin else []), self.ids[name]]
            at = begin = at + len(name)
        return [*found, text[begin:]] if begin < len(text) else found


def to_grammar(kind: str, value: str, controls: Controls) -> str:
    """Raises InvalidRequestError. The result may still be refused by the compiler."""
    if kind == "json_object":
        return _of_schema({"type": "object"})
    if kind == "json_schema":
        return _of_schema(checked_schema(parse_json(value, "the schema")))
    if kind == "regex":
        return json.dumps({"grammars": [{"lark_grammar": f"start: /{_slashes_escaped(value)}/"}]})
    if kind == "choice":
        return "start: " + " | ".join(map(lark.literal, _choices(value)))
    if kind == "grammar":
        return lark.from_user(value)
    return _lazy(value, controls)


def _of_schema(schema: dict[str, Any]) -> str:
    return json.dumps({"grammars": [{"json_schema": lark.with_options(schema)}]})


def _slashes_escaped(regex: str) -> str:
    if not regex:
        raise refusal("the regex is empty")
    if "\n" in regex:
        raise refusal("write a line break in a regex as \\n")
    out, escaped = [], False
    for character in regex:
        out.append("\\/" if character == "/" and not escaped else character)
        escaped = character == "\\" and not escaped
    return "".join(out)


def _choices(value: str) -> list[str]:
    choices = parse_json(value, "choice")
    if not isinstance(choices, list) or not 0 < len(choices) <= MAX_CHOICES:
        raise refusal(f"choice must be a list of 1 to {MAX_CHOICES} texts")
    for index, choice in enumerate(choices):
        if not isinstance(choice, str) or not choice:
            raise refusal(f"choice[{index}] must be a text of at least one character")
    return choices


def _lazy(value: str, controls: Controls) -> str:
    """Free text in which a `begin` binds what follows. A lazy lexeme ends at the first `begin`, so that the tag is the
    only way on; control tokens are no text to the compiler and are listed."""
    tags = _tags(value)
    rules, starts, lasts = [], [], ["TEXT"]
    first_ids: set[int] = set()
    for at, (begin, bodies, end) in enumerate(tags):
        pieces = controls.pieces(begin)
        body = f"b{at}"
        ending, is_last = _ending(end, controls)
        rules.append(f"{body}: ({' | '.join(map(lark.json_rule, bodies))}) {ending}")
        rules.append(f"h{at}[lazy]: TEXT {lark.literal(begin)}")
        options = [f"h{at} {body}"]
        if any(isinstance(piece, int) for piece in pieces[1:]):
            raise refusal(f"a begin may hold a control token only at its start: {begin[:100]!r}")
        if isinstance(pieces[0], int):
            first_ids.add(pieces[0])
            options.append(f"TEXT {_sequence(pieces)} {body}")
        (lasts if is_last else starts).extend(options)
    free = set(controls.ids.values()) - controls.eos_token_ids - first_ids
    starts += [f"TEXT <[{_ranges(free)}]>"] if free else []
    item = [f"item: {' | '.join(starts)}"] if starts else []
    begin_rule = f"start: {'item* ' if starts else ''}last"
    return "\n".join([begin_rule, f"last: {' | '.join(lasts)}", *item, "TEXT: /(?s:.*)/", *rules]) + "\n"


def _tags(value: str) -> list[tuple[str, list[dict[str, Any]], str]]:
    """(begin, checked schemas, end); entries with the same begin and end are one with several schemas."""
    entries = parse_json(value, "lazy")
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_TAGS:
        raise refusal(f"lazy must be a list of 1 to {MAX_TAGS} objects")
    tags: dict[str, tuple[list[dict[str, Any]], str]] = {}
    for at, entry in enumerate(entries):
        if not isinstance(entry, dict) or set(entry) != {"begin", "schema", "end"}:
            raise refusal(f"lazy[{at}] must have begin, schema and end and nothing else")
        begin, end = entry["begin"], entry["end"]
        if not isinstance(begin, str) or not begin or not isinstance(end, str):
            raise refusal(f"lazy[{at}]: begin must be a text of at least one character, end a text")
        bodies, known_end = tags.setdefault(begin, ([], end))
        if known_end != end:
            raise refusal(f"lazy[{at}]: the same begin {begin[:100]!r} has two different ends")
        bodies.append(checked_schema(entry["schema"]))
    for begin in tags:
        inner = next((other for other in tags if other != begin and other in begin), None)
        if inner is not None:
            raise refusal(f"lazy: the begin {begin[:100]!r} is never reached: it holds the begin {inner[:100]!r}")
    return [(begin, bodies, end) for begin, (bodies, end) in tags.items()]


def _ending(end: str, controls: Controls) -> tuple[str, bool]:
    """(the expression of an end, whether the output is over with it: it has a token that ends every output)."""
    pieces = controls.pieces(end)
    cut = next((at for at, piece in enumerate(pieces) if piece in controls.eos_token_ids), None)
    return _sequence(pieces[:cut]), cut is not None


def _sequence(pieces: Sequence[str | int]) -> str:
    return " ".join(lark.literal(piece) if isinstance(piece, str) else f"<[{piece}]>" for piece in pieces)


def _ranges(ids: Iterable[int]) -> str:
    """3, 4, 5, 9 -> "3-5,9"."""
    runs: list[list[int]] = []
    for number in sorted(ids):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{low}-{high}" if low < high else str(low) for low, high in runs)
