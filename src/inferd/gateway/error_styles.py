"""How an error is told in each dialect, by the path that was asked for: its words, its status, its shape.

The words are one table for a dialect, which its warnings use too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error as HTTP knows it, before a dialect words it. kind: OpenAI's type."""

    status: int
    message: str
    kind: str
    param: str | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """names: fields of SamplingParams and ChatTurn that the dialect calls otherwise. statuses: those it has another one
    for."""

    body: Callable[[Failure], dict[str, Any]]
    names: Mapping[str, str] = field(default_factory=dict)
    statuses: Mapping[int, int] = field(default_factory=dict)

    def apply(self, failure: Failure, names: Mapping[str, str] = {}) -> Failure:
        """The failure in the words and with the status of this dialect. names: of one call, over the dialect's."""
        status = self.statuses.get(failure.status, failure.status)
        param, names = failure.param, {**self.names, **names}
        if param is None or param not in names:
            return replace(failure, status=status)
        own = names[param]
        message = re.sub(rf"\b{re.escape(param)}\b", own, failure.message)
        return replace(failure, status=status, param=own, message=message)


def openai(failure: Failure) -> dict[str, Any]:
    return {
        "error": {"message": failure.message, "type": failure.kind, "param": failure.param, "code": failure.code},
    }


_ANTHROPIC_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def anthropic(failure: Failure) -> dict[str, Any]:
    usual = "api_error" if failure.status >= 500 else "invalid_request_error"
    kind = _ANTHROPIC_KINDS.get(failure.status, usual)
    return {"type": "error", "error": {"type": kind, "message": failure.message}}


def plain(failure: Failure) -> dict[str, Any]:
    """Ollama's, and KServe's."""
    return {"error": failure.message}


_TGI_KINDS = {404: "model_not_found", 401: "authentication", 424: "generation", 429: "overloaded"}


def tgi(failure: Failure) -> dict[str, Any]:
    usual = "incomplete_generation" if failure.status >= 500 else "validation"
    return {"error": failure.message, "error_type": _TGI_KINDS.get(failure.status, usual)}


_LLAMA_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "not_supported_error",
    501: "not_supported_error",
    503: "unavailable_error",
}


def llama_server(failure: Failure) -> dict[str, Any]:
    usual = "server_error" if failure.status >= 500 else "invalid_request_error"
    kind = _LLAMA_KINDS.get(failure.status, usual)
    if failure.code == "context_length_exceeded":
        kind = "exceed_context_size_error"
    return {"error": {"code": failure.status, "message": failure.message, "type": kind}}


OPENAI = Style(body=openai, names={"thinking_budget": "thinking_token_budget"})
RESPONSES = Style(
    body=openai,
    names={
        "max_tokens": "max_output_tokens",
        "messages": "input",
        "structured_outputs": "text",
        "thinks": "reasoning",
        "reasoning_effort": "reasoning.effort",
    },
)
ANTHROPIC = Style(
    body=anthropic,
    names={
        "stop": "stop_sequences",
        "structured_outputs": "output_config",
        "thinks": "thinking",
        "thinking_budget": "thinking",
        "reasoning_effort": "output_config.effort",
    },
    statuses={503: 529},
)
OLLAMA = Style(
    body=plain,
    names={
        "max_tokens": "num_predict",
        "repetition_penalty": "repeat_penalty",
        "structured_outputs": "format",
        "logprobs": "top_logprobs",
        "thinks": "think",
        "reasoning_effort": "think",
    },
)
TGI = Style(
    body=tgi,
    names={"max_tokens": "max_new_tokens", "structured_outputs": "grammar", "logprobs": "top_n_tokens"},
    statuses={400: 422, 500: 424, 503: 429},
)
LLAMA_SERVER = Style(
    body=llama_server,
    names={
        "max_tokens": "n_predict",
        "repetition_penalty": "repeat_penalty",
        "structured_outputs": "grammar",
        "logprobs": "n_probs",
        "n": "n_cmpl",
    },
)
# the longest prefix that fits counts; all else is in OpenAI's shape
_STYLES: dict[str, Style] = {
    "/v1/messages": ANTHROPIC,
    "/v1/responses": RESPONSES,
    "/api/": OLLAMA,
    "/v2": Style(body=plain),
    "/v2/rerank": OPENAI,
    "/v2/embed": OPENAI,
    **dict.fromkeys(("/generate", "/info", "/chat_tokenize", "/invocations", "/vertex"), TGI),
    **dict.fromkeys(("/embed", "/predict", "/similarity"), TGI),
    **dict.fromkeys(("/embeddings", "/embedding"), OPENAI),
    **dict.fromkeys(("/completion", "/infill", "/props", "/slots", "/apply-template", "/models"), LLAMA_SERVER),
}


def style_of(path: str) -> Style:
    if path == "/":  # only TGI's clients post there
        return TGI
    fitting = [prefix for prefix in _STYLES if path.startswith(prefix)]
    return _STYLES[max(fitting, key=len)] if fitting else OPENAI
