"""Ollama's `options` as fields of SamplingParams."""

from __future__ import annotations

from typing import Any

from inferd.errors import InvalidRequestError
from inferd.gateway.dialects.fields import Refusals, check_fields
from inferd.gateway.json_fields import integral

# Ollama's own, where neither the request nor the model's file says
DEFAULTS: dict[str, Any] = {"temperature": 0.8, "top_k": 40, "top_p": 0.9}
_SAMPLING = {
    **{name: name for name in ("temperature", "top_k", "top_p", "min_p", "typical_p")},
    **{name: name for name in ("presence_penalty", "frequency_penalty")},
    "repeat_penalty": "repetition_penalty",
}
# where the model runs, how fast, and what a shifted context would keep: the answer is the same
_HARMLESS = frozenset(
    """draft_num_predict f16_kv logits_all low_vram main_gpu mirostat_eta mirostat_tau num_batch num_gpu num_keep
    num_thread numa use_mlock use_mmap vocab_only""".split()
)
_REFUSED: Refusals = {
    "mirostat": ((0,), "mirostat sampling is not supported"),
    "tfs_z": ((1, 1.0), "tail-free sampling is not supported"),
    "penalize_newline": ((True,), "penalties look at every token"),
    "rope_frequency_base": ((), "the model's own is used"),
    "rope_frequency_scale": ((), "the model's own is used"),
}
_OWN = frozenset({*_SAMPLING, "num_predict", "num_ctx", "seed", "stop", "repeat_last_n"})
_PENALTIES = {"repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}  # and what switches each off


def sampling_of_options(options: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fields of SamplingParams, and warnings. Raises InvalidRequestError that names the option."""
    options = integral({name: value for name, value in options.items() if value is not None})
    unknown = check_fields(options, honoured=_OWN, harmless=_HARMLESS, refused=_REFUSED)
    values = {_SAMPLING[name]: value for name, value in options.items() if name in _SAMPLING}
    values["max_tokens"] = _max_tokens(options.get("num_predict", -1))
    stop = options.get("stop", [])
    values["stop"] = [stop] if isinstance(stop, str) else stop
    if options.get("seed", -1) != -1:
        values["seed"] = options["seed"]
    warnings = tuple(text.replace("unknown field", "unknown option") for text in unknown)
    return values, warnings + _penalty_window(options.get("repeat_last_n"), values)


def num_ctx_of(options: dict[str, Any], max_model_len: int) -> int:
    """The context the request asks for. Raises InvalidRequestError when the model has less."""
    num_ctx = integral(options).get("num_ctx")
    if num_ctx is None:
        return max_model_len
    if not isinstance(num_ctx, int) or isinstance(num_ctx, bool) or not 1 <= num_ctx <= max_model_len:
        allowed = f"an integer from 1 to {max_model_len}, the context of this model here"
        raise InvalidRequestError(f"num_ctx must be {allowed}", param="num_ctx")
    return num_ctx


def _max_tokens(num_predict: Any) -> Any:
    if num_predict in (-1, -2):  # no limit; until the context is full
        return None
    if isinstance(num_predict, int) and num_predict < 1:
        raise InvalidRequestError("num_predict must be -1, -2 or above 0", param="num_predict")
    return num_predict


def _penalty_window(last_n: Any, values: dict[str, Any]) -> tuple[str, ...]:
    if last_n is None:
        return ()
    if not isinstance(last_n, int) or last_n < -1:
        raise InvalidRequestError("repeat_last_n must be -1, 0 or above", param="repeat_last_n")
    if last_n == 0:
        values.update(_PENALTIES)
    is_active = any(values.get(name, off) != off for name, off in _PENALTIES.items())
    if last_n > 0 and is_active:
        return ("repeat_last_n: penalties look at the whole text, not at its last tokens only",)
    return ()
