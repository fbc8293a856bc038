"""What a model file says is taken as meant or refused by name, never ignored."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferd.errors import MalformedFileError, ModelLoadError, UnsupportedModelError
from inferd.models.families import FAMILIES
from inferd.models.loader import load_checkpoint
from inferd.quantization.types import TensorType
from model.test_families import DESCRIBED, check, reference_logits, tensors_of, write_directory
from model.test_families_gguf import gguf_tensors, metadata_of
from support.gguf_writer import write_gguf


def write_llama(path: Path, metadata: dict[str, Any] | None = None, tensors: dict[str, Any] | None = None) -> Path:
    """metadata: keys changed, None removes; tensors: name -> (type, shape, data) added."""
    keys = metadata_of(DESCRIBED["llama"]["config"], "llama") | (metadata or {})
    written = {
        key: (TensorType.F32, values.shape if values.ndim == 2 else len(values), values.tobytes())
        for key, values in gguf_tensors("llama", "llama").items()
    }
    kept = {key: value for key, value in keys.items() if value is not None}
    return write_gguf(path / "m.gguf", kept, written | (tensors or {}))


def write_config(path: Path, name: str = "llama", generation: dict[str, Any] | None = None, **changes: Any) -> Path:
    directory = write_directory(path, DESCRIBED[name]["config"] | changes, tensors_of(name))
    if generation is not None:
        (directory / "generation_config.json").write_text(json.dumps(generation))
    return directory


@pytest.mark.parametrize("architecture", ["mamba", "", "LLAMA", "llama\udcff"])
def test_unsupported_architecture_is_named_with_the_supported_ones(tmp_path: Path, architecture: str) -> None:
    for path in (
        write_llama(tmp_path, {"general.architecture": architecture}),
        write_config(tmp_path / "d", model_type=architecture),
    ):
        with pytest.raises(UnsupportedModelError) as caught:
            load_checkpoint(path)
        str(caught.value).encode("utf-8")
        assert repr(architecture) in str(caught.value)
        assert all(family in str(caught.value) for family in FAMILIES)


def test_unsupported_tensor_type_is_named_with_the_supported_ones(tmp_path: Path) -> None:
    path = write_llama(tmp_path, tensors={"output.weight": (23, (64, 256), bytes(64 * 136))})  # type: ignore[dict-item]
    with pytest.raises(UnsupportedModelError, match=r"output\.weight has type IQ4_XS.*supported: F32, F16.*Q6_K, BF16"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "tensor", ["blk.0.attn_q.bias", "blk.1.ffn_gate_exps.weight", "output.bias", "blk.9.attn_norm.weight"]
)
def test_a_tensor_without_a_place_is_refused(tmp_path: Path, tensor: str) -> None:
    path = write_llama(tmp_path, tensors={tensor: (TensorType.F32, 8, bytes(32))})
    with pytest.raises(UnsupportedModelError, match=f"tensor {tensor}"):
        load_checkpoint(path)


def test_tensors_that_say_nothing_new_are_left_out(tmp_path: Path) -> None:
    tensors = tensors_of("qwen2")
    more = {"lm_head.weight": tensors["model.embed_tokens.weight"], "model.rotary_emb.inv_freq": np.ones(8, np.float32)}
    check("qwen2", load_checkpoint(write_directory(tmp_path, DESCRIBED["qwen2"]["config"], tensors | more)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "rope_type 'yarn'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "rope_parameters": None}, "rope_type 'dynamic'"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
    ],
)
def test_features_that_no_family_implements(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        load_checkpoint(write_config(tmp_path, **changes))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope.scaling.type", "yarn"),
        ("expert_count", 8),
        ("attention.value_length", 8),
        ("attention.clamp_kqv", 8.0),
    ],
)
def test_gguf_features_that_no_family_implements(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=f"llama.{key}"):
        load_checkpoint(write_llama(tmp_path, {f"llama.{key}": value}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_count", None), ("block_count", 0), ("block_count", 2**31 - 1), ("block_count", "2"),
        ("block_count", [2]), ("attention.head_count", 0), ("attention.head_count", 5),
        ("attention.head_count", True), ("embedding_length", 47), ("feed_forward_length", 2**32),
        ("rope.freq_base", 0.0), ("rope.freq_base", float("nan")), ("attention.layer_norm_rms_epsilon", float("inf")),
        ("rope.dimension_count", 15), ("attention.key_length", 0), ("context_length", 0),
    ],
)  # fmt: skip
def test_wrong_values_are_refused(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(ModelLoadError):
        load_checkpoint(write_llama(tmp_path, {f"llama.{key}": value}))


def test_attention_scale_of_the_file_counts(tmp_path: Path) -> None:
    plain = reference_logits(load_checkpoint(write_llama(tmp_path)))
    checkpoint = load_checkpoint(write_llama(tmp_path, {"llama.attention.scale": 0.5}))
    assert checkpoint.spec.attention_scale == 0.5
    assert np.abs(reference_logits(checkpoint) - plain).max() > 0.1


@pytest.mark.parametrize("name", ["llama3", "llama_linear", "gemma2", "gemma3", "phi3_longrope"])
def test_configs_of_the_older_form(name: str, tmp_path: Path) -> None:
    """rope_theta and rope_scaling at the top, as files from before rope_parameters have them."""
    config = dict(DESCRIBED[name]["config"])
    rope = dict(config.pop("rope_parameters"))
    if name == "gemma3":
        config |= {"rope_local_base_freq": rope["sliding_attention"]["rope_theta"], "sliding_window_pattern": 6}
        rope = dict(rope["full_attention"])
    if name.startswith("gemma"):
        del config["layer_types"]
    config["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    if rope["rope_type"] != "default":
        config["rope_scaling"] = {"type": rope.pop("rope_type"), **rope}
    check(name, load_checkpoint(write_directory(tmp_path, config, tensors_of(name))))


def test_sampling_defaults_of_a_directory(tmp_path: Path) -> None:
    given = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05, "max_length": 9, "min_p": None}
    defaults = load_checkpoint(write_config(tmp_path, generation=given | {"eos_token_id": [2, 5, -1, 10**6]}))
    want = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05, "eos_token_ids": [2, 5]}
    assert defaults.generation_defaults == want
    greedy = load_checkpoint(write_config(tmp_path, generation=given | {"do_sample": False}))
    assert greedy.generation_defaults == {"eos_token_ids": [2]}  # of config.json


def test_sampling_defaults_of_a_gguf(tmp_path: Path) -> None:
    given = {"temp": 0.5, "top_k": 40, "top_p": 0.75, "min_p": 0.125, "penalty_repeat": 1.5, "mirostat": 1}
    path = write_llama(tmp_path, {f"general.sampling.{key}": value for key, value in given.items()})
    want = {"temperature": 0.5, "top_k": 40, "top_p": 0.75, "min_p": 0.125, "repetition_penalty": 1.5}
    assert load_checkpoint(path).generation_defaults == want


@pytest.mark.parametrize(("key", "value"), [("temperature", -1), ("top_p", "0.5"), ("top_k", 0.5), ("min_p", True)])
def test_bad_sampling_defaults_are_refused_once_at_load(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(MalformedFileError, match=rf"generation_config\.json: {key}"):
        load_checkpoint(write_config(tmp_path, generation={key: value}))


@pytest.mark.parametrize("kind", [TensorType.F16, TensorType.BF16])
def test_half_precision_weights_are_their_rounded_values(tmp_path: Path, kind: TensorType) -> None:
    header: dict[str, Any] = {}
    rounded, data = {}, b""
    for name, values in tensors_of("qwen3").items():
        if kind == TensorType.F16:
            half = values.astype(np.float16)
            rounded[name] = half.astype(np.float32)
        else:
            half = (values.view(np.uint32) >> 16).astype(np.uint16)
            rounded[name] = (half.astype(np.uint32) << 16).view(np.float32)
        offsets = [len(data), len(data) + half.nbytes]
        header[name] = {"dtype": kind.name, "shape": half.shape, "data_offsets": offsets}
        data += half.tobytes()
    config = DESCRIBED["qwen3"]["config"]
    want = reference_logits(load_checkpoint(write_directory(tmp_path / "f32", config, rounded)))
    directory = write_directory(tmp_path / "half", config, rounded)
    text = json.dumps(header).encode()
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    got = load_checkpoint(directory)
    assert got.weights["layers.0.q"].kind == kind
    np.testing.assert_array_equal(reference_logits(got), want)
