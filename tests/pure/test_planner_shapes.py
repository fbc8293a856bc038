"""Shapes, formats, memory: against published sizes and the planner's own invariants."""

from __future__ import annotations

import pytest

from inferd.errors import ConfigError
from inferd.planner.hardware import catalogue, device_named, node_named
from inferd.planner.memory import GIB, kv_bytes, kv_shards, plan_memory, weights_of
from inferd.planner.precision import KV_BYTES, PRECISIONS, kv_bytes_named, precision_named
from inferd.planner.shape_files import file_precision, shape_from_config, shape_from_gguf
from inferd.planner.shapes import ModelShape, preset, presets
from inferd.planner.tables import number, read_table
from inferd.planner.validate_memory import memory_runs


@pytest.mark.parametrize(
    ("name", "num_bytes"),
    [
        ("llama-3-70b", 327_680),
        ("llama-3.1-8b", 131_072),
        ("qwen3-32b", 262_144),
        ("mistral-small-24b", 163_840),
        ("deepseek-v3", 70_272),
    ],
)
def test_kv_bytes_of_a_token(name: str, num_bytes: int) -> None:
    assert preset(name).kv_elements_per_token * KV_BYTES["bf16"] == num_bytes


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("llama-3-70b", 70.553706496),
        ("llama-3-8b", 8.030261248),
        ("llama-3-405b", 405.853),
        ("mixtral-8x7b", 46.703),
        ("deepseek-v3", 671.026),
        ("qwen2.5-72b", 72.706),
        ("gemma-3-1b", 1.000),
        ("smollm2", 0.1345),
        ("gpt-oss-120b", 116.8),
        ("nemotron-nano-9b-v2", 8.89),
    ],
)
def test_parameters_are_those_of_the_model_card(name: str, billions: float) -> None:
    assert preset(name).total_params / 1e9 == pytest.approx(billions, rel=1e-3)


def test_weights_of_llama_3_70b() -> None:
    shape = preset("llama-3-70b")
    gib = {name: weights_of(shape, precision_named(name)).total / GIB for name in ("bf16", "fp8")}
    assert gib["bf16"] == pytest.approx(131.42, abs=0.005)
    assert gib["fp8"] == pytest.approx(67.67, abs=0.005)
    assert weights_of(shape, precision_named("nvfp4")).total / 1e9 == pytest.approx(42.7, abs=0.05)


def test_weights_and_pools_are_those_that_vllm_measured() -> None:
    for run in memory_runs():
        assert abs(run.weights_error) < 0.01, run.model
        if run.pool is not None and run.pool_of_components is not None:
            assert run.pool_of_components == pytest.approx(run.pool, abs=0.02), run.model
    large = [run for run in memory_runs() if run.pool is not None and run.pool > 4 and "Mistral" not in run.model]
    assert len(large) == 6
    assert all(run.pool_of_shape == pytest.approx(run.pool, rel=0.01) for run in large)


def test_one_h100_is_too_small_for_70b_in_fp8_and_two_are_not() -> None:
    shape, precision, device = preset("llama-3-70b"), precision_named("fp8"), device_named("h100-sxm")
    one, two = (plan_memory(shape, precision, 2.0, device, tp=tp, context=4096) for tp in (1, 2))
    assert not one.fits
    assert -1.6 * GIB < one.pool.value < -1.2 * GIB
    assert two.fits


def test_windows_and_states_bound_the_cache() -> None:
    gemma = preset("gemma-3-1b")
    full = gemma.kv_elements_per_token
    assert gemma.kv_elements(512) == 512 * full
    assert gemma.kv_elements(32_000) == pytest.approx(full * (4 * 32_000 + 22 * 512) / 26)
    hybrid = preset("nemotron-nano-9b-v2")
    assert kv_bytes(hybrid, 2.0, 16) > 2 * hybrid.state_elements > 0
    assert (kv_shards(gemma, 8), kv_shards(preset("llama-3-70b"), 4), kv_shards(preset("deepseek-v3"), 8)) == (1, 4, 1)
    assert kv_shards(preset("deepseek-v3"), 8, dp_attention=True) == 8


def test_experts_touched_grow_from_top_k_to_all() -> None:
    shape = preset("qwen3-30b-a3b")
    touched = [shape.experts_touched(tokens) for tokens in (1, 4, 16, 64, 4096)]
    assert touched[0] == pytest.approx(8)
    assert [round(value) for value in touched[1:4]] == [29, 82, 126]
    assert touched[4] == pytest.approx(128)


def test_every_device_has_dense_rates_only() -> None:
    """FP8 = 2 x BF16 and FP4 = 2 x FP8, but for Gaudi 3 and for GeForce, whose FP32-accumulate rate is halved."""
    for device in catalogue().values():
        if device.fp8_dense_tflops and device.id != "gaudi3-oam":
            assert device.fp8_dense_tflops == pytest.approx(2 * (device.bf16_dense_tflops or 0), rel=0.02), device.id
        if device.fp4_dense_tflops:
            factor = 4 if device.id == "rtx5090" else 2
            assert device.fp4_dense_tflops == pytest.approx(factor * (device.fp8_dense_tflops or 0), rel=0.01)
        assert device.mem_gb > 0 < device.mem_bw_gbps
        assert device.confidence in "ABC"


def test_every_price_has_a_date() -> None:
    for row in read_table("prices"):
        assert row["date"][:4].isdecimal()
        assert row["source"]
        assert number(row, "usd_per_gpu_h") or number(row, "output_usd_per_m")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: preset("lama-3-70b"), "did you mean llama-3-70b"),
        (lambda: device_named("h100"), "may be h100-sxm or h100-pcie"),
        (lambda: device_named("h20"), "'h20' is not known"),
        (lambda: device_named("m4"), "may be m4-max"),
        (lambda: node_named("h200:0"), "from 1 to 4096"),
        (lambda: node_named("h200:x"), "as in h200:8"),
        (lambda: precision_named("fp7"), "precision: 'fp7' is not known"),
        (lambda: kv_bytes_named("int3"), "one of bf16, fp16, fp8, int8, q8_0"),
        (lambda: device_named("/nowhere/card.json"), "cannot be read"),
    ],
)
def test_unknown_names_are_refused_with_what_is_known(call: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        call()  # type: ignore[operator]


def test_a_device_of_the_user(tmp_path: object) -> None:
    path = tmp_path / "card.json"  # type: ignore[operator]
    path.write_text('{"id": "x", "name": "X", "kind": "gpu", "mem_gb": 10, "mem_bw_gbps": 100, "tdp_w": 50}')
    assert device_named(str(path)).bandwidth == 100e9
    path.write_text('{"id": "x", "name": "X", "kind": "gpu", "mem_gb": 10}')
    with pytest.raises(ConfigError, match="lacks mem_bw_gbps"):
        device_named(str(path))
    path.write_text('{"id": "x", "sparse_tflops": 1}')
    with pytest.raises(ConfigError, match="sparse_tflops"):
        device_named(str(path))


LLAMA_CONFIG = {
    "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 131072,
}  # fmt: skip


def same(shape: ModelShape, name: str) -> None:
    expected = preset(name)
    assert shape.total_params == expected.total_params - expected.other_params
    assert shape.kv_elements(10_000) == expected.kv_elements(10_000)
    assert shape.active_params == expected.active_params


def test_shape_of_a_config() -> None:
    same(shape_from_config(LLAMA_CONFIG, "x"), "llama-3-8b")
    gemma = {
        "model_type": "gemma3_text", "num_hidden_layers": 26, "hidden_size": 1152, "num_attention_heads": 4,
        "num_key_value_heads": 1, "head_dim": 256, "intermediate_size": 6912, "vocab_size": 262144,
        "sliding_window": 512, "max_position_embeddings": 32768,
    }  # fmt: skip
    same(shape_from_config(gemma, "x"), "gemma-3-1b")
    kinds = (["sliding_attention"] * 5 + ["full_attention"]) * 4 + ["sliding_attention"] * 2
    same(shape_from_config({"text_config": gemma | {"layer_types": kinds}}, "x"), "gemma-3-1b")


def test_shape_of_mixtures_and_latent_attention() -> None:
    mixtral = LLAMA_CONFIG | {"vocab_size": 32000, "num_local_experts": 8, "num_experts_per_tok": 2}
    same(shape_from_config(mixtral, "x"), "mixtral-8x7b")
    deepseek = {
        "model_type": "deepseek_v3", "num_hidden_layers": 61, "hidden_size": 7168, "num_attention_heads": 128,
        "num_key_value_heads": 128, "head_dim": 128, "intermediate_size": 18432, "vocab_size": 129280,
        "n_routed_experts": 256, "num_experts_per_tok": 8, "moe_intermediate_size": 2048, "n_shared_experts": 1,
        "first_k_dense_replace": 3, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128, "v_head_dim": 128,
    }  # fmt: skip
    same(shape_from_config(deepseek, "x"), "deepseek-v3")


def test_shape_of_a_gguf_and_its_bits() -> None:
    metadata = {
        "general.architecture": "llama", "llama.block_count": 32, "llama.embedding_length": 4096,
        "llama.feed_forward_length": 14336, "llama.attention.head_count": 32, "llama.attention.head_count_kv": 8,
        "llama.context_length": 8192, "llama.vocab_size": 128256,
    }  # fmt: skip
    shape = shape_from_gguf(metadata, ["token_embd.weight", "output.weight"], "x")
    same(shape, "llama-3-8b")
    assert shape_from_gguf(metadata, ["token_embd.weight"], "x").tied
    sizes = {"token_embd.weight": 10**8, "output.weight": 10**8, "blk.0.attn_q.weight": 4 * 10**9}
    total = weights_of(shape, file_precision(shape, sizes)).total
    assert total == pytest.approx(sum(sizes.values()), rel=1e-3)


def test_shape_of_a_gguf_with_latent_attention() -> None:
    a = "deepseek2."
    metadata = {
        "general.architecture": "deepseek2", a + "block_count": 61, a + "embedding_length": 7168,
        a + "feed_forward_length": 18432, a + "attention.head_count": 128, a + "vocab_size": 129280,
        a + "expert_count": 256, a + "expert_used_count": 8, a + "expert_feed_forward_length": 2048,
        a + "expert_shared_count": 1, a + "leading_dense_block_count": 3, a + "attention.kv_lora_rank": 512,
        a + "attention.q_lora_rank": 1536, a + "rope.dimension_count": 64, a + "attention.key_length": 192,
        a + "attention.value_length": 128,
    }  # fmt: skip
    same(shape_from_gguf(metadata, ["output.weight"], "x"), "deepseek-v3")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_hidden_layers": None}, "num_hidden_layers must be a whole number"),
        ({"hidden_size": -1}, "hidden_size must be"),
        ({"vocab_size": "many"}, "vocab_size must be"),
        ({"mamba_d_state": 128}, "recurrent layers"),
    ],
)
def test_a_config_that_cannot_be_planned_names_its_key(change: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        shape_from_config(LLAMA_CONFIG | change, "x")


def test_every_preset_and_precision_gives_a_size() -> None:
    for shape in {shape.id: shape for shape in presets().values()}.values():
        for precision in PRECISIONS.values():
            assert 0 < weights_of(shape, precision).total <= 2 * shape.total_params * 1.07
        assert 0 < shape.active_params <= shape.total_params
        assert shape.max_context > 0
