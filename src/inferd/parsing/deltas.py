"""The pieces that a parser finds. Put together again they are the whole message, however they were cut."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Content:
    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallBegin:
    """index counts the calls of a message from 0; its arguments follow as ToolCallArguments of the same index."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArguments:
    """A piece of the arguments' JSON text; all pieces of an index together are one JSON object."""

    index: int
    text: str


Delta = Content | Reasoning | ToolCallBegin | ToolCallArguments
