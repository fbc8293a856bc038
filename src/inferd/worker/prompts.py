"""Prompts become token ids, inside the worker: a bad template or text fails its own request only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from inferd.errors import InvalidRequestError
from inferd.types import GenerateRequest
from inferd.worker.protocol import Accepted, ChatPrompt, Generate, Prompt, TextPrompt, TokenPrompt


class Tokenizer(Protocol):
    @property
    def vocab_size(self) -> int: ...
    def encode(self, text: str, *, add_special_tokens: bool = True, parse_special: bool = False) -> list[int]: ...
    def encode_segments(self, segments: Any) -> list[int]: ...
    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str: ...
    def token_bytes(self, token_id: int) -> bytes: ...


class PromptReader:
    """Thread-safe as far as the tokenizer is; holds no state of requests."""

    def __init__(self, tokenizer: Tokenizer, template: Any | None) -> None:
        self._tokenizer = tokenizer
        self._template = template

    def to_request(self, command: Generate) -> tuple[GenerateRequest, Accepted]:
        """Raises InvalidRequestError or TemplateError."""
        ids = self.to_token_ids(command.prompt)
        if command.truncate_prompt_tokens is not None:
            ids = ids[-command.truncate_prompt_tokens :]
        if not ids:
            raise InvalidRequestError("the prompt must have at least one token", param="prompt")
        prompt = tuple(ids)
        command.sampling.check_token_ids(self._tokenizer.vocab_size)
        request = GenerateRequest(
            request_id=command.request_id,
            prompt_token_ids=prompt,
            sampling=command.sampling,
            priority=command.priority,
            tenant=command.tenant,
            cache_salt=command.cache_salt,
        )
        text = self._tokenizer.decode(ids, skip_special_tokens=False) if command.want_prompt_text else None
        if command.want_prompt_text and isinstance(command.prompt, TextPrompt) and not command.truncate_prompt_tokens:
            text = command.prompt.text
        return request, Accepted(request_id=command.request_id, prompt_token_ids=prompt, prompt_text=text)

    def to_token_ids(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, TokenPrompt):
            self.check_ids(prompt.token_ids, "prompt")
            return list(prompt.token_ids)
        if isinstance(prompt, TextPrompt):
            return self._tokenizer.encode(prompt.text, add_special_tokens=prompt.add_special_tokens, parse_special=True)
        return self._render(prompt)

    def check_ids(self, token_ids: Sequence[int], param: str) -> None:
        top = self._tokenizer.vocab_size - 1
        for token_id in token_ids:
            if not 0 <= token_id <= top:
                raise InvalidRequestError(f"{param} must hold token ids from 0 to {top}, got {token_id}", param=param)

    def _render(self, prompt: ChatPrompt) -> list[int]:
        if self._template is None:
            raise InvalidRequestError("this model has no chat template; use /v1/completions", param="messages")
        segments = self._template.render(
            prompt.messages,
            tools=None,
            add_generation_prompt=prompt.add_generation_prompt,
            continue_final_message=prompt.continue_final_message,
            kwargs=prompt.template_kwargs,
        )
        return self._tokenizer.encode_segments(segments)
