"""Throughput and time to first token against MLPerf and TensorRT-LLM runs, and the interval that TTFT is given."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from inferd.planner.capacity import at_rate, saturated, typical_ttft
from inferd.planner.hardware import Device, device_named
from inferd.planner.memory import plan_memory
from inferd.planner.precision import Precision, precision_named
from inferd.planner.roofline import Coefficients, Deployment, RooflineTimer
from inferd.planner.shapes import ModelShape, preset
from inferd.planner.simulate import Limits
from inferd.planner.tables import Row, number, read_table
from inferd.planner.workload import Workload

MAX_SEQS = 1024
# Mean prompt tokens where a log does not state them: OpenOrca as long as its answers, the others as MLCommons posted.
PROMPTS = (("OpenOrca", 294), ("LongBench", 9400), ("CNN", 778))
MODELS = (
    ("llama2-70b", "llama-2-70b"), ("llama3.1-405b", "llama-3-405b"), ("llama3.1-8b", "llama-3-8b"),
    ("neuralmagic_Llama-2-7b", "llama-2-7b"), ("Llama-3.3-70B", "llama-3-70b"), ("gpt-oss-20b", "gpt-oss-20b"),
    ("gpt-oss-120b", "gpt-oss-120b"), ("DeepSeek-R1", "deepseek-v3"), ("Qwen3-235B", "qwen3-235b-a22b"),
)  # fmt: skip
HARDWARE = (
    ("H100-SXM", "h100-sxm"), ("H200", "h200-sxm"), ("B200", "b200-sxm"), ("MI300X", "mi300x"),
    ("MI325X", "mi325x"), ("RTX 4090", "rtx4090"),
)  # fmt: skip
PRECISIONS = (("FP8", "fp8"), ("NVFP4", "nvfp4"), ("FP4", "nvfp4"), ("INT4", "int4"), ("MXFP4", "mxfp4"))
WIDTH = 1.645  # standard deviations each way: nine in ten, if the logarithms were normal


@dataclass(frozen=True, slots=True)
class ServingRun:
    """A published run of a whole system, and what the planner says of one replica of it."""

    id: str
    model: str
    hardware: str
    precision: str
    framework: str
    scenario: str
    tp: int
    is_tp_stated: bool
    measured_rate: float | None  # output tokens/s of one replica
    predicted_rate: float
    measured_ttft: float | None  # median, seconds
    predicted_ttft: float | None

    @property
    def rate_error(self) -> float:
        assert self.measured_rate is not None
        return self.predicted_rate / self.measured_rate - 1

    @property
    def ttft_ratio(self) -> float:
        """Measured over predicted."""
        assert self.measured_ttft is not None
        assert self.predicted_ttft is not None
        return self.measured_ttft / self.predicted_ttft


def serving_runs(coefficients: Coefficients) -> list[ServingRun]:
    rows = read_table("validation_points")
    return [run for row in rows if (run := _run(row, coefficients)) is not None]


def _starts(pairs: Sequence[tuple[str, str]], text: str) -> str | None:
    return next((name for start, name in pairs if text.startswith(start)), None)


def _run(row: Row, coefficients: Coefficients) -> ServingRun | None:
    """None: a single stream, a steady batch, or a shape or length that is not known."""
    model, hardware = _starts(MODELS, row["model"]), _starts(HARDWARE, row["hardware"])
    precision = _starts(PRECISIONS, row["precision"])
    prompt = number(row, "isl") or next((n for start, n in PROMPTS if row["workload"].startswith(start)), None)
    output, per_device = number(row, "osl"), number(row, "tok_s_per_accel")
    if not (model and hardware and precision and prompt and output and per_device) or row["id"].startswith("MLE"):
        return None
    shape, device, number_format = preset(model), device_named(hardware), precision_named(precision)
    stated = re.search(r"TP(\d+)|DEP(\d+)", row["parallelism"])
    workload = Workload(prompt_tokens=round(prompt), output_tokens=round(output))
    tp = int(stated[1] or stated[2]) if stated else smallest_group(shape, number_format, device, workload)
    deployment = Deployment(shape, number_format, 1.0, device, tp, dp_attention=bool(stated and stated[2]))
    limits = limits_of(deployment, workload)
    timer = RooflineTimer(deployment, coefficients)
    top = saturated(timer, workload, limits)
    state = at_rate(timer, workload, limits, per_device * tp / output) or top
    ttft = number(row, "ttft_p50_ms")
    return ServingRun(
        id=row["id"], model=model, hardware=hardware, precision=precision, framework=row["framework"],
        scenario=row["scenario"].lower(), tp=tp, is_tp_stated=stated is not None,
        measured_rate=per_device * tp if row["scenario"].lower() in ("offline", "throughput") else None,
        predicted_rate=top.output_rate, measured_ttft=None if ttft is None else ttft / 1e3,
        predicted_ttft=typical_ttft(timer, workload, limits, state) if ttft is not None else None,
    )  # fmt: skip


def smallest_group(shape: ModelShape, precision: Precision, device: Device, workload: Workload) -> int:
    """The fewest devices (1, 2, 4, 8) that hold 64 requests: what throughput submissions run."""
    groups = (Deployment(shape, precision, 1.0, device, tp) for tp in (1, 2, 4))
    return next((group.tp for group in groups if _held(group, workload) >= 64), 8)


def limits_of(deployment: Deployment, workload: Workload) -> Limits:
    held = max(1.0, _held(deployment, workload))
    return Limits(MAX_SEQS, held * workload.request_tokens, token_budget=8192)


def _held(d: Deployment, workload: Workload) -> float:
    """Requests that a group holds with an 8-bit cache."""
    context = workload.request_tokens
    plan = plan_memory(d.shape, d.precision, 1.0, d.device, tp=d.tp, context=context, dp_attention=d.dp_attention)
    return plan.max_concurrency.value


def ratio_interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Factors around a prediction: mean +- WIDTH standard deviations of a new one, in logarithms."""
    logs = [math.log(ratio) for ratio in ratios]
    reach = WIDTH * stdev(logs) * math.sqrt(1 + 1 / len(logs))
    return math.exp(mean(logs) - reach), math.exp(mean(logs) + reach)


def held_out_coverage(runs: Sequence[ServingRun]) -> tuple[float, dict[str, float]]:
    """Share of TTFT runs inside the interval made from the other hardware; overall, and by hardware."""
    runs = [run for run in runs if run.measured_ttft is not None]
    inside: dict[str, list[bool]] = {}
    for run in runs:
        low, high = ratio_interval([other.ttft_ratio for other in runs if other.hardware != run.hardware])
        inside.setdefault(run.hardware, []).append(low <= run.ttft_ratio <= high)
    every = [hit for hits in inside.values() for hit in hits]
    return sum(every) / len(every), {name: sum(hits) / len(hits) for name, hits in inside.items()}
