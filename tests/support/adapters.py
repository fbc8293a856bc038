"""LoRA adapters for tests: random ones in memory, PEFT directories, GGUF files, and models with one merged in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from inferd.executors.base import F32
from inferd.models.checkpoint import Checkpoint
from inferd.models.loader import expected_shape
from inferd.models.lora import TARGETS, Adapter, LoraWeight
from inferd.models.spec import DecoderSpec
from inferd.quantization.formats import dequantize_weight
from inferd.quantization.types import TensorType, Weight

_HF = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}  # fmt: skip


def to_bf16(values: F32) -> F32:
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)


def random_adapter(
    spec: DecoderSpec, rank: int, seed: int, *, targets: tuple[str, ...] = TARGETS, scale: float = 0.5
) -> Adapter:
    """Values that bf16 holds exactly; what it adds to a product is about half as large as the product."""
    rng = np.random.default_rng(seed)

    def values(rows: int, cols: int) -> F32:
        return to_bf16(rng.normal(0, cols**-0.5, (rows, cols)).astype(np.float32))

    weights = {}
    for layer in range(spec.num_layers):
        for target in targets:
            name = f"layers.{layer}.{target}"
            rows, cols = expected_shape(spec, name)
            weights[name] = LoraWeight(values(rank, cols), values(rows, rank), scale)
    return Adapter(Path(f"random-{seed}"), weights)


def write_peft(path: Path, adapter: Adapter, **config: Any) -> Path:
    """As PEFT saves it; all ranks and scales of the adapter are the same."""
    tensors: dict[str, F32] = {}
    for name, weight in adapter.weights.items():
        _, layer, target = name.split(".")
        module = f"base_model.model.model.layers.{layer}.{_HF[target]}"
        tensors[f"{module}.lora_A.weight"], tensors[f"{module}.lora_B.weight"] = weight.a, weight.b
        rank, scale = len(weight.a), weight.scale
    plain = {"peft_type": "LORA", "r": rank, "lora_alpha": scale * rank, "target_modules": "all-linear"}
    return write_peft_tensors(path, plain | config, tensors)


def write_peft_tensors(path: Path, config: Mapping[str, Any], tensors: Mapping[str, F32]) -> Path:
    from safetensors.numpy import save_file

    path.mkdir(parents=True, exist_ok=True)
    (path / "adapter_config.json").write_text(json.dumps(config))
    save_file(dict(tensors), path / "adapter_model.safetensors")
    return path


def merged(checkpoint: Checkpoint, adapter: Adapter) -> Checkpoint:
    """The model whose matrices are W + scale * B A, in fp32."""
    weights = dict(checkpoint.weights)
    for name, lora in adapter.weights.items():
        total = dequantize_weight(weights[name]) + np.float32(lora.scale) * (lora.b @ lora.a)
        data = np.ascontiguousarray(total).view(np.uint8)
        weights[name] = Weight(name, TensorType.F32, *total.shape, data)
    return replace(checkpoint, weights=weights)
