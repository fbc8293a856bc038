"""One turn of a chat as every dialect asks for it, and what comes back, taken apart.

A dialect maps its body onto ChatTurn, makes its command of it, and pushes each event's text through a TurnReader.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inferd.errors import InvalidRequestError
from inferd.gateway import constraints
from inferd.gateway.calls import Caller, command_of
from inferd.gateway.tools import for_template, name_of, schemas_of, told_of_tools
from inferd.parsing.deltas import Delta
from inferd.parsing.formats import TOOL_FORMATS, OutputFormat
from inferd.parsing.parser import OutputParser
from inferd.types import StructuredOutputs, ThinkingBudget, TokenEvent
from inferd.worker.protocol import ChatPrompt, Generate, Ready

ToolChoice = str  # "none", "auto", "required", or "=name" for that function


def format_of(ready: Ready) -> OutputFormat:
    """How the model speaks, as its worker found out."""
    facts = dict(ready.details.get("output_format", {}))
    return OutputFormat(**{**facts, "hidden": tuple(facts.get("hidden", ()))})


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTurn:
    """messages, tools: in OpenAI's shape, checked; content is text. sampling: fields of SamplingParams that were set.

    Every role is one of system, user, assistant, tool; an assistant's may have tool_calls and reasoning_content.
    tools: from tools.checked_tools.
    """

    messages: list[dict[str, Any]]
    sampling: dict[str, Any] = field(default_factory=dict)
    tools: list[dict[str, Any]] = field(default_factory=list)
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    structured: StructuredOutputs | None = None
    thinks: bool | None = None  # whether the model reasons first; None: as its template does by itself
    reasoning_effort: str | None = None
    thinking_budget: int | None = None  # tokens of reasoning, after which it is ended
    documents: list[dict[str, Any]] = field(default_factory=list)
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    truncate_prompt_tokens: int | None = None
    priority: int = 0
    cache_salt: str = ""
    fit_max_tokens: bool = False  # max_tokens is a bound: what the context has no room for is not asked
    want_prompt_text: bool = False

    def prompt(self, ready: Ready) -> ChatPrompt:
        """Raises InvalidRequestError naming a field of this class that the model's template cannot serve."""
        form = format_of(ready)
        messages, tools = self.messages, self._offered
        if tools and not form.knows_tools:
            messages, tools = told_of_tools(messages, tools, form), []
        return ChatPrompt(
            messages=for_template(messages, form),
            add_generation_prompt=self.add_generation_prompt and not self.continue_final_message,
            continue_final_message=self.continue_final_message,
            template_kwargs=self._template_kwargs(form),
            add_special_tokens=self.add_special_tokens,
            tools=tools or None,
        )

    def command(self, request_id: str, ready: Ready, caller: Caller) -> Generate:
        """The request to the engine. Raises InvalidRequestError in the names of SamplingParams and of this class."""
        form = format_of(ready)
        values = dict(self.sampling)
        if form.hidden and self._is_parsed(form):
            values["skip_special_tokens"] = False
        return command_of(
            request_id,
            self.prompt(ready),
            ready,
            caller,
            values,
            self._constraint(form),
            priority=self.priority,
            cache_salt=self.cache_salt,
            truncate_prompt_tokens=self.truncate_prompt_tokens,
            fit_max_tokens=self.fit_max_tokens,
            want_prompt_text=self.want_prompt_text,
            thinking=self._budget(form),
        )

    def reader(self, ready: Ready) -> TurnReader:
        """For one sequence of the answer."""
        form = format_of(ready)
        name = "json" if self._is_forced and form.tools not in constraints.TAGGED else form.tools
        is_visible = self.sampling.get("skip_special_tokens") is False
        parser = OutputParser(
            TOOL_FORMATS[name] if self._offered or form.tool_format.has_channels else None,
            form.reasoning_format,
            tools=schemas_of(self._offered),
            opens_reasoning=self._opens_reasoning(form),
            hidden=frozenset() if is_visible or not self._is_parsed(form) else frozenset(form.hidden),
            max_calls=None if self.parallel_tool_calls else 1,
        )
        return TurnReader(parser)

    def warnings(self, ready: Ready, names: Mapping[str, str]) -> list[str]:
        """What was asked for and changes nothing here. names: what the dialect calls fields of this class."""
        form = format_of(ready)
        can_end = self.reasoning_effort == "none" and form.reasoning is not None
        has_switch = form.knows_effort or form.reasoning_switch is not None or can_end
        idle = {
            "thinks": self.thinks is True and not form.can_reason,
            "thinking_budget": self.thinking_budget is not None and not form.can_reason,
            "reasoning_effort": self.reasoning_effort is not None and not has_switch,
        }
        found = dict.fromkeys(names.get(name, name) for name, is_so in idle.items() if is_so)  # two may be one there
        return [f"{name} changes nothing: this model has no such switch" for name in found]

    @property
    def _offered(self) -> list[dict[str, Any]]:
        return [] if self.tool_choice == "none" else self.tools

    @property
    def _is_forced(self) -> bool:
        return bool(self.tools) and (self.tool_choice == "required" or self.tool_choice.startswith("="))

    def _is_parsed(self, form: OutputFormat) -> bool:
        return bool(self._offered) or form.can_reason

    @property
    def _thinks(self) -> bool | None:
        """As asked, by either of two fields."""
        if self.thinks is None and self.reasoning_effort is not None:
            return self.reasoning_effort != "none"
        return self.thinks

    def _template_kwargs(self, form: OutputFormat) -> dict[str, Any]:
        kwargs = dict(self.template_kwargs)
        effort, thinks = self.reasoning_effort, self._thinks
        if thinks is not None and form.reasoning_switch is not None:
            kwargs.setdefault(form.reasoning_switch, thinks)
        if effort is not None and form.knows_effort:
            kwargs.setdefault("reasoning_effort", effort)
        if self.documents:
            if not form.knows_documents:
                raise InvalidRequestError("documents: this model's template knows none", param="documents")
            kwargs.setdefault("documents", self.documents)
        return kwargs

    def _opens_reasoning(self, form: OutputFormat) -> bool:
        if self.continue_final_message or not self.add_generation_prompt:
            return False
        return form.opens_reasoning(self._switched(form))

    def _switched(self, form: OutputFormat) -> bool | None:
        """How the template's switch stands."""
        value = self._template_kwargs(form).get(form.reasoning_switch) if form.reasoning_switch else None
        return value if isinstance(value, bool) else None

    def _budget(self, form: OutputFormat) -> ThinkingBudget | None:
        """Where the template cannot switch the reasoning off, it is ended at its begin."""
        num_tokens, reasoning = self.thinking_budget, form.reasoning_format
        if num_tokens is None and self._thinks is False and form.reasoning_switch is None:
            num_tokens = 0
        if num_tokens is None or self._switched(form) is False:
            return None
        if reasoning is None:
            if form.can_reason and self.thinking_budget is not None:
                message = "thinking_budget: not possible in this model's format"
                raise InvalidRequestError(message, param="thinking_budget")
            return None
        begin = "" if self._opens_reasoning(form) else reasoning.begin
        return ThinkingBudget(num_tokens=num_tokens, begin=begin, end=reasoning.end)

    def _constraint(self, form: OutputFormat) -> StructuredOutputs | None:
        tools = self._offered
        thought = ""
        if form.reasoning is not None and self._switched(form) is not False:
            thought = constraints.thought_rule(form, is_open=self._opens_reasoning(form))
        if self._is_forced:
            named = [tool for tool in tools if self.tool_choice in ("required", f"={name_of(tool)}")]
            may_repeat = self.parallel_tool_calls and self.tool_choice == "required"
            return constraints.forced_calls(named, form, may_repeat=may_repeat, thought=thought)
        if self.structured is None:
            return constraints.free_calls(tools, form) if tools else None
        if tools:
            return constraints.calls_or_answer(tools, self.structured, form, thought)
        return constraints.answer(self.structured, thought)


class TurnReader:
    """The events of one sequence, taken apart."""

    def __init__(self, parser: OutputParser) -> None:
        self._parser = parser
        self.finish_reason: str | None = None  # "stop", "length" or "tool_calls", once it has ended
        self.stop_reason: int | str | None = None
        self.num_reasoning_tokens = 0

    def push(self, event: TokenEvent) -> list[Delta]:
        was_reasoning = self._parser.is_reasoning
        deltas = self._parser.push(event.text)
        if was_reasoning or self._parser.is_reasoning:
            self.num_reasoning_tokens += len(event.token_ids)
        if event.finish_reason is not None:
            deltas += self._parser.finish()
            self.stop_reason = event.stop_reason
            calls = self._parser.num_tool_calls and event.finish_reason == "stop"
            self.finish_reason = "tool_calls" if calls else event.finish_reason
        return deltas
