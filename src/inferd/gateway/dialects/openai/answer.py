"""What an answer is made of, whether it is sent whole or in chunks: its head, its choices, its usage."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from inferd.gateway.calls import AnswerContext
from inferd.gateway.dialects.openai.bodies import ChatBody
from inferd.gateway.dialects.openai.logprobs import ChatLogprobs, CompletionLogprobs, prompt_logprobs
from inferd.gateway.dialects.openai.message import Message
from inferd.gateway.error_styles import OPENAI
from inferd.gateway.text import TextReader
from inferd.metrics.cost import HostPrice
from inferd.parsing.deltas import Delta, Reasoning
from inferd.types import RequestTimings, TokenEvent
from inferd.worker.client import Update
from inferd.worker.protocol import Accepted, Ready

if TYPE_CHECKING:
    from inferd.gateway.dialects.openai.call import Call


class Usage:
    """Tokens so far, over all prompts of a call, and in the end what they cost where the host has a price."""

    def __init__(self, accepted: Sequence[Accepted], price: HostPrice | None = None) -> None:
        self.num_prompt = sum(len(one.prompt_token_ids) for one in accepted)
        self.num_output = 0
        self._num_cached: dict[str, int] = {}
        self._price = price
        self._num_unmeasured = len(accepted)
        self._busy_seconds = 0.0

    def charge(self, timings: RequestTimings) -> None:
        self._num_unmeasured -= 1
        self._busy_seconds += timings.busy

    def add(self, event: TokenEvent) -> None:
        self.num_output += len(event.token_ids)
        if event.num_cached_tokens:
            self._num_cached[event.request_id] = event.num_cached_tokens

    def to_json(self, num_reasoning: int = 0) -> dict[str, Any]:
        body: dict[str, Any] = {
            "prompt_tokens": self.num_prompt,
            "completion_tokens": self.num_output,
            "total_tokens": self.num_prompt + self.num_output,
            "prompt_tokens_details": {"cached_tokens": sum(self._num_cached.values())},
            "completion_tokens_details": {"reasoning_tokens": num_reasoning},
        }
        if self._price is not None and self._num_unmeasured == 0:
            body["cost"] = self._busy_seconds * self._price.per_second
            body["currency"] = self._price.currency
        return body


class Timings:
    """The times of a call, in seconds. Those of the engine are added up over its prompts, as usage adds tokens."""

    def __init__(self, begin: float) -> None:
        self._begin = begin  # of the call, by time.monotonic
        self._first: float | None = None
        self._last = begin
        self._engine = dict.fromkeys(("queue", "prefill", "decode", "busy"), 0.0)
        self._num_preemptions = 0

    def add(self, event: TokenEvent) -> None:
        self._last = time.monotonic()
        if self._first is None:
            self._first = self._last
        if event.timings is None:
            return
        for name in self._engine:
            self._engine[name] += getattr(event.timings, name)
        self._num_preemptions += event.timings.num_preemptions

    def to_json(self) -> dict[str, Any]:
        return {
            "ttft": None if self._first is None else self._first - self._begin,
            "e2e": self._last - self._begin,
            **self._engine,
            "preemptions": self._num_preemptions,
        }


class Choice:
    """One sequence of the answer, as far as it has come."""

    def __init__(self, index: int, call: Call, accepted: Accepted, ready: Ready) -> None:
        self.index = index
        self.accepted = accepted
        self.reader = call.turn.reader(ready) if call.turn is not None else TextReader()
        self._shows_reasoning = not isinstance(call.body, ChatBody) or call.body.include_reasoning
        self._call_reason = "function_call" if call.is_legacy else "tool_calls"
        as_ids = call.body.return_tokens_as_token_ids
        shape = ChatLogprobs if call.is_chat else CompletionLogprobs
        self.logprobs: ChatLogprobs | CompletionLogprobs = shape(as_ids=as_ids)

    @property
    def finish_reason(self) -> str | None:
        reason = self.reader.finish_reason
        return self._call_reason if reason == "tool_calls" else reason

    def read(self, event: TokenEvent) -> list[Delta]:
        """What an event adds, without what the client does not want to see."""
        deltas = self.reader.push(event)
        return deltas if self._shows_reasoning else [one for one in deltas if not isinstance(one, Reasoning)]


class Answer:
    """The head of a response, its choices and which of them an event belongs to."""

    def __init__(
        self,
        call: Call,
        context: AnswerContext,
    ) -> None:
        accepted, n = context.accepted, context.n
        self.call = call
        self.accepted = accepted
        self.head = {"id": call.id, "created": int(time.time()), "model": context.model}
        self.usage = Usage(accepted, context.price)
        self.timings = Timings(context.begin)
        idle = call.turn.warnings(context.ready, OPENAI.names) if call.turn is not None else ()
        self._warnings = [*call.warnings, *idle]
        self.choices = [
            Choice(at * n + i, call, one, context.ready) for at, one in enumerate(accepted) for i in range(n)
        ]
        self._first_of = {one.request_id: at * n for at, one in enumerate(accepted)}

    def choice_of(self, event: TokenEvent) -> Choice:
        return self.choices[self._first_of[event.request_id] + event.index]

    def siblings_of(self, event: TokenEvent) -> list[Choice]:
        """Every choice of the event's prompt."""
        request_id = event.request_id
        return [choice for choice in self.choices if choice.accepted.request_id == request_id]

    def count(self, event: TokenEvent) -> None:
        self.timings.add(event)
        if event.timings is not None:
            self.usage.charge(event.timings)
        if not self.call.drops_output:
            self.usage.add(event)

    def usage_json(self) -> dict[str, Any]:
        return self.usage.to_json(sum(choice.reader.num_reasoning_tokens for choice in self.choices))

    def last_fields(self) -> dict[str, Any]:
        """What comes once, with the end of an answer."""
        fields: dict[str, Any] = {}
        if self.call.body.return_timings:
            fields["timings"] = self.timings.to_json()
        if self._warnings:
            fields["warnings"] = self._warnings
        return fields

    def logprobs_of(self, choice: Choice, update: Update) -> dict[str, Any] | None:
        positions = update.event.logprobs
        if positions is None or self.call.num_logprobs is None or self.call.drops_output:
            return None
        return choice.logprobs.render(positions, update.pieces)

    def echoed_logprobs(self, choice: Choice, update: Update) -> dict[str, Any] | None:
        """Of the prompt, in the shape of completions; only the first event of a prompt knows them."""
        positions, accepted = update.event.prompt_logprobs, choice.accepted
        if positions is None or not isinstance(choice.logprobs, CompletionLogprobs) or accepted.prompt_pieces is None:
            return None
        return choice.logprobs.render_prompt(
            accepted.prompt_token_ids, accepted.prompt_pieces, positions, update.pieces
        )


class WholeAnswer:
    """Collects all events; `to_json` is the body of the response."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._call = answer.call
        self._rows = [_Row(choice, answer.call) for choice in answer.choices]

    def add(self, update: Update) -> None:
        event = update.event
        answer = self._answer
        choice = answer.choice_of(event)
        answer.count(event)
        if event.prompt_logprobs is not None:
            for sibling in answer.siblings_of(event):
                self._rows[sibling.index].add_prompt(answer, update)
        self._rows[choice.index].add(answer, update)

    def to_json(self) -> dict[str, Any]:
        answer, call = self._answer, self._call
        kind = "chat.completion" if call.is_chat else "text_completion"
        body: dict[str, Any] = {**answer.head, "object": kind}
        body["choices"] = [row.to_json(call) for row in self._rows]
        body["usage"] = answer.usage_json()
        if call.is_chat:
            body |= prompt_fields(call, answer.accepted[0])
            if self._rows[0].prompt_logprobs is not None:
                body["prompt_logprobs"] = self._rows[0].prompt_logprobs
        return body | answer.last_fields()


class _Row:
    def __init__(self, choice: Choice, call: Call) -> None:
        self._choice = choice
        self._message = Message(choice.accepted.prompt_text or "" if call.echo else "")
        self._token_ids: list[int] = []
        self._logprobs: dict[str, Any] | None = None
        self.prompt_logprobs: list[dict[str, Any] | None] | None = None

    def add_prompt(self, answer: Answer, update: Update) -> None:
        if answer.call.echo:
            self._append(answer.echoed_logprobs(self._choice, update))
        if answer.call.fields.get("prompt_logprobs") is not None:
            self.prompt_logprobs = prompt_logprobs(update.event.prompt_logprobs or (), update.pieces)

    def add(self, answer: Answer, update: Update) -> None:
        event = update.event
        if answer.call.drops_output:
            return
        for delta in self._choice.read(event):
            self._message.add(delta)
        self._token_ids += event.token_ids
        self._append(answer.logprobs_of(self._choice, update))

    def to_json(self, call: Call) -> dict[str, Any]:
        body: dict[str, Any] = {"index": self._choice.index}
        if call.is_chat:
            body["message"] = self._message.to_json(is_legacy=call.is_legacy)
        else:
            body["text"] = self._message.content
        reason = "length" if call.drops_output else self._choice.finish_reason
        body |= {"logprobs": self._logprobs, "finish_reason": reason}
        body["stop_reason"] = self._choice.reader.stop_reason
        if call.body.return_token_ids:
            body["token_ids"] = self._token_ids
        if not call.is_chat:
            body |= prompt_fields(call, self._choice.accepted)
            if self.prompt_logprobs is not None:
                body["prompt_logprobs"] = self.prompt_logprobs
        return body

    def _append(self, logprobs: dict[str, Any] | None) -> None:
        if logprobs is None:
            return
        if self._logprobs is None:
            self._logprobs = logprobs
            return
        for name, values in logprobs.items():
            if values is not None:
                self._logprobs[name].extend(values)


def prompt_fields(call: Call, accepted: Accepted) -> dict[str, Any]:
    """What was asked to be told about a prompt."""
    fields: dict[str, Any] = {}
    if call.body.return_token_ids:
        fields["prompt_token_ids"] = list(accepted.prompt_token_ids)
    if call.body.return_prompt_text:
        fields["prompt_text"] = accepted.prompt_text
    return fields
