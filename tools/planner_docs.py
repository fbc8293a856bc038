"""Fits the planner to the published runs and writes how far it is off: planner_docs.py [--check]

Writes src/inferd/planner/data/fitted.csv and docs/reference/planner_errors.md; --check writes nothing and fails when
one of them is stale.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from inferd.planner.fitted import PREFILL, fit_all
from inferd.planner.report import markdown_table
from inferd.planner.roofline import TERMS, Coefficients
from inferd.planner.tables import read_table
from inferd.planner.validate import MAX_BATCH, DecodeError, decode_errors, decode_runs, errors_without_device, summarize
from inferd.planner.validate_memory import memory_runs
from inferd.planner.validate_serving import ServingRun, held_out_coverage, serving_runs

ROOT = Path(__file__).parents[1]
FITTED = ROOT / "src/inferd/planner/data/fitted.csv"
PAGE = ROOT / "docs/reference/planner_errors.md"
NOTE = "<!-- Made from the planner and its data by tools/planner_docs.py; edit these instead. -->"


def fitted_csv(numbers: dict[str, float]) -> str:
    return "\n".join(["name,value", *(f"{name},{value:.6g}" for name, value in numbers.items())]) + "\n"


def page(numbers: dict[str, float]) -> str:
    values = tuple(numbers[f"step.{term}"] for term in TERMS)
    served = serving_runs(Coefficients(values, PREFILL, "calibrated", ""))
    parts = [
        NOTE, "# How far the planner is off", INTRODUCTION, "## Memory", memory_part(), "## Seconds between tokens",
        *decode_part(decode_errors(decode_runs())), "## Throughput", *rate_part(served), "## Time to the first token",
        *ttft_part(served, numbers), "## The coefficients", COEFFICIENTS, coefficient_part(numbers),
        *machine_part(),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


INTRODUCTION = """\
An error is predicted / measured - 1. "Median" and "mean" are of absolute errors, "bias" is the median of
signed ones: below zero the planner is optimistic in times and pessimistic in rates. Nothing here is fitted to
the row that it judges, except where a column says so."""

COEFFICIENTS = """\
A decode step costs the sum of coefficient x term. The first three terms are seconds at data-sheet rates, so
their coefficients are multiples; the others are seconds for each. All coefficients are at least 0, fitted to
relative errors with a weak pull to textbook values. They are collinear in part: `layers` and `weights` grow
together, so a single one is no physical measurement."""


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1%}"


def memory_part() -> str:
    rows = [
        (
            run.model, str(run.tp), f"{run.weights:.2f}", f"{run.weights_predicted:.2f}", percent(run.weights_error),
            "does not serve" if run.pool is None else f"{run.pool:.2f}",
            "-" if run.pool_of_components is None else f"{run.pool_of_components:.2f}",
            f"{run.pool_of_shape:.2f}",
        )
        for run in memory_runs()
    ]  # fmt: skip
    header = (
        "model on H100", "TP", "weights, GiB", "predicted", "error", "KV pool, GiB", "from the row's components",
        "from the shape alone",
    )  # fmt: skip
    tail = """\
vLLM, per GPU. The shape alone has to guess the activations: 9.7 FP32 copies of the logits of 1,024 sequences,
which is what these rows show. It is wrong for Mistral-Small, which was started with other limits; give
`--activation-gib` there. The gpt-oss-120b row is taken at 0.95 utilization: at the 0.90 that its
source states its own components leave a negative pool."""
    return markdown_table(header, rows) + "\n\n" + tail


def decode_part(errors: list[DecodeError]) -> list[str]:
    families = len({error.run.family for error in errors})
    lead = f"""{len(errors)} vLLM runs of ML.ENERGY (median gap between tokens at a steady batch up to {MAX_BATCH}, no
data-parallel attention). "Textbook": 80 % of bandwidth, 50 % of arithmetic. "Held out": coefficients fitted
to the other {families - 1} model families. "Two anchors": the same, then a line through the smallest and the
largest batch of the run's own group; judged on the batches between. Prompt lengths are not in the data: 250,
300 and 1,000 tokens are assumed."""
    groups: tuple[tuple[str, Callable[[DecodeError], str]], ...] = (
        ("all", lambda error: "all runs"),
        ("hardware", lambda error: error.run.device),
        ("precision", lambda error: error.run.precision),
        ("family", lambda error: error.run.family),
        ("model", lambda error: error.run.model),
    )
    rows = [row for kind, key in groups for row in decode_rows(kind, key, errors)]
    header = (
        "by", "", "runs", "textbook median", "held out median", "mean", "bias", "two anchors median", "mean", "runs",
    )  # fmt: skip
    return [lead, markdown_table(header, rows), across_part()]


def across_part() -> str:
    runs = decode_runs()
    rows = [
        (device, str(off.runs), f"{off.median:.1%}", f"{off.mean:.1%}", percent(off.bias))
        for device in sorted({run.device for run in runs})
        for off in [summarize(device, errors_without_device(runs, device))]
    ]
    lead = "A device that the fit has not seen, all of its runs predicted from the other device's:"
    return lead + "\n\n" + markdown_table(("hardware", "runs", "median", "mean", "bias"), rows)


def decode_rows(
    kind: str, key: Callable[[DecodeError], str], errors: Iterable[DecodeError]
) -> Iterable[tuple[str, ...]]:
    grouped: dict[str, list[DecodeError]] = defaultdict(list)
    for error in errors:
        grouped[key(error)].append(error)
    for name, members in sorted(grouped.items()):
        textbook = summarize(name, (error.textbook for error in members))
        held_out = summarize(name, (error.held_out for error in members))
        between = [error.anchored for error in members if error.anchored is not None]
        anchored = summarize(name, between) if between else None
        yield (
            kind, name, str(held_out.runs), f"{textbook.median:.1%}", f"{held_out.median:.1%}", f"{held_out.mean:.1%}",
            percent(held_out.bias), f"{anchored.median:.1%}" if anchored else "-",
            f"{anchored.mean:.1%}" if anchored else "-", str(len(between)),
        )  # fmt: skip


def rate_part(runs: list[ServingRun]) -> list[str]:
    rated = [run for run in runs if run.measured_rate is not None]
    lead = f"""\
Saturated output tokens/s of one replica, MLPerf offline and TensorRT-LLM runs: {len(rated)} of them. The fit
above saw none of these engines but vLLM, and only H100 and B200. Where a submission does not state its
parallel layout (marked ?), the smallest group that holds 64 requests is assumed; prompts of OpenOrca are
taken as 294 tokens."""
    every = summarize("all runs", (run.rate_error for run in rated))
    rows = [("all runs", "", "", "", "", f"median {every.median:.1%}, mean {every.mean:.1%}, bias {every.bias:+.1%}")]
    rows += [
        (
            run.id, run.model, f"{run.hardware} TP{run.tp}{'' if run.is_tp_stated else ' ?'}", run.precision,
            run.framework, percent(run.rate_error),
        )
        for run in rated
    ]  # fmt: skip
    return [lead, markdown_table(("run", "model", "hardware", "precision", "engine", "error"), rows)]


def ttft_part(runs: list[ServingRun], numbers: dict[str, float]) -> list[str]:
    share, by_hardware = held_out_coverage(runs)
    timed = [run for run in runs if run.measured_ttft is not None]
    lead = f"""Median TTFT of {
        len(timed)
    } MLPerf server and interactive runs at their own rate. The planner multiplies its
prediction by {numbers["ttft.low"]:.2f} and {numbers["ttft.high"]:.2f} for the bounds it prints. Made from the
other hardware alone, such an interval covers {share:.0%} of the runs ({
        ", ".join(f"{n} {s:.0%}" for n, s in by_hardware.items())
    }). It is wide because schedulers differ: vLLM submissions of 2024 and 2025 let prompts
wait several times longer than TensorRT-LLM ones."""
    rows = [
        (
            run.id, run.model, run.hardware, run.framework, f"{1e3 * (run.measured_ttft or 0):.0f}",
            f"{1e3 * (run.predicted_ttft or 0):.0f}", f"{run.ttft_ratio:.2f}",
        )
        for run in timed
    ]  # fmt: skip
    header = ("run", "model", "hardware", "engine", "measured p50, ms", "predicted, ms", "measured / predicted")
    return [lead, markdown_table(header, rows)]


def coefficient_part(numbers: dict[str, float]) -> str:
    units = dict.fromkeys(("weights", "kv", "compute"), "times the data sheet's time")
    rows = [(term, f"{numbers[f'step.{term}']:.3g}", units.get(term, "s")) for term in TERMS]
    return markdown_table(("term", "coefficient", "unit"), rows)


def machine_part() -> list[str]:
    rows = [
        (row["model"], row["what"], row["predicted"], row["measured"], percent(float(row["error"])), row["date"])
        for row in read_table("machine_check")
    ]
    lead = """\
`inferd plan calibrate MODEL --check` on the 2-core AVX-512 machine of the benchmarks: the rows are batches, a
prompt and a whole run that the calibration did not hold."""
    header = ("model", "not in the fit", "predicted", "measured", "error", "date")
    return ["## This engine, after a calibration", lead, markdown_table(header, rows)] if rows else []


def main() -> int:
    numbers = fit_all()
    wanted = {FITTED: fitted_csv(numbers), PAGE: page(numbers)}
    if "--check" not in sys.argv[1:]:
        for path, text in wanted.items():
            path.write_text(text, "utf-8")
        return 0
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text("utf-8") != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)} is stale: run tools/planner_docs.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
