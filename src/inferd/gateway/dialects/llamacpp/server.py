"""What llama-server says of itself: its properties, its slots, its models."""

from __future__ import annotations

from typing import Any

from inferd.gateway.calls import sampling_of
from inferd.gateway.dialects.llamacpp.bodies import DEFAULTS, CompletionBody
from inferd.gateway.router import Model
from inferd.gateway.text import below_defaults
from inferd.types import SamplingParams
from inferd.worker.protocol import Ready


def settings_json(sampling: SamplingParams, ready: Ready, body: CompletionBody) -> dict[str, Any]:
    """generation_settings. Samplers that this engine has not are told as switched off."""
    max_tokens = -1 if sampling.max_tokens is None else sampling.max_tokens
    return {
        "n_ctx": ready.max_model_len,
        "seed": sampling.seed if sampling.seed is not None else 2**32 - 1,
        "temperature": sampling.temperature,
        "dynatemp_range": 0.0,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "xtc_probability": 0.0,
        "typical_p": sampling.typical_p,
        "repeat_last_n": -1,
        "repeat_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "dry_multiplier": 0.0,
        "mirostat": 0,
        "stop": list(sampling.stop),
        "max_tokens": max_tokens,
        "n_predict": max_tokens,
        "ignore_eos": sampling.ignore_eos,
        "stream": body.stream,
        "logit_bias": [{"token": token_id, "bias": bias} for token_id, bias in sampling.logit_bias.items()],
        "n_probs": body.n_probs,
        "grammar": body.grammar,
        "timings_per_token": body.timings_per_token,
        "lora": [],
    }


def props_json(model: Model, ready: Ready, version: str) -> dict[str, Any]:
    usual = sampling_of(ready, {**below_defaults(ready, DEFAULTS, {}), "max_tokens": None})
    slot = slots_json(model, ready)[0]
    return {
        "default_generation_settings": {**slot, "params": settings_json(usual, ready, CompletionBody())},
        "total_slots": model.engine.max_num_seqs,
        "model_alias": model.name,
        "model_path": model.name,  # clients show it; where files lie is nobody's business
        "chat_template": ready.details.get("chat_template", ""),
        "modalities": {"vision": False, "audio": False},
        "build_info": f"inferd-{version}",
        "is_sleeping": model.phase != "resident",
    }


def slots_json(model: Model, ready: Ready) -> list[dict[str, Any]]:
    """One for each sequence that can run; which of them a request has means nothing here."""
    stats = model.metrics.stats
    num_running = stats.num_running if stats is not None else 0
    common = {"id_task": -1, "n_ctx": ready.max_model_len, "speculative": model.engine.speculative != "off"}
    return [{"id": i, **common, "is_processing": i < num_running} for i in range(model.engine.max_num_seqs)]


def model_json(model: Model, name: str) -> dict[str, Any]:
    status = "loaded" if model.worker.is_ready else "loading" if model.phase == "resident" else "unloaded"
    return {
        "id": name,
        "object": "model",
        "owned_by": "inferd",
        "created": model.created,
        "in_cache": True,
        "path": model.name,
        "status": {"value": status, "args": []},
    }
