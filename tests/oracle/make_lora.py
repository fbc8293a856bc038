"""Logits of tiny models with LoRA adapters by PEFT, in fp32, from the models of make_families.py.

    PYTHONPATH=tests:tests/oracle python tests/oracle/make_lora.py      (peft 0.21, transformers 5.24; seconds)

Writes tests/golden/lora.json (adapter_config.json as PEFT saves it, names and shapes of its tensors) and lora.npz.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import make_families
import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from model.tiny_hf import lora_weight

GOLDEN = Path(__file__).parent.parent / "golden"
# name -> the model of make_families.py, and the options of LoraConfig
ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}),
    "llama_attention": ("llama", {"r": 8, "lora_alpha": 5, "use_rslora": True, "target_modules": ["q_proj", "v_proj"],
                                  "layers_to_transform": [0, 2]}),
    "qwen2": ("qwen2", {"r": 4, "lora_alpha": 8, "target_modules": "all-linear",
                        "rank_pattern": {"q_proj": 6, r"layers\.[12]\.mlp\.down_proj": 2},
                        "alpha_pattern": {"^model.layers.0.self_attn.v_proj": 3, "up_proj": 12}}),
    "qwen3": ("qwen3", {"r": 16, "lora_alpha": 16, "target_modules": ["k_proj", "o_proj", "gate_proj"]}),
    "gemma3": ("gemma3", {"r": 4, "lora_alpha": 4, "target_modules": "all-linear"}),
    "phi3": ("phi3", {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}),
}  # fmt: skip


def build(name: str) -> Any:
    """The model under its adapter, whose every value is a function of its tensor's name."""
    family, options = ADAPTERS[name]
    model = get_peft_model(make_families.build(family), LoraConfig(task_type="CAUSAL_LM", **options)).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if ".lora_" in key:
                values = lora_weight(key.replace(".default", ""), tuple(parameter.shape))
                parameter.copy_(torch.from_numpy(values))
    return model


def described(name: str, model: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads((Path(folder) / "adapter_config.json").read_text())
        config["target_modules"].sort()
        tensors = load_file(Path(folder) / "adapter_model.safetensors")
    return {
        "model": ADAPTERS[name][0],
        "config": config,
        "tensors": {key: list(tensor.shape) for key, tensor in sorted(tensors.items())},
    }


def main() -> None:
    descriptions, logits = {}, {}
    for name in ADAPTERS:
        model = build(name)
        logits[name] = make_families.logits_of(model)
        descriptions[name] = described(name, model)
    (GOLDEN / "lora.json").write_text(json.dumps(descriptions, indent=1, sort_keys=True) + "\n")
    np.savez_compressed(GOLDEN / "lora.npz", **logits)


if __name__ == "__main__":
    main()
