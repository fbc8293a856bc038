"""The planner against published runs: which rows, which assumptions, and the error by model, hardware, precision."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from inferd.planner.calibrate import line_through, nonnegative_fit
from inferd.planner.hardware import device_named
from inferd.planner.precision import precision_named
from inferd.planner.roofline import Deployment, decode_terms, textbook_seconds
from inferd.planner.shapes import preset
from inferd.planner.tables import Row, read_table

# Prompt tokens of ML.ENERGY's tasks: the data does not state them.
PROMPT_TOKENS = {"lm-arena-chat": 250, "gpqa": 300, "sourcegraph-fim": 1000}
DEVICES = {"H100": "h100-sxm", "B200": "b200-sxm"}
MAX_BATCH = 300  # larger ones are bound by scheduling and by prompts in the same steps
# (family, the preset whose shape it has), by what the published name begins with after the owner
MODELS = (
    ("Qwen3-235B", "qwen3", "qwen3-235b-a22b"),
    ("Qwen3-30B", "qwen3", "qwen3-30b-a3b"),
    ("Qwen3-Coder-30B", "qwen3", "qwen3-30b-a3b"),
    ("Qwen3-Coder-480B", "qwen3", "qwen3-coder-480b-a35b"),
    ("DeepSeek-R1", "deepseek", "deepseek-v3"),
    ("gemma-3-12b", "gemma3", "gemma-3-12b"),
    ("gemma-3-27b", "gemma3", "gemma-3-27b"),
    ("Llama-3.1-70B", "llama3", "llama-3-70b"),
    ("Llama-3.1-8B", "llama3", "llama-3-8b"),
    ("Llama-3.1-405B", "llama3", "llama-3-405b"),
    ("Llama-4-Maverick", "llama4", "llama-4-maverick"),
    ("Llama-4-Scout", "llama4", "llama-4-scout"),
    ("NVIDIA-Nemotron-Nano-12B", "nemotron", "nemotron-nano-12b-v2"),
    ("NVIDIA-Nemotron-Nano-9B", "nemotron", "nemotron-nano-9b-v2"),
    ("gpt-oss-120b", "gpt-oss", "gpt-oss-120b"),
    ("gpt-oss-20b", "gpt-oss", "gpt-oss-20b"),
)
# What coefficients are pulled to, and the scale of each: textbook efficiencies, then seconds for each count.
PRIOR = (1 / 0.8, 1 / 0.8, 1 / 0.5, 10e-6, 50e-6, 50e-6, 50e-6, 1e-3)


@dataclass(frozen=True, slots=True)
class DecodeRun:
    """One published run at a steady batch: median seconds between tokens."""

    model: str
    family: str
    group: tuple[str, ...]  # of one model, device and parallel layout: what a calibration would cover
    precision: str
    device: str
    deployment: Deployment
    batch: float
    context: float
    seconds: float


def decode_runs() -> list[DecodeRun]:
    """ML.ENERGY runs without data-parallel attention, at batches up to MAX_BATCH."""
    return [_run(row) for row in read_table("validation_mlenergy_llm_full") if row["dp"] == "1" and _small(row)]


def _small(row: Row) -> bool:
    return float(row["avg_bs"]) <= MAX_BATCH


def _run(row: Row) -> DecodeRun:
    published = row["model"].partition("/")[2]
    family, name = next((family, name) for start, family, name in MODELS if published.startswith(start))
    precision = {"bfloat16": "bf16"}.get(row["prec"], row["prec"])
    deployment = Deployment(
        preset(name), precision_named(precision), 2.0, device_named(DEVICES[row["gpu"]]), int(row["n"])
    )
    return DecodeRun(
        model=published,
        family=family,
        group=(published, row["task"], row["gpu"], row["n"]),
        precision=precision,
        device=row["gpu"],
        deployment=deployment,
        batch=float(row["avg_bs"]),
        context=PROMPT_TOKENS[row["task"]] + float(row["out_len"]) / 2,
        seconds=float(row["itl50"]) / 1e3,
    )


def fit(runs: Sequence[DecodeRun]) -> tuple[float, ...]:
    rows = [decode_terms(r.deployment, r.batch, r.context).values() for r in runs]
    return nonnegative_fit(rows, [r.seconds for r in runs], PRIOR)


def predict(values: Sequence[float], run: DecodeRun) -> float:
    terms = decode_terms(run.deployment, run.batch, run.context).values()
    return sum(v * x for v, x in zip(values, terms, strict=True))


@dataclass(frozen=True, slots=True)
class DecodeError:
    """Relative errors of one run's seconds between tokens: predicted / measured - 1."""

    run: DecodeRun
    textbook: float
    held_out: float  # coefficients from every other model family
    anchored: float | None  # these, and a line through the smallest and largest batch of its own group; None for those


def decode_errors(runs: Sequence[DecodeRun]) -> list[DecodeError]:
    """In the order of the runs. Groups of fewer than three have no point between their anchors."""
    without = {family: fit([run for run in runs if run.family != family]) for family in {run.family for run in runs}}
    groups: dict[tuple[str, ...], list[DecodeRun]] = defaultdict(list)
    for run in runs:
        groups[run.group].append(run)

    def held_out(run: DecodeRun) -> float:
        return predict(without[run.family], run)

    errors = []
    for run in runs:
        textbook = textbook_seconds(run.deployment, run.batch, run.context)
        between = _anchored(groups[run.group], run, held_out)
        anchored = None if between is None else between / run.seconds - 1
        errors.append(DecodeError(run, textbook / run.seconds - 1, held_out(run) / run.seconds - 1, anchored))
    return errors


def _anchored(group: list[DecodeRun], run: DecodeRun, predicted: Callable[[DecodeRun], float]) -> float | None:
    first, last = min(group, key=lambda r: r.batch), max(group, key=lambda r: r.batch)
    if run in (first, last):
        return None
    a, b = line_through([predicted(first), predicted(last)], [first.seconds, last.seconds])
    return a + b * predicted(run)


def errors_without_device(runs: Sequence[DecodeRun], device: str) -> list[float]:
    """Of the device's runs, with coefficients from every other device."""
    values = fit([run for run in runs if run.device != device])
    return [predict(values, run) / run.seconds - 1 for run in runs if run.device == device]


@dataclass(frozen=True, slots=True)
class ErrorSummary:
    name: str
    runs: int
    median: float  # of absolute errors
    mean: float
    bias: float  # median of signed errors


def summarize(name: str, errors: Iterable[float]) -> ErrorSummary:
    values = list(errors)
    absolute = [abs(value) for value in values]
    return ErrorSummary(name, len(values), median(absolute), sum(absolute) / len(absolute), median(values))
