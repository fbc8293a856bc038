"""The bodies of the routes, and the checks of what is in them."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from inferd.errors import InvalidRequestError
from inferd.gateway.dialects.fields import Refusals, check_fields
from inferd.gateway.json_fields import convert, integral
from inferd.types import StructuredOutputs

RANDOM_SEEDS = (-1, 2**32 - 1)
# llama-server's own, where neither the request nor the model's file says
DEFAULTS: dict[str, Any] = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
_OFF = (0, 0.0)
_ORDER = ["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"]

REFUSED: Refusals = {
    "dynatemp_range": (_OFF, "the temperature does not move"),
    "dry_multiplier": (_OFF, "DRY sampling is not supported"),
    "xtc_probability": (_OFF, "XTC sampling is not supported"),
    "mirostat": ((0,), "mirostat sampling is not supported"),
    "top_n_sigma": ((-1, -1.0, 0, 0.0), "top-n-sigma sampling is not supported"),
    "adaptive_target": ((-1, -1.0), "adaptive sampling is not supported"),
    "n_indent": ((0,), "indentation is not enforced"),
    "min_keep": ((0, 1), "samplers keep at least one token"),
    "t_max_predict_ms": ((0, -1), "there is no limit of time"),
    "samplers": ((_ORDER, [name for name in _ORDER if name != "penalties"]), "the order of samplers is fixed"),
    "post_sampling_probs": ((False,), "probabilities are those of the model, before sampling"),
    "return_progress": ((False,), "the progress of a prompt is not told"),
    "grammar_lazy": ((False,), "a grammar holds from the first token"),
    "lora": (([],), "adapters are chosen by the name of the model"),
    "logprobs": ((0, False), "use n_probs"),
}
# of samplers that are off, of a shifted context, of where and how fast a request runs: the answer is the same
HARMLESS = frozenset(
    """adaptive_decay backend_sampling dry_allowed_length dry_base dry_penalty_last_n dry_sequence_breakers
    dynatemp_exponent id_slot mirostat_eta mirostat_tau n_cache_reuse n_discard n_keep speculative.n_max
    speculative.n_min speculative.p_min speculative.type sse_ping_interval xtc_threshold""".split()
)


class CompletionBody(msgspec.Struct, kw_only=True):
    prompt: Any = ""
    model: str | None = None
    stream: bool = False
    n_predict: int | None = None
    max_tokens: int | None = None  # n_predict goes before it
    n_cmpl: int | None = None
    n: int | None = None  # n_cmpl goes before it
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int = -1
    stop: str | list[str] = []
    logit_bias: list[tuple[int | str, float | bool]] | dict[str, float | bool] = {}
    n_probs: int = 0
    ignore_eos: bool = False
    grammar: str = ""
    json_schema: dict[str, Any] | bool | None = None
    cache_prompt: bool = True
    return_tokens: bool = False
    timings_per_token: bool = False
    response_fields: list[str] = []


class Extra(msgspec.Struct, kw_only=True):
    text: str
    filename: str = "file"


class InfillBody(CompletionBody, kw_only=True):
    input_prefix: str
    input_suffix: str
    input_extra: list[Extra] = []


def read_body(fields: dict[str, Any], shape: type[CompletionBody]) -> tuple[CompletionBody, tuple[str, ...]]:
    """The body, and warnings. Raises InvalidRequestError that names the field."""
    known = frozenset(shape.__struct_fields__)
    warnings = check_fields(fields, honoured=known, harmless=HARMLESS, refused=REFUSED)
    body = convert(integral({name: value for name, value in fields.items() if name in known}), shape)
    if body.grammar and body.json_schema is not None:
        raise InvalidRequestError("give either grammar or json_schema", param="grammar")
    last_n = body.repeat_last_n
    if last_n is not None and last_n < -1:
        raise InvalidRequestError("repeat_last_n must be -1, 0 or above", param="repeat_last_n")
    if last_n is not None and last_n > 0 and _has_penalty(body):
        warnings += ("repeat_last_n: penalties look at the whole text, not at its last tokens only",)
    return body, warnings


def sampling_of(body: CompletionBody) -> dict[str, Any]:
    """Fields of SamplingParams, but for logit_bias. Raises InvalidRequestError."""
    num = body.max_tokens if body.n_predict is None else body.n_predict
    num = -1 if num is None else num
    if num < -2:
        raise InvalidRequestError("n_predict must be -1, -2, 0 or above", param="n_predict")
    penalties = {
        "repetition_penalty": body.repeat_penalty,
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
    }
    if body.repeat_last_n == 0:
        penalties = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    count = body.n if body.n_cmpl is None else body.n_cmpl
    same = ("temperature", "top_k", "top_p", "min_p", "typical_p")
    values = {
        **{name: getattr(body, name) for name in same},
        **penalties,
        "n": count,
        "seed": secrets.randbits(32) if body.seed in RANDOM_SEEDS else body.seed,
    }
    values = {name: value for name, value in values.items() if value is not None}
    if values.get("temperature", 0) < 0:
        values["temperature"] = 0  # llama-server's word for greedy
    values["max_tokens"] = max(1, num) if num >= 0 else None
    values["stop"] = [body.stop] if isinstance(body.stop, str) else [text for text in body.stop if text]
    values["ignore_eos"] = body.ignore_eos
    values["logprobs"] = body.n_probs or None
    return values


def drops_output(body: CompletionBody) -> bool:
    """Only the prompt was to be read; the engine generates one token all the same."""
    return body.n_predict == 0 or (body.n_predict is None and body.max_tokens == 0)


def structured_of(body: CompletionBody) -> StructuredOutputs | None:
    if body.grammar:
        return StructuredOutputs(kind="grammar", value=body.grammar)
    if body.json_schema is None:
        return None
    return StructuredOutputs(kind="json_schema", value=msgspec.json.encode(body.json_schema).decode())


def _has_penalty(body: CompletionBody) -> bool:
    return body.repeat_penalty not in (None, 1.0) or bool(body.presence_penalty) or bool(body.frequency_penalty)
