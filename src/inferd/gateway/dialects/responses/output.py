"""What a model writes as output items, and the events of a stream that tell of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from inferd.gateway.dialects.responses.items import encrypted, new_id
from inferd.gateway.segments import Closed, Kind, Opened, Part, Piece, Segments
from inferd.parsing.deltas import Delta

Event = dict[str, Any]
Item = dict[str, Any]
_DELTAS: dict[Kind, str] = {  # kind of segment -> its events, .delta and .done
    "text": "response.output_text",
    "reasoning": "response.reasoning_text",
    "call": "response.function_call_arguments",
}


class Output:
    """Items as they come to be. Events lack only their sequence_number."""

    def __init__(self, *, is_encrypted: bool) -> None:
        """is_encrypted: items of reasoning carry encrypted_content."""
        self.items: list[Item] = []
        self._segments = Segments()
        self._is_encrypted = is_encrypted
        self._kind: Kind = "text"

    def push(self, deltas: Iterable[Delta]) -> list[Event]:
        return self._events(self._segments.push(deltas), "completed")

    def close(self, status: str) -> list[Event]:
        """Ends the item that is open. status: completed, or incomplete when it was cut off."""
        return self._events(self._segments.close(), status)

    def _events(self, parts: Iterable[Part], status: str) -> list[Event]:
        return [event for part in parts for event in self._of(part, status)]

    def _of(self, part: Part, status: str) -> list[Event]:
        if isinstance(part, Opened):
            return self._open(part)
        if isinstance(part, Piece):
            return [self._event(f"{_DELTAS[self._kind]}.delta", self._text_fields("delta", part.text))]
        return self._close(part, status)

    def _open(self, opened: Opened) -> list[Event]:
        self._kind = opened.kind
        item = _item(opened)
        self.items.append(item)
        added = self._item_event("response.output_item.added")
        if opened.kind == "call":
            return [added]
        return [added, self._event("response.content_part.added", {"content_index": 0, "part": self._part("")})]

    def _close(self, closed: Closed, status: str) -> list[Event]:
        item = self.items[-1]
        item["status"] = status
        name = "arguments" if closed.kind == "call" else "text"
        events = [self._event(f"{_DELTAS[closed.kind]}.done", self._text_fields(name, closed.text))]
        if closed.kind == "call":
            item["arguments"] = closed.text
            events[0]["name"] = item["name"]
        else:
            part = self._part(closed.text)
            item["content"] = [part]
            events.append(self._event("response.content_part.done", {"content_index": 0, "part": part}))
        if closed.kind == "reasoning" and self._is_encrypted:
            item["encrypted_content"] = encrypted(closed.text)
        return [*events, self._item_event("response.output_item.done")]

    def _part(self, text: str) -> dict[str, Any]:
        if self._kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _text_fields(self, name: str, text: str) -> dict[str, Any]:
        place = {} if self._kind == "call" else {"content_index": 0}
        return {**place, name: text, **({"logprobs": []} if self._kind == "text" else {})}

    def _event(self, kind: str, fields: dict[str, Any]) -> Event:
        return {"type": kind, "item_id": self.items[-1]["id"], "output_index": len(self.items) - 1, **fields}

    def _item_event(self, kind: str) -> Event:
        return {"type": kind, "output_index": len(self.items) - 1, "item": dict(self.items[-1])}


def _item(opened: Opened) -> Item:
    if opened.call is not None:
        call = {"call_id": opened.call.id, "name": opened.call.name, "arguments": ""}
        return {"id": new_id("fc"), "type": "function_call", "status": "in_progress", **call}
    if opened.kind == "reasoning":
        return {"id": new_id("rs"), "type": "reasoning", "summary": [], "content": [], "status": "in_progress"}
    return {"id": new_id("msg"), "type": "message", "status": "in_progress", "role": "assistant", "content": []}
