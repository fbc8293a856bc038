"""Arguments as `<parameter=key>` elements, turned into the text of a JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from inferd.parsing.source import Markers, Reading, Source

_KEY_END = Markers([">"])
_VALUE_ENDS = Markers(["</parameter>", "<parameter=", "</function>", "</tool_call>"])


class ParameterTypes:
    """schema: of a tool's arguments. These formats write values without quotation marks: only the schema says what is
    a text."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        properties = schema.get("properties")
        self._properties = properties if isinstance(properties, Mapping) else {}

    def to_json(self, key: str, text: str) -> str:
        """The value that `text` stands for, as JSON; a text where it is nothing else."""
        schema = self._properties.get(key)
        kind = schema.get("type") if isinstance(schema, Mapping) else None
        if kind != "string":
            try:
                return json.dumps(json.loads(text), ensure_ascii=False)
            except (ValueError, RecursionError):
                pass
            if text in ("True", "False", "None"):
                return {"True": "true", "False": "false", "None": "null"}[text]
        return json.dumps(text, ensure_ascii=False)


def xml_arguments(source: Source, types: ParameterTypes, emit: Callable[[str], None]) -> Reading[None]:
    """From behind the name to behind `</function>`. A value that does not end stays open in the JSON as well."""
    emit("{")
    separator = ""
    while True:
        yield from source.space()
        if not (yield from source.takes("<parameter=")):
            yield from source.takes("</function>")
            break
        key, _ = yield from source.until(_KEY_END)
        text, end = yield from source.until(_VALUE_ENDS)
        emit(f"{separator}{json.dumps(key, ensure_ascii=False)}: ")
        separator = ", "
        if not end:
            emit(json.dumps(text.removeprefix("\n"), ensure_ascii=False)[:-1])
            return
        emit(types.to_json(key, text.removeprefix("\n").removesuffix("\n")))
        if end != "</parameter>":
            source.at -= len(end)
    emit("}")
