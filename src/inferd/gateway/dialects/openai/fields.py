"""Every request field by what becomes of it: honoured, harmless, refused unless it changes nothing, or unknown.

Nothing is dropped in silence: an unknown field is named in the answer's `warnings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inferd.gateway.dialects.fields import check_fields
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
    """ec_transfer_params guided_decoding_backend kv_transfer_params media_io_kwargs metadata mm_processor_kwargs
    prediction prompt_cache_key prompt_cache_options prompt_cache_retention request_id rid safety_identifier
    service_tier session_id session_params spaces_between_special_tokens store truncation user verbosity
    vllm_xargs""".split()
)

# field -> (values that change nothing, why any other is refused)
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "modalities": ((["text"], []), "only text is generated"),
    "audio": ((), "only text is generated"),
    "web_search_options": (({},), "nothing is fetched"),
    "chat_template": ((), "templates of a request are not run; the model's own is used"),
    "length_penalty": ((1, 1.0), "beam search is not supported"),
    "use_beam_search": ((False,), "beam search is not supported"),
    "truncation_side": (("left",), "only the left side is cut"),
    "stream_interval": ((1,), "every step is streamed"),
    "logprob_token_ids": (([],), "only the most likely tokens are reported"),
    "return_token_offsets": ((False,), "token offsets are not reported"),
    "repetition_detection": (({}, False), "repetition detection is not supported"),
    "watermarking": ((False, {}), "watermarks are not supported"),
    "separate_reasoning": ((True,), "reasoning is always apart from the content"),
    "stream_reasoning": ((True,), "reasoning is streamed like all else"),
    "guided_whitespace_pattern": ((), "the white space of JSON cannot be chosen"),
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


def check_body(fields: Mapping[str, Any], honoured: frozenset[str], *, is_chat: bool) -> tuple[str, ...]:
    """Warnings, one for each field nobody knows. Raises InvalidRequestError with the name of a refused one."""
    refused = {**REFUSED, **_REFUSED_IN_CHAT} if is_chat else REFUSED
    return check_fields(fields, honoured=honoured, harmless=HARMLESS, refused=refused)
