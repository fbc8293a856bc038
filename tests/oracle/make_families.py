"""Logits of tiny random models of every family by transformers, in fp32.

    PYTHONPATH=tests python tests/oracle/make_families.py      (transformers 5.24; seconds)

Writes tests/golden/families.json (config, names and shapes of the tensors) and families.npz (logits of 160 tokens).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from model.tiny_hf import token_ids, weight

GOLDEN = Path(__file__).parent.parent / "golden"
_SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip
_GEMMA = {"head_dim": 16, "sliding_window": 20, "query_pre_attn_scalar": 24, "tie_word_embeddings": True}
_LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 64}  # fmt: skip
_LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0, 1.1, 1.5, 2.5],
             "long_factor": [1.0, 2.0, 4.0, 8.0], "partial_rotary_factor": 0.5,
             "original_max_position_embeddings": 256}  # fmt: skip
# name -> model_type and what differs from _SIZES
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"head_dim": 16}),
    "llama3": ("llama", {"rope_parameters": _LLAMA3, "hidden_size": 64}),
    "llama_linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.5}}),
    "mistral": ("mistral", {"sliding_window": 24, "head_dim": 16}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True, "num_attention_heads": 6}),
    "qwen2_windows": ("qwen2", {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "gemma2": ("gemma2", _GEMMA | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}),
    "gemma2_plain_scale": ("gemma2", _GEMMA | {"query_pre_attn_scalar": 16}),
    "gemma3": ("gemma3_text", _GEMMA | {"query_pre_attn_scalar": 16, "num_hidden_layers": 7, "rope_parameters": {
        "full_attention": {"rope_type": "linear", "rope_theta": 1e5, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}}),
    "phi3": ("phi3", {"sliding_window": 40, "rope_parameters": {
        "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}, "hidden_size": 64}),
    "phi3_longrope": ("phi3", {"hidden_size": 64, "max_position_embeddings": 1024, "rope_parameters": _LONGROPE,
                               "original_max_position_embeddings": 256}),
}  # fmt: skip


def build(name: str) -> Any:
    """A model of transformers whose every parameter is a function of its name."""
    model_type, changes = FAMILIES[name]
    config = transformers.AutoConfig.for_model(model_type, **(_SIZES | changes))
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    offset = 0.0 if model_type.startswith("gemma") else 1.0
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(weight(key, tuple(parameter.shape), norm_offset=offset)))
    return model


def logits_of(model: Any) -> np.ndarray:
    """(160, vocab) fp32"""
    with torch.no_grad():
        ids = torch.from_numpy(token_ids(model.config.vocab_size))[None]
        return np.asarray(model(input_ids=ids).logits[0], np.float32)


def main() -> None:
    described, logits = {}, {}
    for name in FAMILIES:
        model = build(name)
        logits[name] = logits_of(model)
        described[name] = {
            "config": json.loads(model.config.to_json_string()),
            "tensors": {key: list(parameter.shape) for key, parameter in model.named_parameters()},
        }
    (GOLDEN / "families.json").write_text(json.dumps(described, indent=1, sort_keys=True) + "\n")
    np.savez_compressed(GOLDEN / "families.npz", **logits)


if __name__ == "__main__":
    main()
