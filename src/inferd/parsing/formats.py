"""The formats in which models write calls of tools and their reasoning, as tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

_NAME = r"(?P<name>[\w.:/-]+)"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSyntax:
    """One way to write a call.

    json: an object with a name and arguments, or a list of them; with `header`, which matches all that stands before
    the arguments, also the arguments alone. xml: `<function=name>` and `<parameter=key>`. code: Python.
    begin: "" where a call has no marker but opens the message. ends: what may follow a call, each skipped if it comes.
    is_vague: the same text could be an answer, so only the name of a tool that was offered makes it a call.
    """

    begin: str
    ends: tuple[str, ...] = ()
    body: Literal["json", "xml", "code"] = "json"
    header: re.Pattern[str] | None = None
    is_vague: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFormat:
    """calls: all the ways that are understood. ignored: markers that say nothing by themselves."""

    calls: tuple[CallSyntax, ...]
    ignored: tuple[str, ...] = ()
    has_channels: bool = False  # every text has a header that says what it is
    id_len: int | None = None  # what the templates of this format demand of the ids of calls


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningFormat:
    begin: str
    end: str


_TAGGED = CallSyntax(begin="<tool_call>", ends=("</tool_call>",))
_FENCED = CallSyntax(begin="```json", ends=("```",), is_vague=True)
_BARE = CallSyntax(begin="", is_vague=True)
_FUNCTION_TAG = re.compile(_NAME + r">\s*")
_MISTRAL = re.compile(_NAME + r"\s*(?:\[CALL_ID\]\s*\w+\s*)?(?:\[ARGS\])?\s*")
_DEEPSEEK = re.compile(r"(?:(?:function)?<｜tool▁sep｜>)?\s*" + _NAME + r"\s*(?:<｜tool▁sep｜>)?\s*(?:```json)?\s*")

TOOL_FORMATS: Mapping[str, ToolFormat] = {
    "hermes": ToolFormat(calls=(_TAGGED,)),
    "qwen3_coder": ToolFormat(
        calls=(
            CallSyntax(begin="<tool_call>", ends=("</tool_call>",), body="xml"),
            CallSyntax(begin="<function=", ends=("</tool_call>",), body="xml"),
        )
    ),
    "llama3": ToolFormat(
        calls=(
            _BARE,
            CallSyntax(begin="<|python_tag|>"),
            CallSyntax(begin="<function=", ends=("</function>",), header=_FUNCTION_TAG),
        ),
        ignored=("<|eom_id|>",),
    ),
    "mistral": ToolFormat(calls=(CallSyntax(begin="[TOOL_CALLS]", header=_MISTRAL),), id_len=9),
    "bar": ToolFormat(calls=(CallSyntax(begin="<|tool_call|>", ends=("<|/tool_call|>",)),)),
    "gemma": ToolFormat(calls=(CallSyntax(begin="```tool_code", ends=("```",), body="code"), _FENCED, _BARE)),
    "deepseek": ToolFormat(
        calls=(CallSyntax(begin="<｜tool▁call▁begin｜>", ends=("```", "<｜tool▁call▁end｜>"), header=_DEEPSEEK),),
        ignored=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    ),
    "harmony": ToolFormat(calls=(), has_channels=True),
    "json": ToolFormat(calls=(_BARE, _TAGGED, _FENCED)),
}

REASONING_FORMATS: Mapping[str, ReasoningFormat] = {
    "think": ReasoningFormat(begin="<think>", end="</think>"),
    "bracket": ReasoningFormat(begin="[THINK]", end="[/THINK]"),
    "seed": ReasoningFormat(begin="<seed:think>", end="</seed:think>"),
}

CHANNEL_BEGINS = ("<|start|>", "<|channel|>")
CHANNEL_TEXT = "<|message|>"
CHANNEL_ENDS = ("<|end|>", "<|return|>", "<|call|>")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFormat:
    """How a model and its chat template speak, as detect.py finds out. Its fields are plain JSON values.

    reasoning: of REASONING_FORMATS. opens: whether the prompt ends inside of the reasoning, when the template is left
    to itself, when reasoning is switched on, and when it is switched off.
    """

    tools: str = "json"  # of TOOL_FORMATS
    knows_tools: bool = False  # the template tells the model of tools, and of what they answered
    knows_system: bool = True  # and lets a system message stand
    takes_argument_text: bool = False  # the arguments of earlier calls are text to it, not objects
    reasoning: str | None = None
    reasoning_switch: str | None = None  # the template's variable that turns reasoning on and off
    knows_effort: bool = False  # it has a variable reasoning_effort
    knows_documents: bool = False
    opens: bool = False
    opens_on: bool = False
    opens_off: bool = False
    hidden: tuple[str, ...] = ()  # control texts; not empty where a marker of the format is one: all must be visible

    @property
    def tool_format(self) -> ToolFormat:
        return TOOL_FORMATS[self.tools]

    @property
    def reasoning_format(self) -> ReasoningFormat | None:
        return REASONING_FORMATS[self.reasoning] if self.reasoning else None

    @property
    def can_reason(self) -> bool:
        return self.reasoning is not None or self.tool_format.has_channels

    def opens_reasoning(self, thinks: bool | None) -> bool:
        return self.opens if thinks is None else self.opens_on if thinks else self.opens_off
