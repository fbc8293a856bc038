"""Prompts become token ids, inside the worker: a bad template or text fails its own request only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import msgspec

from inferd.errors import InvalidRequestError
from inferd.structured.compiler import GrammarCompiler
from inferd.tokenizer.chat_template import ChatTemplate, RenderedPrompt
from inferd.tokenizer.control import ControlTexts
from inferd.types import GenerateRequest, SamplingParams
from inferd.worker.protocol import Accepted, ChatPrompt, Generate, Prompt, TextPrompt, TokenPrompt

MAX_TEXT_SIZE = 2**20  # bytes tokenized without a bound by the context; 7 MB took 8 s, in which new requests wait


class Tokenizer(Protocol):
    control: ControlTexts

    @property
    def vocab_size(self) -> int: ...
    @property
    def eos_token_ids(self) -> frozenset[int]: ...
    def is_special(self, token_id: int) -> bool: ...
    def encode(self, text: str, *, add_special_tokens: bool = True, parse_special: bool = False) -> list[int]: ...
    def encode_guarded(self, text: str, guard: str, *, add_special_tokens: bool = False) -> list[int]: ...
    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str: ...
    def token_bytes(self, token_id: int) -> bytes: ...


class PromptReader:
    """Thread-safe as far as the tokenizer is; holds no state of requests."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None, max_model_len: int) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._max_model_len = max_model_len
        self._grammars = GrammarCompiler(tokenizer)
        self._max_token_len = max(1, *(len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)))

    def to_request(self, command: Generate) -> tuple[GenerateRequest, Accepted]:
        """Raises InvalidRequestError or TemplateError."""
        keep = command.truncate_prompt_tokens
        if keep is None:
            self._check_fits(command.prompt)
        ids = self.to_token_ids(command.prompt)
        if keep is not None:
            ids = ids[-keep:]
        if not ids:
            raise InvalidRequestError("the prompt must have at least one token", param="prompt")
        prompt = tuple(ids)
        command.sampling.check_token_ids(self._tokenizer.vocab_size)
        request = GenerateRequest(
            request_id=command.request_id,
            prompt_token_ids=prompt,
            sampling=self._with_grammar(self._fitted(command, len(ids))),
            priority=command.priority,
            tenant=command.tenant,
            cache_salt=command.cache_salt,
            adapter=command.adapter,
            weight=command.weight,
            is_background=command.is_background,
            thinking=command.thinking,
        )
        text = self._prompt_text(command, ids) if command.want_prompt_text else None
        pieces = tuple(map(self._tokenizer.token_bytes, ids)) if command.want_prompt_pieces else None
        accepted = Accepted(
            request_id=command.request_id, prompt_token_ids=prompt, prompt_text=text, prompt_pieces=pieces
        )
        return request, accepted

    def _fitted(self, command: Generate, num_prompt: int) -> SamplingParams:
        sampling, room = command.sampling, self._max_model_len - num_prompt
        if not command.fit_max_tokens or sampling.max_tokens is None or not 0 < room < sampling.max_tokens:
            return sampling
        return replace(sampling, max_tokens=room)

    def _with_grammar(self, sampling: SamplingParams) -> SamplingParams:
        asked = sampling.structured_outputs
        return sampling if asked is None else replace(sampling, structured_outputs=self._grammars.compile(asked))

    def to_token_ids(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, TokenPrompt):
            self.check_ids(prompt.token_ids, "prompt")
            return list(prompt.token_ids)
        param, size = _param_and_size(prompt)
        if size > max(MAX_TEXT_SIZE, self._max_prompt_size):
            raise InvalidRequestError(f"{param} is too long to be tokenized: {size} bytes", param=param)
        if isinstance(prompt, TextPrompt):
            options = {"add_special_tokens": prompt.add_special_tokens, "parse_special": prompt.parse_special}
            return self._tokenizer.encode(prompt.text, **options)
        try:
            return self._render(prompt)
        except RecursionError:
            raise InvalidRequestError("messages are nested too deeply", param="messages") from None

    def to_text(self, prompt: Prompt) -> str:
        """What to_token_ids reads: a chat as its template renders it, the text of ids."""
        if isinstance(prompt, TextPrompt):
            return prompt.text
        if isinstance(prompt, TokenPrompt):
            return self._tokenizer.decode(prompt.token_ids, skip_special_tokens=False)
        rendered = self._rendered(prompt)
        return rendered.text.replace(rendered.guard, "") if rendered.guard else rendered.text

    def check_ids(self, token_ids: Sequence[int], param: str) -> None:
        top = self._tokenizer.vocab_size - 1
        for token_id in token_ids:
            if not 0 <= token_id <= top:
                raise InvalidRequestError(f"{param} must hold token ids from 0 to {top}, got {token_id}", param=param)

    @property
    def _max_prompt_size(self) -> int:
        return self._max_model_len * self._max_token_len

    def _check_fits(self, prompt: Prompt) -> None:
        """Refuses what cannot fit, whatever its tokens will be, before time is spent on it."""
        if isinstance(prompt, TokenPrompt):
            param, num_tokens = "prompt", len(prompt.token_ids)
        else:
            param, size = _param_and_size(prompt)
            num_tokens = -(-size // self._max_token_len)
        if num_tokens > self._max_model_len:
            raise InvalidRequestError(
                f"This model's maximum context length is {self._max_model_len} tokens. "
                f"The {param} alone has at least {num_tokens} tokens.",
                param=param,
                code="context_length_exceeded",
            )

    def _prompt_text(self, command: Generate, ids: list[int]) -> str:
        if isinstance(command.prompt, TextPrompt) and not command.truncate_prompt_tokens:
            return command.prompt.text
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def _render(self, prompt: ChatPrompt) -> list[int]:
        rendered = self._rendered(prompt)
        # a template that wrote the begin-of-text token itself gets no second one: encode_guarded looks at the first id
        return self._tokenizer.encode_guarded(
            rendered.text, rendered.guard, add_special_tokens=prompt.add_special_tokens
        )

    def _rendered(self, prompt: ChatPrompt) -> RenderedPrompt:
        if self._template is None:
            raise InvalidRequestError("this model has no chat template; use /v1/completions", param="messages")
        return self._template.render(
            prompt.messages,
            tools=prompt.tools,
            add_generation_prompt=prompt.add_generation_prompt,
            continue_final_message=prompt.continue_final_message,
            kwargs=prompt.template_kwargs,
        )


def _param_and_size(prompt: TextPrompt | ChatPrompt) -> tuple[str, int]:
    """The field the text came from, and its bytes."""
    if isinstance(prompt, TextPrompt):
        return "prompt", len(prompt.text.encode())
    texts = (message.get("content") for message in prompt.messages)
    size = sum(len(text.encode()) for text in texts if isinstance(text, str))
    size_of_tools = len(msgspec.json.encode(prompt.tools)) if prompt.tools else 0
    return ("messages" if size > size_of_tools else "tools"), size + size_of_tools
