"""plan(): one model, one workload, one kind of node -> Report; compare(): the same on several kinds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inferd.planner import sections
from inferd.planner.calibrate import Calibration
from inferd.planner.cost import CostInputs
from inferd.planner.hardware import Node, node_named
from inferd.planner.precision import Precision, precision_named
from inferd.planner.report import Report, Section
from inferd.planner.shapes import ModelShape, preset
from inferd.planner.solution import Request, best_layout, solve
from inferd.planner.workload import Workload

DEFAULT_APIS = ("Llama-3.3-70B-Instruct-Turbo", "gpt-4o", "claude-sonnet-4-6")


def plan(
    model: str | ModelShape,
    hardware: str | Node,
    *,
    precision: str | Precision = "bf16",
    kv_precision: str = "bf16",
    workload: Workload | None = None,
    tp: int | None = None,
    max_batch: int = 256,
    token_budget: int = 2048,
    memory_utilization: float = 0.9,
    activation_gib: float | None = None,
    costs: CostInputs | None = None,
    apis: Sequence[str] = DEFAULT_APIS,
    calibration: Calibration | None = None,
) -> Report:
    """Memory fit, latency, throughput, goodput, cost and energy of a model on a node, every figure labelled.

    model: a preset's name or a shape. hardware: "h200:8". tp: devices of one replica; None takes the layout that
    serves the most tokens within the latency targets. Raises ConfigError that names the option and what it allows.
    """
    request = Request(
        shape=preset(model) if isinstance(model, str) else model,
        node=node_named(hardware) if isinstance(hardware, str) else hardware,
        precision=precision_named(precision) if isinstance(precision, str) else precision,
        kv_precision=kv_precision,
        workload=workload or Workload(),
        tp=tp,
        max_batch=max_batch,
        token_budget=token_budget,
        memory_utilization=memory_utilization,
        activation_gib=activation_gib,
        costs=costs or CostInputs(),
        apis=tuple(apis),
        calibration=calibration,
    )
    layout = best_layout(request)
    return _rejected(request) if layout is None else _planned(request, layout)


def compare(model: str | ModelShape, hardware: Sequence[str], **options: Any) -> list[Report]:
    """The same plan on each kind of node; options as of plan()."""
    return [plan(model, name, **options) for name in hardware]


def _planned(request: Request, tp: int) -> Report:
    solution = solve(request, tp)
    return _report(
        request,
        tp=tp,
        replicas=solution.replicas,
        nodes=solution.nodes,
        memory=solution.memory,
        sections=sections.sections_of(solution),
        warnings=sections.warnings_of(solution),
        sources=sections.sources_of(solution),
    )


def _rejected(request: Request) -> Report:
    """Memory alone, at the largest group of the node, and the smallest group that would do."""
    tp = max(request.layouts)
    memory = request.memory(tp)
    enough = next((n for n in (2**power for power in range(13)) if request.memory(n).fits), None)
    hint = (
        f"a group of {enough} {request.node.device.id} holds it" if enough else "no group up to 4,096 devices holds it"
    )
    return _report(
        request,
        tp=tp,
        replicas=request.node.count // tp,
        nodes=0,
        memory=memory,
        sections=(Section("Memory of one device", sections.memory_entries(memory)),),
        warnings=(f"{request.shape.id} does not fit {request.node.name} with one request in the cache; {hint}",),
        sources=(f"{request.node.device.id}: {request.node.device.source}",),
    )


def _report(request: Request, **results: Any) -> Report:
    return Report(
        model=request.shape.id,
        hardware=request.node.name,
        precision=request.precision.name,
        kv_precision=request.kv_precision,
        **results,
    )
