"""The tiny models of every family as GGUF: same logits, through GGUF's names, row orders and metadata."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferd.errors import MalformedFileError
from inferd.models.loader import load_checkpoint
from inferd.quantization.types import TensorType
from model.test_families import DESCRIBED, check, tensors_of
from support.gguf_writer import write_gguf

ARCHITECTURES = {"mistral": "llama", "gemma3_text": "gemma3"}
# two say what GGUF has no key for: windows of some layers only, and a scale that is not the head size
NAMES = [name for name in DESCRIBED if name not in ("qwen2_windows", "gemma2")]
_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.qkv_proj": "attn_qkv", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate_up_proj": "ffn_up",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
_GEMMA_NAMES = _NAMES | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def gguf_name(name: str, architecture: str) -> str:
    part, kind = name.rsplit(".", 1)
    names = _GEMMA_NAMES if architecture.startswith("gemma") else _NAMES
    if part in names:
        return f"{names[part]}.{kind}"
    _, _, layer, inside = part.split(".", 3)
    return f"blk.{layer}.{names[inside]}.{kind}"


def interleave(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """Llama's q and k: GGUF puts row i of a head's first half beside row i of its second half."""
    half = rows.shape[0] // num_heads // 2
    order = [head * 2 * half + i + part * half for head in range(num_heads) for i in range(half) for part in (0, 1)]
    return rows[order]


def metadata_of(config: dict[str, Any], architecture: str) -> dict[str, Any]:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    rope = config["rope_parameters"]
    rope = rope.get("full_attention", rope)
    keys = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": heads,
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "rope.freq_base": float(rope["rope_theta"]),
        "rope.dimension_count": int(head_dim * rope.get("partial_rotary_factor", 1)),
    }
    if config.get("sliding_window"):
        keys["attention.sliding_window"] = config["sliding_window"]
    if architecture == "gemma2":
        keys["attn_logit_softcapping"] = float(config["attn_logit_softcapping"])
        keys["final_logit_softcapping"] = float(config["final_logit_softcapping"])
    if rope["rope_type"] == "linear":
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    if rope["rope_type"] == "longrope":
        original = rope["original_max_position_embeddings"]
        ratio = config["max_position_embeddings"] / original
        keys["rope.scaling.original_context_length"] = original
        keys["rope.scaling.attn_factor"] = math.sqrt(1 + math.log(ratio) / math.log(original))
    return {"general.architecture": architecture} | {f"{architecture}.{key}": value for key, value in keys.items()}


def llama3_divisors(rope: dict[str, Any], dims: int) -> list[float]:
    """From the wavelengths: long ones are stretched by the factor, short ones kept, those between blended."""
    frequencies = rope["rope_theta"] ** (-np.arange(0, dims, 2) / dims)
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * np.pi)  # within the original context
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return [float(1 / (share + (1 - share) / rope["factor"])) for share in kept]


def gguf_tensors(name: str, architecture: str) -> dict[str, np.ndarray]:
    config = DESCRIBED[name]["config"]
    tensors = {}
    for key, values in tensors_of(name).items():
        if architecture == "llama" and "q_proj" in key:
            values = interleave(values, config["num_attention_heads"])
        if architecture == "llama" and "k_proj" in key:
            values = interleave(values, config["num_key_value_heads"])
        if architecture.startswith("gemma") and "norm" in key:
            values = values + np.float32(1)
        tensors[gguf_name(key, architecture)] = values
    rope = config["rope_parameters"]
    if rope.get("rope_type") == "llama3":
        head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        tensors["rope_freqs.weight"] = np.array(llama3_divisors(rope, head_dim), np.float32)
    if rope.get("rope_type") == "longrope":
        tensors["rope_factors_short.weight"] = np.array(rope["short_factor"], np.float32)
        tensors["rope_factors_long.weight"] = np.array(rope["long_factor"], np.float32)
    return tensors


def write(path: Path, name: str, without: tuple[str, ...] = ()) -> Path:
    config = DESCRIBED[name]["config"]
    architecture = ARCHITECTURES.get(config["model_type"], config["model_type"])
    tensors = {key: values for key, values in gguf_tensors(name, architecture).items() if key not in without}
    written = {
        key: (TensorType.F32, values.shape if values.ndim == 2 else len(values), values.tobytes())
        for key, values in tensors.items()
    }
    return write_gguf(path / f"{name}.gguf", metadata_of(config, architecture), written)


@pytest.mark.parametrize("name", NAMES)
def test_gguf_equals_transformers(name: str, tmp_path: Path) -> None:
    check(name, load_checkpoint(write(tmp_path, name)))


def test_longrope_ends_where_the_short_factors_do(tmp_path: Path) -> None:
    spec = load_checkpoint(write(tmp_path, "phi3_longrope")).spec
    rope = DESCRIBED["phi3_longrope"]["config"]["rope_parameters"]
    assert spec.max_position == rope["original_max_position_embeddings"] == 256
    assert spec.ropes[0].factors == tuple(np.array(rope["short_factor"], np.float32).tolist())


def test_long_factors_alone_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "phi3_longrope", without=("rope_factors_short.weight",))
    with pytest.raises(MalformedFileError, match=r"rope_factors_long\.weight without"):
        load_checkpoint(path)
