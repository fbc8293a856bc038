"""Every request field by what becomes of it: honoured, harmless, refused unless it changes nothing, or unknown.

Nothing is dropped in silence: an unknown field is named in the answer's `warnings`.
"""

from __future__ import annotations

from typing import Any

from inferd.errors import InvalidRequestError
from inferd.types import SamplingParams

# go to SamplingParams as they are, which checks types and ranges
SAMPLING = frozenset(SamplingParams.__dataclass_fields__) - {
    "logprobs",
    "max_tokens",
    "stop",
    "structured_outputs",
}

# may hold anything: they ask for nothing that this server could do otherwise
HARMLESS = frozenset(
    """ec_transfer_params guided_decoding_backend guided_whitespace_pattern include_reasoning kv_transfer_params
    media_io_kwargs metadata mm_processor_kwargs parallel_tool_calls prediction prompt_cache_key prompt_cache_options
    prompt_cache_retention reasoning reasoning_effort request_id rid safety_identifier separate_reasoning service_tier
    session_id session_params spaces_between_special_tokens store stream_reasoning truncation user verbosity
    vllm_xargs""".split()
)

_TOOLS = "tools are not supported by this server"
_FORMAT = "structured outputs are not supported by this server"

# field -> (values that change nothing, why any other is refused)
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "tools": (([],), _TOOLS),
    "tool_choice": (("none", "auto"), _TOOLS),
    "functions": (([],), _TOOLS),
    "function_call": (("none", "auto"), _TOOLS),
    "response_format": (({"type": "text"},), _FORMAT + '; only {"type": "text"} is accepted'),
    "structured_outputs": (({},), _FORMAT),
    "guided_json": ((), _FORMAT),
    "guided_regex": ((), _FORMAT),
    "guided_choice": ((), _FORMAT),
    "guided_grammar": ((), _FORMAT),
    "regex": ((), _FORMAT),
    "ebnf": ((), _FORMAT),
    "json_schema": ((), _FORMAT),
    "modalities": ((["text"], []), "only text is generated"),
    "audio": ((), "only text is generated"),
    "web_search_options": (({},), "nothing is fetched"),
    "documents": (([],), "documents are not supported"),
    "suffix": (("",), "fill-in-the-middle is not supported"),
    "chat_template": ((), "templates of a request are not run; the model's own is used"),
    "length_penalty": ((1, 1.0), "beam search is not supported"),
    "use_beam_search": ((False,), "beam search is not supported"),
    "truncation_side": (("left",), "only the left side is cut"),
    "stream_interval": ((1,), "every step is streamed"),
    "logprob_token_ids": (([],), "only the most likely tokens are reported"),
    "return_token_offsets": ((False,), "token offsets are not reported"),
    "repetition_detection": (({}, False), "repetition detection is not supported"),
    "watermarking": ((False, {}), "watermarks are not supported"),
    "thinking_token_budget": ((), "thinking budgets are not supported"),
    "lora_path": ((), "an adapter is chosen by the name of the model"),
    "return_logprob": ((False,), "use logprobs"),
    "logprob_start_len": ((-1,), "use prompt_logprobs"),
    "top_logprobs_num": ((0,), "use top_logprobs"),
    "token_ids_logprob": (([],), "only the most likely tokens are reported"),
    "return_hidden_states": ((False,), "hidden states are not reported"),
    "custom_logit_processor": ((), "code of a request is not run"),
}
_REFUSED_IN_CHAT: dict[str, tuple[tuple[Any, ...], str]] = {
    "echo": ((False,), "only completions can echo their prompt"),
}
MAX_WARNINGS = 16
MAX_NAME_LEN = 80


def check_fields(fields: dict[str, Any], honoured: frozenset[str], *, is_chat: bool) -> tuple[str, ...]:
    """Warnings, one for each field nobody knows. Raises InvalidRequestError with the name of a refused one."""
    unknown = []
    refused = {**REFUSED, **_REFUSED_IN_CHAT} if is_chat else REFUSED
    for name, value in fields.items():
        if name in honoured or name in HARMLESS:
            continue
        if name in refused:
            _refuse(name, value, *refused[name])
        else:
            unknown.append(f"unknown field {name[:MAX_NAME_LEN]!r} was ignored")
    if len(unknown) > MAX_WARNINGS:
        unknown[MAX_WARNINGS:] = [f"{len(unknown) - MAX_WARNINGS} more unknown fields were ignored"]
    return tuple(unknown)


def _refuse(name: str, value: Any, neutral: tuple[Any, ...], reason: str) -> None:
    # type and value: False is not 0 here
    if not any(value == allowed and type(value) is type(allowed) for allowed in neutral):
        raise InvalidRequestError(f"{name}: {reason}", param=name)
