"""Memory against the published measurements of vLLM on H100."""

from __future__ import annotations

from dataclasses import dataclass

from inferd.planner.hardware import device_named
from inferd.planner.memory import GIB, plan_memory
from inferd.planner.precision import precision_named
from inferd.planner.shapes import preset
from inferd.planner.tables import Row, number, read_table

MODELS = {
    "gpt-oss-20b": ("gpt-oss-20b", "mxfp4"),
    "gpt-oss-120b": ("gpt-oss-120b", "mxfp4"),
    "Llama-3.3-70B-FP8-dynamic": ("llama-3-70b", "fp8"),
    "Llama-3.1-8B": ("llama-3-8b", "bf16"),
    "Qwen3-0.6B": ("qwen3-0.6b", "bf16"),
    "Qwen3-32B": ("qwen3-32b", "bf16"),
    "Mistral-Small-3.2-24B": ("mistral-small-24b", "bf16"),
}
# The source says 0.90, at which its own components leave a negative pool; at 0.95 they leave what it lists.
CORRECTED_UTILIZATION = {"gpt-oss-120b": 0.95}


@dataclass(frozen=True, slots=True)
class MemoryRun:
    """GiB on one device; a pool of None did not serve."""

    model: str
    tp: int
    weights: float
    weights_predicted: float
    pool: float | None
    pool_of_components: float | None  # utilization x total less the row's own measured parts
    pool_of_activation: float | None  # weights from the shape, activation as measured
    pool_of_shape: float  # everything from the shape

    @property
    def weights_error(self) -> float:
        return self.weights_predicted / self.weights - 1


def memory_runs() -> list[MemoryRun]:
    return [_run(row) for row in read_table("validation_memory_vllm_h100")]


def _run(row: Row) -> MemoryRun:
    name, precision = MODELS[row["model"]]
    tp, total, weights = int(row["tp"]), float(row["gpu_total_gib"]), float(row["weights_gib_per_gpu"])
    share = CORRECTED_UTILIZATION.get(row["model"], float(row["gpu_memory_utilization"]))
    activation, non_torch = number(row, "activation_gib"), number(row, "non_torch_gib")
    plan = plan_memory(
        preset(name), precision_named(precision), 2.0, device_named("h100-sxm"), tp=tp, context=4096, utilization=share
    )
    predicted = plan.weights.value / GIB
    rest = None if activation is None or non_torch is None else share * total - activation - non_torch
    return MemoryRun(
        model=row["model"],
        tp=tp,
        weights=weights,
        weights_predicted=predicted,
        pool=number(row, "kv_cache_gib"),
        pool_of_components=None if rest is None else rest - weights,
        pool_of_activation=None if rest is None else rest - predicted,
        pool_of_shape=plan.pool.value / GIB,
    )
