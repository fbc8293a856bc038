"""The fit to published runs that ships with the planner: coefficients of a step, and how far they were off."""

from __future__ import annotations

from dataclasses import dataclass

from inferd.planner.figure import Label
from inferd.planner.hardware import Device
from inferd.planner.roofline import CPU, TERMS, Coefficients
from inferd.planner.tables import read_table
from inferd.planner.validate import DEVICES, decode_errors, decode_runs, fit
from inferd.planner.validate_serving import ratio_interval, serving_runs

PREFILL = 2.0  # half of the dense rate: textbook; decode runs do not show it
FITTED_BATCH, FITTED_CONTEXT = 300, 6230  # the largest of the runs fitted


@dataclass(frozen=True, slots=True)
class Spread:
    """Factors around a prediction that held nine in ten of the published runs (log-normal)."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Model:
    """What a device is planned with."""

    coefficients: Coefficients
    decode: Spread
    ttft: Spread
    rate: Spread


def fit_all() -> dict[str, float]:
    """Every number of data/fitted.csv, from the published runs; takes a second."""
    runs = decode_runs()
    values = fit(runs)
    coefficients = Coefficients(values, PREFILL, "calibrated", "")
    held_out = decode_errors(runs)
    served = serving_runs(coefficients)
    spreads = {
        "decode": ratio_interval([1 / (1 + error.held_out) for error in held_out]),
        "ttft": ratio_interval([run.ttft_ratio for run in served if run.measured_ttft is not None]),
        "rate": ratio_interval([1 / (1 + run.rate_error) for run in served if run.measured_rate is not None]),
    }
    numbers = {f"step.{term}": value for term, value in zip(TERMS, values, strict=True)}
    for name, (low, high) in spreads.items():
        numbers |= {f"{name}.low": low, f"{name}.high": high}
    errors = sorted(abs(error.held_out) for error in held_out)
    return numbers | {"decode.held_out_median": errors[len(errors) // 2]}


def model_of(device: Device) -> Model:
    """Fitted for H100 and B200; other GPUs borrow that fit and say so; CPUs take llama.cpp's share of bandwidth."""
    stored = {row["name"]: float(row["value"]) for row in read_table("fitted")}

    def spread(name: str) -> Spread:
        return Spread(stored[f"{name}.low"], stored[f"{name}.high"])

    if device.kind in ("cpu", "soc"):
        return Model(CPU, spread("decode"), spread("ttft"), spread("rate"))
    fitted_here = device.id in DEVICES.values()
    label: Label = "calibrated" if fitted_here else "derived"
    source = "fit to ML.ENERGY's vLLM runs on H100 and B200"
    coefficients = Coefficients(
        tuple(stored[f"step.{term}"] for term in TERMS),
        PREFILL,
        label,
        source if fitted_here else f"{source}; no run on {device.id} is in it",
        stored["decode.held_out_median"],
    )
    return Model(coefficients, spread("decode"), spread("ttft"), spread("rate"))
