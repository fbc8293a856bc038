"""LoRA adapters: files of PEFT and GGUF against PEFT's own logits (tests/oracle/make_lora.py), and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferd.errors import MalformedFileError, ModelLoadError, ModelNotFoundError, UnsupportedModelError
from inferd.executors.reference import ReferenceExecutor
from inferd.models.checkpoint import Checkpoint
from inferd.models.loader import load_checkpoint
from inferd.models.lora import Adapter, load_adapter
from inferd.quantization.types import TensorType
from model.test_families import BLOCK, DESCRIBED, GOLDEN, TOLERANCE, tensors_of, write_directory
from model.test_families_gguf import ARCHITECTURES, gguf_name, interleave
from model.test_families_gguf import write as write_model_gguf
from model.tiny_hf import lora_weight, token_ids
from support.adapters import merged, random_adapter, write_peft, write_peft_tensors
from support.batches import batch
from support.gguf_writer import write_gguf
from support.tiny_models import FAMILIES, tiny_checkpoint

ADAPTERS: dict[str, Any] = json.loads((GOLDEN / "lora.json").read_text())
LOGITS = np.load(GOLDEN / "lora.npz")
UNIFORM = [name for name, described in ADAPTERS.items() if not described["config"]["rank_pattern"]]


def adapter_tensors(name: str) -> dict[str, np.ndarray]:
    return {key: lora_weight(key, tuple(shape)) for key, shape in ADAPTERS[name]["tensors"].items()}


def write_adapter(path: Path, name: str, **config: Any) -> Path:
    return write_peft_tensors(path, ADAPTERS[name]["config"] | config, adapter_tensors(name))


def write_adapter_gguf(path: Path, name: str, **metadata: Any) -> Path:
    """Llama's B has its rows interleaved, as the rows of the W it stands beside."""
    model, options = DESCRIBED[ADAPTERS[name]["model"]]["config"], ADAPTERS[name]["config"]
    architecture = ARCHITECTURES.get(model["model_type"], model["model_type"])
    tensors = {}
    for key, values in adapter_tensors(name).items():
        module, _, matrix = key.removesuffix(".weight").removeprefix("base_model.model.").rpartition(".")
        for part, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if architecture == "llama" and matrix == "lora_B" and module.endswith(part):
                values = interleave(values, model[heads])
        data = np.ascontiguousarray(values).tobytes()
        file_name = f"{gguf_name(module + '.weight', architecture)}.{matrix.lower()}"
        tensors[file_name] = (TensorType.F32, values.shape, data)
    root = np.sqrt(options["r"]) if options["use_rslora"] else 1  # the format has no word for it but another alpha
    keys = {"general.type": "adapter", "adapter.type": "lora", "general.architecture": architecture,
            "adapter.lora.alpha": float(options["lora_alpha"] * root)}  # fmt: skip
    return write_gguf(path, keys | metadata, tensors)


def base(name: str, path: Path, kind: str) -> Checkpoint:
    model = ADAPTERS[name]["model"]
    if kind == "gguf":
        return load_checkpoint(write_model_gguf(path, model))
    return load_checkpoint(write_directory(path / "model", DESCRIBED[model]["config"], tensors_of(model)))


def logits_of(checkpoint: Checkpoint, adapter: Adapter) -> np.ndarray:
    """(num_tokens, vocab)"""
    ids = token_ids(checkpoint.spec.vocab_size).tolist()
    blocks = range(-(-len(ids) // BLOCK))
    executor = ReferenceExecutor(checkpoint, num_blocks=len(blocks), block_size=BLOCK)
    adapter_id = executor.load_adapter(adapter)
    return executor.logits(batch([(ids, 0, blocks)], logit_rows=range(len(ids)), adapter_ids=[adapter_id]))


@pytest.mark.parametrize("kind", ["hf", "gguf"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_a_peft_adapter_equals_peft_whatever_the_model_came_in(name: str, kind: str, tmp_path: Path) -> None:
    checkpoint = base(name, tmp_path, kind)
    adapter = load_adapter(write_adapter(tmp_path / "adapter", name), checkpoint.spec)
    assert np.abs(logits_of(checkpoint, adapter) - LOGITS[name]).max() <= TOLERANCE


@pytest.mark.parametrize("kind", ["hf", "gguf"])
@pytest.mark.parametrize("name", UNIFORM)
def test_a_gguf_adapter_equals_peft_whatever_the_model_came_in(name: str, kind: str, tmp_path: Path) -> None:
    checkpoint = base(name, tmp_path, kind)
    adapter = load_adapter(write_adapter_gguf(tmp_path / "adapter.gguf", name), checkpoint.spec)
    assert np.abs(logits_of(checkpoint, adapter) - LOGITS[name]).max() <= TOLERANCE


def test_the_goldens_can_tell() -> None:
    """Each adapter moves the logits a thousand times further than the tolerance."""
    plain = np.load(GOLDEN / "families.npz")
    for name, described in ADAPTERS.items():
        assert np.abs(LOGITS[name] - plain[described["model"]]).mean() > 1000 * TOLERANCE, name


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_equals_merged_weights(family: str) -> None:
    checkpoint = tiny_checkpoint(family)
    adapter, prompt = random_adapter(checkpoint.spec, 8, seed=1), list(range(40, 90))
    sizes = {"num_blocks": 8, "block_size": BLOCK}
    executor = ReferenceExecutor(checkpoint, **sizes)
    ids = [executor.load_adapter(adapter)]
    step = batch([(prompt, 0, range(4))], logit_rows=range(50), adapter_ids=ids)
    want = ReferenceExecutor(merged(checkpoint, adapter), **sizes).logits(
        batch([(prompt, 0, range(4))], logit_rows=range(50))
    )
    assert np.abs(executor.logits(step) - want).max() < 5e-5 * max(1, np.abs(want).max())


@pytest.mark.parametrize(("changes", "message"), [
    ({"peft_type": "LOHA"}, "peft_type = 'LOHA'"), ({"use_dora": True}, "use_dora"), ({"bias": "all"}, "bias = 'all'"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"), ({"lora_bias": True}, "lora_bias"),
    ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights"), ({"fan_in_fan_out": True}, "fan_in_fan_out"),
    ({"layer_replication": [[0, 2]]}, "layer_replication"), ({"use_bdlora": {"nblocks": 2}}, "use_bdlora"),
    ({"alora_invocation_tokens": [3]}, "alora_invocation_tokens"),
    ({"r": 5}, "down_proj has rank 4, adapter_config.json says 5"), ({"r": "x"}, "r must be a number"),
    ({"lora_alpha": 0}, "lora_alpha must be above 0"), ({"rank_pattern": [1]}, "rank_pattern must be an object"),
    ({"alpha_pattern": {"(": 1}}, "not a regular expression"), ({"alpha_pattern": {"(a+)+": 1}}, "too complicated"),
    ({"alpha_pattern": {".*" * 9: 1}}, "too complicated"),
    ({"target_modules": ["q_proj", "lost_proj"]}, "no tensor of lost_proj"),
])  # fmt: skip
def test_a_field_that_is_wrong_or_not_supported_is_named(changes, message: str, tmp_path: Path) -> None:
    spec = base("llama", tmp_path, "hf").spec
    with pytest.raises(ModelLoadError, match=re.escape(message)):
        load_adapter(write_adapter(tmp_path / "adapter", "llama", **changes), spec)


Q = "base_model.model.model.layers.0.self_attn.q_proj."


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({Q + "lora_A.weight": (4, 40)}, MalformedFileError, r"q_proj.lora_A.weight is 4 x 40, this model needs 4 x 48"),
    ({Q + "lora_B.weight": (64, 3)}, MalformedFileError, r"q_proj.lora_B.weight is 64 x 3, this model needs 64 x 4"),
    ({Q + "lora_B.weight": None}, MalformedFileError, "only one of the two matrices of model.layers.0.self_attn.q"),
    ({Q + "lora_A.weight": (513, 48), Q + "lora_B.weight": (64, 513)}, UnsupportedModelError, "rank 513"),
    ({Q + "lora_magnitude_vector": (1, 64)}, UnsupportedModelError, "lora_magnitude_vector"),
    ({"base_model.model.model.embed_tokens.lora_embedding_A": (4, 64)}, UnsupportedModelError, "lora_embedding_A"),
    ({"base_model.model.lm_head.weight": (64, 48)}, UnsupportedModelError, "lm_head"),
    ({"base_model.model.lm_head.lora_A.weight": (4, 48)}, UnsupportedModelError, "lm_head"),
    ({"base_model.model.model.layers.9.mlp.up_proj.lora_A.weight": (4, 48)}, UnsupportedModelError, "layers.9"),
])  # fmt: skip
def test_a_tensor_that_does_not_fit_is_named(changes, error, message: str, tmp_path: Path) -> None:
    tensors = adapter_tensors("llama")
    for key, shape in changes.items():
        tensors.pop(key, None)
        if shape is not None:
            tensors[key] = lora_weight(key, shape)
    path = write_peft_tensors(tmp_path / "adapter", ADAPTERS["llama"]["config"], tensors)
    with pytest.raises(error, match=message):
        load_adapter(path, base("llama", tmp_path, "hf").spec)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    tensors = adapter_tensors("llama")
    tensors[Q + "lora_A.weight"][0, 0] = np.nan
    path = write_peft_tensors(tmp_path / "adapter", ADAPTERS["llama"]["config"], tensors)
    with pytest.raises(MalformedFileError, match=r"q_proj\.lora_A\.weight holds values that are not finite"):
        load_adapter(path, base("llama", tmp_path, "hf").spec)


@pytest.mark.parametrize(("metadata", "message"), [
    ({"general.type": "model"}, "general.type must be 'adapter'"), ({"adapter.type": "other"}, "adapter.type"),
    ({"general.architecture": "qwen2"}, "the adapter is for qwen2, the model is llama"),
    ({"adapter.alora.invocation_tokens": [1, 2]}, "adapter.alora.invocation_tokens"),
])  # fmt: skip
def test_a_gguf_adapter_of_another_kind_is_refused(metadata, message: str, tmp_path: Path) -> None:
    path = write_adapter_gguf(tmp_path / "adapter.gguf", "llama", **metadata)
    with pytest.raises(UnsupportedModelError, match=message):
        load_adapter(path, base("llama", tmp_path, "hf").spec)


def test_missing_files_are_named(tmp_path: Path) -> None:
    spec = base("llama", tmp_path, "hf").spec
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        load_adapter(tmp_path / "nowhere", spec)
    path = write_adapter(tmp_path / "adapter", "llama")
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    with pytest.raises(ModelNotFoundError, match=r"adapter_model\.safetensors is missing"):
        load_adapter(path, spec)
    (path / "adapter_config.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"adapter_config\.json"):
        load_adapter(path, spec)


def test_weights_outside_the_directory_are_not_read(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "adapter", "llama")
    weights = path / "adapter_model.safetensors"
    weights.rename(tmp_path / "elsewhere.safetensors")
    weights.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(MalformedFileError, match="leaves the directory"):
        load_adapter(path, base("llama", tmp_path, "hf").spec)


def test_an_adapter_of_a_decoder_inside_a_larger_model(tmp_path: Path) -> None:
    """Models that also see images have the decoder under language_model, in one of two places."""
    spec, want = base("llama", tmp_path, "hf").spec, load_adapter_of("llama", tmp_path / "plain")
    for i, inner in enumerate(("model.language_model.", "language_model.model.")):
        tensors = {key.replace(".model.model.", f".model.{inner}"): t for key, t in adapter_tensors("llama").items()}
        path = write_peft_tensors(tmp_path / f"adapter-{i}", ADAPTERS["llama"]["config"], tensors)
        got = load_adapter(path, spec)
        assert got.weights.keys() == want.weights.keys()
        assert all(np.array_equal(got.weights[name].b, want.weights[name].b) for name in want.weights)


def load_adapter_of(name: str, path: Path) -> Adapter:
    path.mkdir()
    return load_adapter(write_adapter(path / "adapter", name), base(name, path, "hf").spec)


def test_scale_of_a_written_adapter(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("llama")
    adapter = random_adapter(checkpoint.spec, 4, seed=3, scale=0.25)
    read = load_adapter(write_peft(tmp_path / "adapter", adapter), checkpoint.spec)
    assert {weight.scale for weight in read.weights.values()} == {0.25}
    assert all(np.array_equal(read.weights[name].a, weight.a) for name, weight in adapter.weights.items())
