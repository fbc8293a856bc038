"""A plan for the dashboard's planner, as a program: fields as JSON on standard input, a report on standard output.

A process of its own, since a plan is up to a second of arithmetic, which would hold up every stream of the gateway.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

from inferd.errors import ConfigError
from inferd.planner.capacity import max_batch, steady_state
from inferd.planner.cost import CostInputs
from inferd.planner.hardware import catalogue, node_named
from inferd.planner.planning import plan
from inferd.planner.precision import KV_BYTES, PRECISIONS, precision_named
from inferd.planner.report import Report, figure_facts
from inferd.planner.shapes import preset, presets
from inferd.planner.solution import Request
from inferd.planner.workload import Workload

NICENESS = 10  # the models that serve on this machine go first
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}(:[0-9]{1,4})?")  # no path: no file is read for a client
_TEXTS = {"model": "", "hardware": "", "precision": "bf16", "kv_precision": "bf16"}
_WORKLOAD = ("prompt_tokens", "output_tokens", "rate", "cached_fraction", "ttft_s", "tpot_s")
_WHOLE = {"prompt_tokens", "output_tokens", "tp", "max_batch"}
_COSTS = ("years", "utilization", "usd_per_kwh", "rent_usd_h")
_OPTIONS = ("tp", "max_batch")
_NUM_POINTS = 24


def choices() -> dict[str, Any]:
    """What the form offers."""
    return {
        "models": sorted({shape.id for shape in presets().values()}),
        "hardware": [{"id": device.id, "name": device.name, "kind": device.kind} for device in catalogue().values()],
        "precisions": list(PRECISIONS),
        "kv_precisions": list(KV_BYTES),
    }


def planned(fields: dict[str, Any]) -> dict[str, Any]:
    """Raises ConfigError that names the field and what it allows."""
    known = {*_TEXTS, *_WORKLOAD, *_COSTS, *_OPTIONS}
    if strays := sorted(set(fields) - known):
        raise ConfigError(f"{strays[0][:100]} is not a field of a plan; those are {', '.join(sorted(known))}")
    names = {name: _text(fields, name, default) for name, default in _TEXTS.items()}
    workload = Workload(**_numbers(fields, _WORKLOAD))
    costs = CostInputs(**_numbers(fields, _COSTS))
    options: dict[str, Any] = {**names, **_numbers(fields, _OPTIONS)}
    report = plan(**options, workload=workload, costs=costs)
    charts = _charts(names, workload, report, options.get("max_batch", 256)) if report.fits else []
    return {**_facts(report), "charts": charts}


def _text(fields: dict[str, Any], name: str, default: str) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str) or not _NAME.fullmatch(value) or value.lower().endswith(".json"):
        raise ConfigError(f"{name} must be a name from the catalogue, got {json.dumps(value)[:100]}")
    return value


def _numbers(fields: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The given ones; the others keep the planner's defaults."""
    values: dict[str, Any] = {}
    for name in names:
        value = fields.get(name)
        if value is None:
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15  # nor NaN
        if not is_number or (name in _WHOLE and value != int(value)):
            kind = "a whole number" if name in _WHOLE else "a number"
            raise ConfigError(f"{name} must be {kind}, got {json.dumps(value)[:100]}")
        values[name] = int(value) if name in _WHOLE else float(value)
    return values


def _facts(report: Report) -> dict[str, Any]:
    sections = [
        {
            "title": section.title,
            "figures": [{"key": e.key, "name": e.name, **figure_facts(e.figure)} for e in section.entries],
        }
        for section in report.sections
    ]
    facts = {"heading": report.heading, "fits": report.fits, "sections": sections}
    return facts | {"warnings": list(report.warnings), "sources": list(report.sources)}


def _charts(names: dict[str, str], workload: Workload, report: Report, batch_limit: int) -> list[dict[str, Any]]:
    """One replica from a lone sequence to its largest batch: what it yields, and how long a token takes."""
    request = Request(
        shape=preset(names["model"]), node=node_named(names["hardware"]), precision=precision_named(names["precision"]),
        kv_precision=names["kv_precision"], workload=workload, tp=report.tp, max_batch=batch_limit, token_budget=2048,
        memory_utilization=0.9, costs=CostInputs(), apis=(), calibration=None,
    )  # fmt: skip
    timer, top = request.timer(report.tp), max_batch(workload, request.limits(report.memory))
    batches = [top ** (i / (_NUM_POINTS - 1)) for i in range(_NUM_POINTS)] if top > 1 else [1.0]
    states = [steady_state(timer, workload, batch) for batch in batches]
    x = {"label": "sequences in the batch of one replica", "values": [round(batch, 2) for batch in batches]}
    step = [
        {"label": "with prompts", "values": [1e3 * state.step_s for state in states]},
        {"label": "decoding alone", "values": [1e3 * state.decode_s for state in states]},
    ]
    rate = [{"label": "one replica", "values": [state.output_rate for state in states]}]
    return [
        {"title": "Output tokens", "unit": "per second", "x": x, "series": rate},
        {"title": "Time between tokens", "unit": "ms", "x": x, "series": step},
    ]


def main() -> None:
    os.nice(NICENESS)
    fields = json.load(sys.stdin)
    try:
        answer = choices() if fields is None else planned(fields)
    except ConfigError as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout, allow_nan=False)


if __name__ == "__main__":
    main()
