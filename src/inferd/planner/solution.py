"""From a resolved request to one layout on one node, and what a replica of it does."""

from __future__ import annotations

import math
from dataclasses import dataclass

from inferd.errors import ConfigError
from inferd.planner.calibrate import CalibratedTimer, Calibration
from inferd.planner.capacity import (
    ServiceLevel,
    SteadyState,
    at_rate,
    goodput,
    idle_ttft,
    max_batch,
    saturated,
    service_level,
    steady_state,
)
from inferd.planner.cost import CostInputs
from inferd.planner.figure import Label, weakest
from inferd.planner.fitted import FITTED_BATCH, FITTED_CONTEXT, Spread, model_of
from inferd.planner.hardware import Node
from inferd.planner.memory import GIB, MemoryPlan, plan_memory
from inferd.planner.precision import Precision, kv_bytes_named
from inferd.planner.roofline import Deployment, RooflineTimer, StepTimer
from inferd.planner.shapes import ModelShape
from inferd.planner.simulate import Limits
from inferd.planner.tables import require
from inferd.planner.workload import Workload

MAX_NODES = 100_000
SCALEUP_DOMAIN = {"gb200-nvl72": 72, "tpu-v5e": 256, "tpu-v6e": 256}  # devices on one fast link; others: 8
CALIBRATED = Spread(1 / 1.1, 1.1)  # the bar that `plan calibrate --check` holds a calibration to


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The input of a plan, names resolved to shapes and nodes. Raises ConfigError that names the option."""

    shape: ModelShape
    node: Node
    precision: Precision
    kv_precision: str
    workload: Workload
    tp: int | None
    max_batch: int
    token_budget: int
    memory_utilization: float
    activation_gib: float | None = None
    costs: CostInputs
    apis: tuple[str, ...]
    calibration: Calibration | None

    def __post_init__(self) -> None:
        require("max_batch", self.max_batch, 1, 65536, "sequences")
        require("token_budget", self.token_budget, 1, 1_000_000, "tokens")
        require("memory_utilization", self.memory_utilization, 0.1, 1)
        if self.activation_gib is not None:
            require("activation_gib", self.activation_gib, 0, 1000, "GiB")
        kv_bytes_named(self.kv_precision)
        tokens, longest = self.workload.request_tokens, self.shape.max_context
        if longest and tokens > longest:
            allowed = f"at most {longest}, the context of {self.shape.id}"
            raise ConfigError(f"prompt_tokens + output_tokens must be {allowed}, got {tokens}")
        if self.tp is not None and self.tp not in layouts(self.node.count):
            allowed = ", ".join(str(n) for n in layouts(self.node.count))
            raise ConfigError(f"tp must divide the {self.node.count} devices of the node ({allowed}), got {self.tp}")
        if self.calibration is not None and self.node.count > 1:
            raise ConfigError("calibration was measured on one machine: hardware must name one device")

    @property
    def layouts(self) -> list[int]:
        """Sizes of a tensor-parallel group to choose from."""
        return [self.tp] if self.tp else [n for n in layouts(self.node.count) if n <= self.shape.heads]

    def is_dp_attention(self, tp: int) -> bool:
        """Latent attention has nothing to split by heads: engines give each device sequences of its own."""
        return self.shape.is_mla and tp > 1

    def memory(self, tp: int) -> MemoryPlan:
        return plan_memory(
            self.shape,
            self.precision,
            kv_bytes_named(self.kv_precision),
            self.node.device,
            tp=tp,
            context=self.workload.request_tokens,
            utilization=self.memory_utilization,
            activation_bytes=None if self.activation_gib is None else self.activation_gib * GIB,
            dp_attention=self.is_dp_attention(tp),
        )

    def timer(self, tp: int) -> StepTimer:
        if self.calibration is not None:
            return CalibratedTimer(self.calibration)
        kv = kv_bytes_named(self.kv_precision)
        deployment = Deployment(self.shape, self.precision, kv, self.node.device, tp, self.is_dp_attention(tp))
        return RooflineTimer(deployment, model_of(self.node.device).coefficients)

    def limits(self, memory: MemoryPlan) -> Limits:
        held = memory.max_concurrency.value * self.workload.request_tokens
        return Limits(self.max_batch, held, self.token_budget)


def layouts(count: int) -> list[int]:
    return [n for n in range(1, count + 1) if count % n == 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """One layout on one node. Times are of one replica; nodes is how many the rate needs."""

    request: Request
    timer: StepTimer
    label: Label  # of every time
    decode: Spread  # how far published or measured runs lay from such predictions
    ttft: Spread
    rate: Spread
    tp: int
    memory: MemoryPlan
    limits: Limits
    top: SteadyState  # saturated
    goodput: float  # requests/s of a replica; 0 when even a lone request misses a target
    nodes: int
    level: ServiceLevel  # at the rate's share of one replica
    warnings: tuple[str, ...]

    @property
    def replicas(self) -> int:
        return self.request.node.count // self.tp

    @property
    def ttft_label(self) -> Label:
        """Weaker than of decode steps: until measured, prompts run at the textbook share of the dense rate."""
        return self.label if self.request.calibration is not None else weakest(self.label, "derived")

    @property
    def sustainable(self) -> float:
        """Requests/s of one replica that cost is spread over: the goodput, or the saturated rate without one."""
        return self.goodput or self.top.output_rate / self.request.workload.output_tokens

    @property
    def state(self) -> SteadyState:
        """At the sustainable rate."""
        return at_rate(self.timer, self.request.workload, self.limits, self.sustainable * 0.9999) or self.top


def best_layout(request: Request) -> int | None:
    """The group that serves the most tokens within the latency targets; None when none holds a single request."""
    fitting = {tp: memory for tp in request.layouts if (memory := request.memory(tp)).fits}
    return max(fitting, key=lambda tp: _quick_rate(request, tp, fitting[tp])) if fitting else None


def _quick_rate(request: Request, tp: int, memory: MemoryPlan) -> tuple[float, float]:
    """Output tokens/s of the node within the targets, without a queue; the saturated rate breaks ties."""
    timer, limits, workload = request.timer(tp), request.limits(memory), request.workload
    replicas = request.node.count // tp
    low, high = 0.0, max_batch(workload, limits)
    for _ in range(12):
        middle = (low + high) / 2
        in_time = steady_state(timer, workload, middle).step_s <= workload.tpot_s
        low, high = (middle, high) if in_time else (low, middle)
    good = low >= 1 and idle_ttft(timer, workload) <= workload.ttft_s
    rate = steady_state(timer, workload, low).output_rate if good else 0.0
    return rate * replicas, saturated(timer, workload, limits).output_rate * replicas


def solve(request: Request, tp: int) -> Solution:
    memory, workload = request.memory(tp), request.workload
    timer, limits, model = request.timer(tp), request.limits(memory), model_of(request.node.device)
    top, good = saturated(timer, workload, limits), goodput(timer, workload, limits)
    of_node = (good or top.output_rate / workload.output_tokens) * (request.node.count // tp)
    require("rate", workload.rate, 0, MAX_NODES * of_node, f"requests/s ({MAX_NODES} nodes)")
    nodes = max(1, math.ceil(workload.rate / of_node - 1e-9))
    share = workload.rate / (nodes * (request.node.count // tp))
    is_measured = request.calibration is not None
    return Solution(
        request=request,
        timer=timer,
        label="calibrated" if is_measured else model.coefficients.label,
        decode=CALIBRATED if is_measured else model.decode,
        ttft=model.ttft,
        rate=CALIBRATED if is_measured else model.rate,
        tp=tp,
        memory=memory,
        limits=limits,
        top=top,
        goodput=good,
        nodes=nodes,
        level=service_level(timer, workload, limits, share),
        warnings=tuple(_range_warnings(request, tp, top.batch, good)),
    )


def _range_warnings(request: Request, tp: int, batch: float, good: float) -> list[str]:
    warnings, tokens = [], request.workload.request_tokens
    if good == 0:
        warnings.append("no rate meets the latency targets, not even a lone request does; cost is at saturation")
    domain = SCALEUP_DOMAIN.get(request.node.device.id, 8)
    if tp > domain:
        warnings.append(f"a group of {tp} is planned as if one link joined all of it; {domain} share one here")
    if request.calibration is not None:
        return warnings + request.calibration.out_of_range(batch, tokens)
    if request.node.device.kind in ("gpu", "asic"):
        if batch > 2 * FITTED_BATCH:
            warnings.append(f"batch {batch:.0f} is more than twice the largest of the fit ({FITTED_BATCH})")
        if tokens > 2 * FITTED_CONTEXT:
            warnings.append(f"{tokens} tokens are more than twice the largest context of the fit ({FITTED_CONTEXT})")
    return warnings
