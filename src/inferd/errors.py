"""Every error inferd raises on purpose.

InferdError
├── ConfigError                  a bad option of the operator; names the option and the allowed range
├── InvalidRequestError          a user's mistake; names the field (HTTP 400)
│   └── ContextLengthError       prompt + output can never fit; carries both numbers
├── ModelNotFoundError           no such model, alias or file (HTTP 404)
├── ModelLoadError               a model file that cannot be used; names the key or tensor
│   ├── MalformedFileError       the bytes contradict the format
│   └── UnsupportedModelError    valid, but an architecture, tensor type or tokenizer we do not run
├── TemplateError                a chat template that fails or exceeds its caps (HTTP 400)
├── eval.data.DataError          a data set or results file that cannot be used; names file, line and field
├── OverloadedError              the queue is full; carries the seconds to wait (HTTP 503)
└── EngineError                  the engine failed; the request was not the cause (HTTP 500)
"""

from __future__ import annotations


class InferdError(Exception):
    """Root of the tree."""


class ConfigError(InferdError):
    """An option of the operator is wrong."""


class InvalidRequestError(InferdError):
    """A user's mistake. `param` is the request field, `code` a stable machine-readable word."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class ContextLengthError(InvalidRequestError):
    """Prompt and requested output exceed the context of the model."""

    def __init__(self, num_prompt_tokens: int, max_tokens: int, max_model_len: int) -> None:
        wanted = f"{num_prompt_tokens} in the prompt"
        if max_tokens:
            wanted += f" and {max_tokens} for the output"
        super().__init__(
            f"This model's maximum context length is {max_model_len} tokens. "
            f"You requested {num_prompt_tokens + max_tokens} tokens ({wanted}).",
            param="messages",
            code="context_length_exceeded",
        )
        self.num_prompt_tokens = num_prompt_tokens
        self.max_model_len = max_model_len


class ModelNotFoundError(InferdError):
    """No such model."""


class ModelLoadError(InferdError):
    """A model file that cannot be used."""


class MalformedFileError(ModelLoadError):
    """The bytes of a model file contradict its format."""


class UnsupportedModelError(ModelLoadError):
    """A valid model of a kind inferd does not run; the message lists the kinds it does."""


class TemplateError(InferdError):
    """A chat template failed or exceeded its time, size or recursion cap."""


class OverloadedError(InferdError):
    """The queue is full."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineError(InferdError):
    """The engine failed; the request was not the cause."""
