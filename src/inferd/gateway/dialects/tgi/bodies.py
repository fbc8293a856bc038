"""The bodies of the routes, and what their parameters are to the engine."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from inferd.errors import InvalidRequestError
from inferd.gateway.dialects.fields import Refusals, check_fields
from inferd.gateway.json_fields import convert, integral
from inferd.types import StructuredOutputs

MAX_STOPS = 4
REFUSED: Refusals = {
    "best_of": ((1,), "only one sequence is generated"),
    "watermark": ((False,), "watermarks are not supported"),
}
_STRUCTURED = {"json": "json_schema", "json_object": "json_schema", "json_schema": "json_schema", "regex": "regex"}


class Parameters(msgspec.Struct, kw_only=True):
    temperature: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    do_sample: bool = False
    max_new_tokens: int | None = None
    return_full_text: bool = False
    stop: list[str] = []
    stop_sequences: list[str] = []  # the older name
    truncate: int | None = None
    details: bool = False
    decoder_input_details: bool = False
    seed: int | None = None
    top_n_tokens: int | None = None
    grammar: dict[str, Any] | None = None
    adapter_id: str | None = None

    @property
    def has_details(self) -> bool:
        return self.details or self.decoder_input_details

    @property
    def is_sampled(self) -> bool:
        """Without do_sample too, where a value only makes sense for sampling. A temperature of 1 does not."""
        warps = (self.top_k, self.top_p, self.typical_p, None if self.temperature == 1 else self.temperature)
        return self.do_sample or any(value is not None for value in warps)


class Body(msgspec.Struct, kw_only=True):
    inputs: str
    parameters: dict[str, Any] = {}
    stream: bool = False
    model: str | None = None  # where several are served


def read_body(fields: dict[str, Any]) -> tuple[Body, Parameters, tuple[str, ...]]:
    """The body, its parameters, and warnings. Raises InvalidRequestError that names the field."""
    unknown = check_fields(fields, honoured=frozenset(Body.__struct_fields__), harmless=frozenset(), refused={})
    body = convert(fields, Body)
    parameters, warnings = read_parameters(body.parameters)
    return body, parameters, unknown + warnings


def read_parameters(values: dict[str, Any]) -> tuple[Parameters, tuple[str, ...]]:
    values = integral({name: value for name, value in values.items() if value is not None})
    known = frozenset(Parameters.__struct_fields__)
    warnings = check_fields(values, honoured=known, harmless=frozenset(), refused=REFUSED)
    parameters = convert({name: value for name, value in values.items() if name not in REFUSED}, Parameters)
    if parameters.truncate is not None and parameters.truncate < 1:
        raise InvalidRequestError("truncate must be above 0", param="truncate")
    stops = parameters.stop + parameters.stop_sequences
    if len(stops) > MAX_STOPS:
        raise InvalidRequestError(f"stop must hold at most {MAX_STOPS} texts, got {len(stops)}", param="stop")
    return parameters, warnings


def sampling_of(parameters: Parameters, *, wants_tokens: bool) -> dict[str, Any]:
    """Fields of SamplingParams. Nothing is left to the model's own defaults: TGI has none of a model."""
    is_sampled, temperature = parameters.is_sampled, parameters.temperature
    values: dict[str, Any] = {
        "temperature": (1.0 if temperature is None else temperature) if is_sampled else 0,
        "top_k": _or(parameters.top_k, 0),
        "top_p": _or(parameters.top_p, 1.0),
        "min_p": 0.0,
        "typical_p": _or(parameters.typical_p, 1.0),
        "repetition_penalty": _or(parameters.repetition_penalty, 1.0),
        "frequency_penalty": _or(parameters.frequency_penalty, 0.0),
        "presence_penalty": 0.0,
        "max_tokens": parameters.max_new_tokens,
        "stop": parameters.stop + parameters.stop_sequences,
        "include_stop_str_in_output": True,  # TGI's texts end with the stop text
        "logprobs": _or(parameters.top_n_tokens, 0) if wants_tokens else None,
        "prompt_logprobs": 0 if parameters.decoder_input_details else None,
    }
    if is_sampled:  # the answer tells the seed, also of a request that gave none
        values["seed"] = secrets.randbits(63) if parameters.seed is None else parameters.seed
    return values


def structured_of(grammar: dict[str, Any] | None) -> StructuredOutputs | None:
    if grammar is None:
        return None
    kind, value = grammar.get("type"), grammar.get("value")
    if not isinstance(kind, str) or kind not in _STRUCTURED:
        allowed = ", ".join(_STRUCTURED)
        raise InvalidRequestError(f"grammar: type must be one of {allowed}", param="grammar")
    if kind == "regex":
        if not isinstance(value, str) or not value:
            raise InvalidRequestError("grammar: the value of a regex is a text", param="grammar")
        return StructuredOutputs(kind="regex", value=value)
    schema = value.get("schema") if kind == "json_schema" and isinstance(value, dict) else value
    text = schema if isinstance(schema, str) else msgspec.json.encode(schema).decode()
    if not isinstance(schema, dict | str):
        raise InvalidRequestError("grammar: the value must be or hold a JSON schema", param="grammar")
    return StructuredOutputs(kind="json_schema", value=text)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
