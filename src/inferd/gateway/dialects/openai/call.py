"""A body that was read and checked: the prompts it holds and how each is to be answered."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Any

from inferd.errors import ContextLengthError, InvalidRequestError
from inferd.gateway.calls import AnswerContext, Caller, StreamWriter, WholeWriter, sampling_of
from inferd.gateway.chat import ChatTurn
from inferd.gateway.dialects.openai import bodies
from inferd.gateway.dialects.openai.answer import Answer, WholeAnswer
from inferd.gateway.dialects.openai.bodies import (
    ChatBody,
    CompletionBody,
    TokenizeBody,
    check_token_id,
    message_of,
)
from inferd.gateway.dialects.openai.chunks import ChunkStream
from inferd.gateway.dialects.openai.fields import SAMPLING, check_body
from inferd.gateway.dialects.openai.structured import FIELDS as STRUCTURED
from inferd.gateway.dialects.openai.structured import structured_of
from inferd.gateway.dialects.openai.tools import Offer, offer_of
from inferd.gateway.json_fields import convert, integral
from inferd.gateway.text import TextTurn
from inferd.gateway.tools import checked_tools
from inferd.metrics.requests import MAX_TARGET, MIN_TARGET, Targets
from inferd.types import MAX_LOGPROBS, SamplingParams, StructuredOutputs
from inferd.worker.protocol import Generate, Prompt, Ready, TextPrompt, TokenPrompt

MAX_PROMPTS = 1024
MAX_SALT_LEN = 1024
DEFAULT_MAX_TOKENS = 16  # of completions; a chat may go on to the end of the context
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_CHAT_FIELDS = frozenset(ChatBody.__struct_fields__) | SAMPLING | STRUCTURED
_COMPLETION_FIELDS = frozenset(CompletionBody.__struct_fields__) | SAMPLING | STRUCTURED


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One POST: a turn of a chat, or prompts, (num_prompts,), to be continued. Every one gives n choices."""

    id: str
    body: ChatBody | CompletionBody
    fields: dict[str, Any]
    turn: ChatTurn | None = None
    prompts: tuple[Prompt, ...] = ()
    structured: StructuredOutputs | None = None
    structured_name: str = "structured_outputs"  # the field that asked for it
    is_legacy: bool = False  # a chat with functions
    warnings: tuple[str, ...] = ()

    @property
    def is_chat(self) -> bool:
        return isinstance(self.body, ChatBody)

    @property
    def echo(self) -> bool:
        return isinstance(self.body, CompletionBody) and self.body.echo

    @property
    def drops_output(self) -> bool:
        """Only the prompt was asked for; the engine generates one token all the same."""
        return self.echo and self.body.max_tokens == 0

    @property
    def num_logprobs(self) -> int | None:
        if isinstance(self.body, ChatBody):
            return self.body.top_logprobs if self.body.logprobs else None
        return self.body.logprobs

    @property
    def includes_usage(self) -> bool:
        options = self.body.stream_options
        return options is not None and (options.include_usage or options.continuous_usage_stats)

    def targets(self, usual: Targets) -> Targets:
        """What this call counts as good service; `usual` where it does not say."""
        ttft, itl = self.body.ttft_target, self.body.itl_target
        return Targets(usual.ttft if ttft is None else ttft, usual.itl if itl is None else itl)

    @property
    def num_prompts(self) -> int:
        return 1 if self.turn is not None else len(self.prompts)

    @property
    def names(self) -> dict[str, str]:
        """What this body calls fields of SamplingParams."""
        name = self.structured_name
        if self.structured is None and self.turn is not None and self.turn.tools:
            name = "functions" if self.is_legacy else "tools"
        return {"structured_outputs": name}

    @property
    def operation(self) -> str:
        return "chat" if self.is_chat else "text_completion"

    @property
    def is_streamed(self) -> bool:
        return self.body.stream

    def stream_writer(self, context: AnswerContext) -> StreamWriter:
        return ChunkStream(Answer(self, context))

    def whole_writer(self, context: AnswerContext) -> WholeWriter:
        return WholeAnswer(Answer(self, context))

    def commands(self, ready: Ready, caller: Caller) -> list[Generate]:
        values = self._sampling()
        sampling = sampling_of(ready, values)
        self._check_n(sampling)
        keep = self._num_kept(sampling, ready)
        for prompt in self.prompts:
            if isinstance(prompt, TokenPrompt) and keep is None and len(prompt.token_ids) > ready.max_model_len:
                raise ContextLengthError(len(prompt.token_ids), sampling.max_tokens or 1, ready.max_model_len)
        if self.turn is not None:
            turn = replace(self.turn, sampling=values, truncate_prompt_tokens=keep)
            return [turn.command(f"{self.id}-0", ready, caller)]
        turns = (self._text_turn(prompt, values, keep) for prompt in self.prompts)
        return [turn.command(f"{self.id}-{number}", ready, caller) for number, turn in enumerate(turns)]

    def _text_turn(self, prompt: Prompt, values: dict[str, Any], keep: int | None) -> TextTurn:
        return TextTurn(
            prompt=prompt,
            sampling=values,
            structured=self.structured,
            truncate_prompt_tokens=keep,
            priority=self.body.priority,
            cache_salt=self.body.cache_salt,
            want_prompt_text=self.echo or self.body.return_prompt_text,
            want_prompt_pieces=self.echo and self.num_logprobs is not None,
        )

    def _sampling(self) -> dict[str, Any]:
        """What the body says of fields of SamplingParams."""
        values = {name: value for name, value in self.fields.items() if name in SAMPLING}
        stop = self.body.stop
        values["stop"] = [stop] if isinstance(stop, str) else stop or []
        values["max_tokens"] = self._max_tokens()
        values["logprobs"] = self.num_logprobs
        if self.echo and self.num_logprobs is not None:
            values["prompt_logprobs"] = max(self.num_logprobs, values.get("prompt_logprobs") or 0)
        return values

    def _num_kept(self, sampling: SamplingParams, ready: Ready) -> int | None:
        """The tokens at the end of a prompt that are kept; None: all."""
        keep = self.body.truncate_prompt_tokens
        if keep is None:
            return None
        if keep < -1 or keep == 0 or keep > ready.max_model_len:
            allowed = f"-1 or from 1 to {ready.max_model_len}"
            raise InvalidRequestError(f"truncate_prompt_tokens must be {allowed}", param="truncate_prompt_tokens")
        return max(1, ready.max_model_len - (sampling.max_tokens or 1)) if keep == -1 else keep

    def _max_tokens(self) -> int | None:
        body = self.body
        if isinstance(body, ChatBody):
            return body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
        if self.drops_output:
            return 1
        return DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens

    def _check_n(self, sampling: SamplingParams) -> None:
        best_of = self.body.best_of if isinstance(self.body, CompletionBody) else None
        if best_of is not None and best_of != sampling.n:
            raise InvalidRequestError(f"best_of must be n, here {sampling.n}, got {best_of}", param="best_of")


def parse(fields: dict[str, Any], *, is_chat: bool) -> Call:
    """Raises InvalidRequestError that names the field."""
    warnings = check_body(fields, _CHAT_FIELDS if is_chat else _COMPLETION_FIELDS, is_chat=is_chat)
    values = integral(fields)
    body = convert(values, ChatBody) if is_chat else convert(values, CompletionBody)
    _check_common(body, fields)
    structured, name = structured_of(fields)
    common: dict[str, Any] = {
        "body": body,
        "fields": fields,
        "structured": structured,
        "structured_name": name,
        "warnings": warnings,
    }
    if isinstance(body, CompletionBody):
        return Call(id="cmpl-" + uuid.uuid4().hex, prompts=completion_prompts(body), **common)
    offer = offer_of(body)
    turn = chat_turn(body, offer, structured)
    return Call(id="chatcmpl-" + uuid.uuid4().hex, turn=turn, is_legacy=offer.is_legacy, **common)


def chat_turn(body: ChatBody, offer: Offer, structured: StructuredOutputs | None) -> ChatTurn:
    """Without sampling fields."""
    effort, budget = body.reasoning_effort, body.thinking_token_budget
    if effort is not None and effort not in EFFORTS:
        raise InvalidRequestError(f"reasoning_effort must be one of {', '.join(EFFORTS)}", param="reasoning_effort")
    if budget is not None and not 0 <= budget < 2**31:
        raise InvalidRequestError("thinking_token_budget must be from 0 to 2**31 - 1", param="thinking_token_budget")
    return ChatTurn(
        messages=checked_messages(body),
        tools=offer.tools,
        tool_choice=offer.choice,
        parallel_tool_calls=body.parallel_tool_calls and not offer.is_legacy,
        structured=structured,
        reasoning_effort=effort,
        thinking_budget=budget,
        documents=body.documents,
        template_kwargs=body.chat_template_kwargs,
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
        add_special_tokens=body.add_special_tokens,
        priority=body.priority,
        cache_salt=body.cache_salt,
        want_prompt_text=body.return_prompt_text,
    )


def _check_common(body: ChatBody | CompletionBody, fields: dict[str, Any]) -> None:
    if abs(body.priority) >= 2**63:
        raise InvalidRequestError("priority must be below 2**63 in size", param="priority")
    if len(body.cache_salt) > MAX_SALT_LEN:
        raise InvalidRequestError(f"cache_salt must have at most {MAX_SALT_LEN} characters", param="cache_salt")
    if body.stream_options is not None and not body.stream:
        raise InvalidRequestError("stream_options is only allowed with stream", param="stream_options")
    if body.stream and fields.get("prompt_logprobs") is not None:
        raise InvalidRequestError("prompt_logprobs cannot be streamed", param="prompt_logprobs")
    for name, value in (("ttft_target", body.ttft_target), ("itl_target", body.itl_target)):
        if value is not None and not MIN_TARGET <= value <= MAX_TARGET:
            allowed = f"from {MIN_TARGET:g} to {MAX_TARGET:g} seconds"
            raise InvalidRequestError(f"{name} must be {allowed}, got {value:g}", param=name)
    if isinstance(body, ChatBody):
        _check_top_logprobs(body)
    elif body.logprobs is not None and not 0 <= body.logprobs <= MAX_LOGPROBS:
        raise InvalidRequestError(f"logprobs must be from 0 to {MAX_LOGPROBS}", param="logprobs")


def _check_top_logprobs(body: ChatBody) -> None:
    if not 0 <= body.top_logprobs <= MAX_LOGPROBS:
        raise InvalidRequestError(f"top_logprobs must be from 0 to {MAX_LOGPROBS}", param="top_logprobs")
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequestError("top_logprobs needs logprobs to be true", param="top_logprobs")


def checked_messages(body: ChatBody | TokenizeBody) -> list[dict[str, Any]]:
    if not body.messages:
        raise InvalidRequestError("messages must hold at least one message", param="messages")
    return [message_of(message) for message in body.messages]


def completion_prompts(body: CompletionBody) -> tuple[Prompt, ...]:
    """One prompt for a text or a list of ids; one each for a list of texts or of lists of ids."""
    prompt = body.prompt
    if isinstance(prompt, str):
        return (TextPrompt(text=prompt, add_special_tokens=body.add_special_tokens),)
    if not prompt:
        raise InvalidRequestError("prompt must not be empty", param="prompt")
    if all(isinstance(item, int) for item in prompt):
        return (_token_prompt(prompt),)
    if len(prompt) > MAX_PROMPTS:
        raise InvalidRequestError(f"prompt must hold at most {MAX_PROMPTS} prompts, got {len(prompt)}", param="prompt")
    return tuple(_one_prompt(item, body.add_special_tokens) for item in prompt)


def _one_prompt(item: str | int | list[int], add_special_tokens: bool) -> Prompt:
    if isinstance(item, str):
        return TextPrompt(text=item, add_special_tokens=add_special_tokens)
    if isinstance(item, int):
        raise InvalidRequestError("prompt must not mix token ids with texts or lists", param="prompt")
    return _token_prompt(item)


def _token_prompt(token_ids: list[Any]) -> TokenPrompt:
    if not token_ids:
        raise InvalidRequestError("prompt must not be empty", param="prompt")
    check_token_id(min(token_ids), "prompt")
    check_token_id(max(token_ids), "prompt")
    return TokenPrompt(token_ids=tuple(token_ids))


def tokenize_input(fields: dict[str, Any]) -> tuple[TokenizeBody, TextPrompt | ChatTurn]:
    body = convert(integral(fields), TokenizeBody)
    if (body.prompt is None) == (body.messages is None):
        raise InvalidRequestError("give either prompt or messages", param="prompt")
    if body.prompt is not None:
        return body, TextPrompt(text=body.prompt, add_special_tokens=body.add_special_tokens is not False)
    turn = ChatTurn(
        messages=checked_messages(body),
        tools=checked_tools(body.tools),
        template_kwargs=body.chat_template_kwargs,
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
        add_special_tokens=bool(body.add_special_tokens),
    )
    return body, turn


def detokenize_ids(fields: dict[str, Any]) -> tuple[int, ...]:
    body = convert(integral(fields), bodies.DetokenizeBody)
    if body.tokens:
        check_token_id(min(body.tokens), "tokens")
        check_token_id(max(body.tokens), "tokens")
    return tuple(body.tokens)
