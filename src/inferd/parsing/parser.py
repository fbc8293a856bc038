"""The streaming parser of a model's output: content, reasoning and calls of tools, by the tables of formats.py."""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Mapping
from typing import Any

from inferd.parsing.code import calls_of
from inferd.parsing.deltas import Content, Delta, Reasoning, ToolCallArguments, ToolCallBegin
from inferd.parsing.formats import (
    CHANNEL_BEGINS,
    CHANNEL_ENDS,
    CHANNEL_TEXT,
    CallSyntax,
    ReasoningFormat,
    ToolFormat,
)
from inferd.parsing.source import Markers, Reading, Source
from inferd.parsing.xml import ParameterTypes, xml_arguments

MAX_HEADER_LEN = 256
MAX_CODE_LEN = 2**16
_ID_CHARACTERS = string.ascii_letters + string.digits
_RECIPIENT = re.compile(r"to=(?:functions\.)?([\w.-]+)")
_CALL_KEYS = frozenset(("name", "arguments", "parameters", "function", "type", "id"))
_BRACE = Markers(["{"])
_CHANNEL_TEXT = Markers([CHANNEL_TEXT])

Tools = Mapping[str, Mapping[str, Any]]  # name -> the JSON schema of its arguments


class OutputParser:
    """Text in pieces of any size, deltas out. The deltas do not depend on where the text was cut but in their sizes.

    tools: those that were offered; without them, or without a format, calls are content. opens_reasoning: the prompt
    ended inside of the reasoning. hidden: texts of control tokens, which are taken out. max_calls: what the model
    writes beyond is dropped. A call that cannot be read is content; one that breaks after its name and the begin of
    its arguments were passed on goes on as arguments, as the model wrote them.
    """

    def __init__(
        self,
        tool_format: ToolFormat | None = None,
        reasoning: ReasoningFormat | None = None,
        *,
        tools: Tools | None = None,
        opens_reasoning: bool = False,
        hidden: frozenset[str] = frozenset(),
        max_calls: int | None = None,
    ) -> None:
        self.num_tool_calls = 0
        self.is_reasoning = opens_reasoning
        self._format = tool_format
        self._reasoning = reasoning
        self._tools = tools or {}
        self._max_calls = max_calls
        self._source = Source()
        self._deltas: list[Delta] = []
        self._gap = ""  # white space that is shown only if content follows
        self._has_content = False
        syntaxes = tool_format.calls if tool_format and tools else ()
        self._bare = next((syntax for syntax in syntaxes if not syntax.begin), None)
        self._by_begin = {syntax.begin: syntax for syntax in syntaxes if syntax.begin}
        self._ignored = hidden.union(tool_format.ignored if tool_format and tools else ()) - self._by_begin.keys()
        self._markers = Markers([*self._by_begin, *self._ignored])
        has_channels = tool_format is not None and tool_format.has_channels
        self._is_plain = not (has_channels or reasoning or syntaxes or hidden)
        self._reader = self._read_channels() if has_channels else self._read()
        self._is_started = False

    def push(self, text: str) -> list[Delta]:
        if self._is_plain:
            return [Content(text)] if text else []
        self._source.add(text)
        return self._run()

    def finish(self) -> list[Delta]:
        """What is still held back when the model has ended."""
        if self._is_plain:
            return []
        self._source.is_complete = True
        return self._run()

    def _run(self) -> list[Delta]:
        next(self._reader, None)
        deltas, self._deltas = self._deltas, []
        return deltas

    def _read(self) -> Reading[None]:
        if self._reasoning is not None:
            yield from self._read_reasoning(self._reasoning)
        yield from self._read_bare()
        while (marker := (yield from self._read_text(self._markers))) is not None:
            if marker in self._ignored:
                continue
            if (yield from self._read_call(self._by_begin[marker])):
                yield from self._read_bare()
            else:
                self._show(marker)

    def _read_reasoning(self, reasoning: ReasoningFormat) -> Reading[None]:
        """At the beginning of a message only: further on its marker is a word like any other."""
        source = self._source
        source.hold()
        yield from source.space()
        has_begun = yield from source.takes(reasoning.begin)
        if not has_begun and not self.is_reasoning:
            source.rewind()
            return
        source.release()
        self.is_reasoning = True
        yield from source.space()
        yield from self._read_text(Markers([reasoning.end, *self._ignored]), stop=reasoning.end)
        self.is_reasoning = False
        yield from source.space()

    def _read_bare(self) -> Reading[None]:
        """Calls without a marker, as long as they follow one another."""
        while self._bare is not None and (yield from self._read_call(self._bare)):
            pass

    def _read_text(self, markers: Markers, stop: str | None = None) -> Reading[str | None]:
        """Passes text on up to a marker, the cursor behind it; None at the end. White space before a marker is kept
        back. stop: pass over all markers but this one."""
        source = self._source
        while True:
            match = markers.search(source.text, source.at)
            end = match.start() if match else markers.safe_end(source.text, source.at)
            text = source.text[source.at : end]
            shown = text.rstrip()
            self._show(shown)
            if match:
                self._gap = self._gap or text[len(shown) :]
                source.at = match.end()
                if stop is None or match.group() == stop:
                    self._gap = "" if self.is_reasoning else self._gap
                    return match.group()
                continue
            source.at += len(shown)
            if not (yield from source.more()):
                self._show(source.text[source.at :])
                source.at = len(source.text)
                return None

    def _read_call(self, syntax: CallSyntax) -> Reading[bool]:
        """One call or several, from behind its marker; False, and nothing read, where there is none."""
        source = self._source
        source.hold()
        yield from source.space()
        if self.num_tool_calls and not syntax.begin and (yield from source.peek()) in (",", ";"):
            source.at += 1
            yield from source.space()
        if syntax.body == "xml":
            is_call = yield from self._read_xml(syntax)
        elif syntax.body == "code":
            is_call = yield from self._read_code(syntax)
        else:
            is_call = yield from self._read_json(syntax)
        if not is_call:
            source.rewind()
            return False
        source.release()
        gap = yield from source.space()
        for end in syntax.ends:
            if (yield from source.takes(end)):
                gap = (yield from source.space()) or gap
        self._gap = self._gap or gap
        return True

    def _read_json(self, syntax: CallSyntax) -> Reading[bool]:
        first = yield from self._source.peek()
        if first == "{":
            return (yield from self._read_object(syntax))
        if first == "[":
            return (yield from self._read_list(syntax))
        if syntax.header is None:
            return False
        header, brace = yield from self._source.until(_BRACE, MAX_HEADER_LEN)
        match = syntax.header.fullmatch(header)
        if not brace or match is None:
            return False
        self._source.at -= 1
        self._begin(match["name"])
        yield from self._read_arguments(syntax)
        return True

    def _read_list(self, syntax: CallSyntax) -> Reading[bool]:
        """Objects in brackets. What follows the last that can be read is content."""
        source = self._source
        source.at += 1
        num_read = 0
        while True:
            yield from source.space()
            if num_read and (yield from source.takes("]")):
                return True
            if num_read:
                yield from source.takes(",")
                yield from source.space()
                source.hold()
            if (yield from source.peek()) != "{" or not (yield from self._read_object(syntax)):
                if num_read:
                    source.rewind()
                return num_read > 0
            num_read += 1

    def _read_object(self, syntax: CallSyntax) -> Reading[bool]:
        """{"name": …, "arguments": {…}}, the keys in any order. The call begins when its name and the begin of its
        arguments were read, or the whole object."""
        source = self._source
        source.at += 1
        name: str | None = None
        arguments: str | None = "{}"
        has_begun = False
        while True:
            yield from source.space()
            key = yield from source.string()
            yield from source.space()
            if key is None or not (yield from source.takes(":")):
                is_over = key is None and (yield from source.takes("}"))
                break
            yield from source.space()
            if has_begun:
                yield from source.value()
            elif syntax.is_vague and key not in _CALL_KEYS:
                return False
            elif key in ("name", "function") and name is None:
                name = yield from source.string()
                if not name or (syntax.is_vague and name not in self._tools):
                    return False
            elif key in ("arguments", "parameters"):
                if name is not None and (yield from source.peek()) == "{":
                    has_begun = True
                    self._begin(name)
                    if not (yield from self._read_arguments(syntax)):
                        return True
                else:
                    arguments = _as_arguments((yield from source.value()))
            elif (yield from source.value()) is None:
                return False
            yield from source.space()
            yield from source.takes(",")
        if has_begun:
            return True
        if not is_over or name is None or arguments is None:
            return False
        self._begin(name)
        self._argue(arguments)
        return True

    def _read_arguments(self, syntax: CallSyntax) -> Reading[bool]:
        """Of the call that has begun; False where they are broken: then all up to the call's end belongs to them."""
        if (yield from self._source.container(self._argue)):
            return True
        source = self._source
        text, end = yield from source.until(Markers(syntax.ends))
        self._argue(text)
        source.at -= len(end)
        return False

    def _read_xml(self, syntax: CallSyntax) -> Reading[bool]:
        source = self._source
        if syntax.begin != "<function=" and not (yield from source.takes("<function=")):
            return False
        name, end = yield from source.until(Markers([">"]), MAX_HEADER_LEN)
        if not end or not name.strip():
            return False
        name = name.strip()
        self._begin(name)
        yield from xml_arguments(source, ParameterTypes(self._tools.get(name, {})), self._argue)
        return True

    def _read_code(self, syntax: CallSyntax) -> Reading[bool]:
        text, end = yield from self._source.until(Markers(syntax.ends), MAX_CODE_LEN)
        calls = calls_of(text) if end else []
        for name, arguments in calls:
            self._begin(name)
            self._argue(json.dumps(arguments, ensure_ascii=False))
        return bool(calls)

    def _read_channels(self) -> Reading[None]:
        source = self._source
        markers = Markers((*CHANNEL_BEGINS, *CHANNEL_ENDS))
        while (marker := (yield from self._read_text(markers))) is not None:
            self.is_reasoning = False
            if marker in CHANNEL_ENDS:
                continue
            source.hold()
            header, end = yield from source.until(_CHANNEL_TEXT, MAX_HEADER_LEN)
            recipient = _RECIPIENT.search(header)
            if not end:
                source.rewind()
                self._show(marker)
                continue
            source.release()
            if recipient is not None and self._tools:
                self._begin(recipient[1])
                text, end = yield from source.until(Markers(CHANNEL_ENDS))
                self._argue(text.strip())
            else:
                self.is_reasoning = "analysis" in header

    def _begin(self, name: str) -> None:
        """A call is certain: nothing of it is content any more."""
        self._source.release()
        self.num_tool_calls += 1
        if not self._is_dropped:
            self._deltas.append(ToolCallBegin(self.num_tool_calls - 1, self._new_id(), name))

    def _argue(self, text: str) -> None:
        if not text or self._is_dropped:
            return
        index, last = self.num_tool_calls - 1, self._deltas[-1] if self._deltas else None
        if isinstance(last, ToolCallArguments) and last.index == index:
            self._deltas[-1] = ToolCallArguments(index, last.text + text)
        else:
            self._deltas.append(ToolCallArguments(index, text))

    def _show(self, text: str) -> None:
        if not text:
            return
        if self._gap and (self._has_content or not self.num_tool_calls):
            text = self._gap + text
        self._gap = ""
        if self.is_reasoning:
            self._deltas.append(Reasoning(text))
        else:
            self._has_content = True
            self._deltas.append(Content(text))

    @property
    def _is_dropped(self) -> bool:
        return self._max_calls is not None and self.num_tool_calls > self._max_calls

    def _new_id(self) -> str:
        size = self._format.id_len if self._format else None
        letters = "".join(secrets.choice(_ID_CHARACTERS) for _ in range(size or 24))
        return letters if size else f"call_{letters}"


def _as_arguments(value: str | None) -> str | None:
    """The text of an object: as it stands, as text within a text, or {} for null."""
    if value == "null":
        return "{}"
    if value is None or value.startswith("{"):
        return value
    try:
        inner = json.loads(value, strict=False)
        is_object = isinstance(inner, str) and isinstance(json.loads(inner), dict)
    except (ValueError, RecursionError):
        return None
    return inner if is_object else None
