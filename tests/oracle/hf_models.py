"""GGUF files as transformers models: dequantized by the gguf library, fp32, nothing of inferd involved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from gguf import GGUFReader, dequantize

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}  # fmt: skip
_GEMMA_LAYER = _LAYER | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_CLASSES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "gemma3": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM),
}


def load_model(path: Path) -> Any:
    """A model of transformers in fp32, in eval mode, with plain attention."""
    reader = GGUFReader(path)
    fields = {
        name: field.contents() for name, field in reader.fields.items() if not name.startswith("tokenizer.ggml.")
    }
    arch = fields["general.architecture"]
    config_class, model_class = _CLASSES[arch]
    state = _state(reader, arch, fields)
    config = config_class(**_config(arch, fields, state), attn_implementation="eager")
    with torch.device("meta"):
        model = model_class(config)
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    assert set(missing) <= tied, missing
    assert not unexpected, unexpected
    model.tie_weights()
    _materialise_buffers(model, config)
    return model.eval()


def _materialise_buffers(model: Any, config: Any) -> None:
    """Buffers that no state dict holds, and that the meta device left empty."""
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    embed = model.model.embed_tokens
    if hasattr(embed, "scalar_embed_scale"):  # Gemma
        embed.register_buffer("embed_scale", torch.tensor(embed.scalar_embed_scale), persistent=False)
    assert not any(buffer.is_meta for buffer in model.buffers())


def _state(reader: Any, arch: str, fields: dict[str, Any]) -> dict[str, torch.Tensor]:
    heads, kv_heads = fields[f"{arch}.attention.head_count"], fields[f"{arch}.attention.head_count_kv"]
    state = {}
    for tensor in reader.tensors:
        weight = np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        name = tensor.name.rsplit(".", 1)[0]
        if arch == "llama" and name.endswith(("attn_q", "attn_k")):
            weight = _undo_rope_permutation(weight, heads if name.endswith("q") else kv_heads)
        if arch == "gemma3" and name.endswith("norm"):
            weight = weight - np.float32(1)  # transformers adds the 1 itself
        state[_hf_name(tensor.name, arch)] = torch.from_numpy(weight)
    return state


def _undo_rope_permutation(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """(rows, cols): GGUF interleaves the rows of llama's q and k for RoPE, transformers keeps two halves."""
    pairs = weight.reshape(num_heads, len(weight) // num_heads // 2, 2, -1)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(weight.shape))


def _hf_name(name: str, arch: str) -> str:
    names = _GEMMA_LAYER if arch == "gemma3" else _LAYER
    part, kind = name.rsplit(".", 1)
    if part in _TOP:
        return f"{_TOP[part]}.{kind}"
    _, layer, inside = part.split(".")
    return f"model.layers.{layer}.{names[inside]}.{kind}"


def _config(arch: str, fields: dict[str, Any], state: dict[str, torch.Tensor]) -> dict[str, Any]:
    def get(key: str, default: Any = None) -> Any:
        return fields.get(f"{arch}.{key}", default)

    theta = get("rope.freq_base")
    config = {
        "vocab_size": state["model.embed_tokens.weight"].shape[0],
        "hidden_size": get("embedding_length"),
        "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": get("attention.head_count"),
        "num_key_value_heads": get("attention.head_count_kv"),
        "max_position_embeddings": get("context_length"),
        "rms_norm_eps": get("attention.layer_norm_rms_epsilon"),
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "tie_word_embeddings": "lm_head.weight" not in state,
    }
    if arch == "gemma3":
        head_dim = get("attention.key_length")
        config |= {
            "head_dim": head_dim,
            "query_pre_attn_scalar": head_dim,
            "sliding_window": get("attention.sliding_window"),
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": theta},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        }
    return config
