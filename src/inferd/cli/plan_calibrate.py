"""`inferd plan calibrate`: this machine's steps, measured with inferd's engine, and how well they predict others."""

from __future__ import annotations

import json
import platform
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from inferd.cli.options import checked, json_option
from inferd.cli.output import Misuse, print_json, print_table

if TYPE_CHECKING:
    from inferd.llm import LLM
    from inferd.planner import Calibration

MEASURED_LEN = 2048  # tokens: the longest context, and the budget of a step, so that a prompt is one chunk
STEPS = 32  # of a decode measurement
SHORT, LONG = 16, 512  # tokens of a prompt before these steps
LONG_BATCH = 4  # the batch at which the slope over the context is measured


@dataclass(frozen=True, slots=True)
class Run:
    """`batch` prompts of `length` random tokens at once, `output` tokens each."""

    batch: int
    length: int
    output: int


CHECK_BATCHES, CHECK_PROMPTS = (3, 6, 12, 24), (256,)
CHECK_RUN = Run(14, 128, 40)


@click.command()
@click.argument("model")
@click.option("--output", type=click.Path(dir_okay=False), help="Write the calibration here; default: MODEL.json.")
# 10: from 9 sequences on the engine takes another kernel; a line from 8 to 16 was 13 % off at 12
@click.option("--batches", default="1,2,4,8,10,16,32", show_default=True, help="Of the decode steps to measure.")
@click.option("--prompts", default="32,128,512", show_default=True, help="Lengths of the prompts to measure.")
@click.option("--repeat", type=click.IntRange(1, 50), default=5, show_default=True, help="Rounds; the median counts.")
@click.option("--check", is_flag=True, help="Also measure batches and a run that the fit does not see.")
@json_option
def calibrate(
    model: str, output: str | None, batches: str, prompts: str, repeat: int, check: bool, as_json: bool
) -> None:
    """Measure MODEL on this machine with inferd's engine, for plan --calibration."""
    from inferd.cli.models import ensure_local
    from inferd.llm import LLM

    sizes, lengths = _numbers("--batches", batches, 1, 256), _numbers("--prompts", prompts, 1, MEASURED_LEN - 64)
    if len(sizes) < 2:
        raise Misuse("--batches must name two batches at least")
    path = Path(model) if Path(model).is_file() else ensure_local(model)
    engine = LLM(
        str(path),
        enable_prefix_caching=False,
        speculative="off",
        max_model_len=MEASURED_LEN,
        max_num_batched_tokens=MEASURED_LEN,
        max_num_seqs=max(64, *sizes),
    )
    decode = [(batch, SHORT) for batch in sizes] + [(b, n) for b in (LONG_BATCH,) for n in (SHORT, LONG)]
    unseen = [size for size in CHECK_BATCHES if size not in sizes and size < sizes[-1]] if check else []
    times = _measure(engine, _runs(decode, lengths) | _check_runs(unseen, check), repeat)
    calibration = _calibration(path.stem, dict.fromkeys(decode), lengths, times, repeat)
    target = Path(output or f"{path.stem}.json")
    target.write_text(calibration.to_json(), "utf-8")
    facts = json.loads(calibration.to_json()) | ({"check": _checked(calibration, unseen, times)} if check else {})
    if as_json:
        print_json(facts)
        return
    click.echo(f"{len(calibration.decode)} steps and {len(calibration.prefill)} prompts measured: {target}")
    if check:
        rows = [
            (f["what"], f"{f['predicted']:.4g}", f"{f['measured']:.4g}", f"{f['error']:+.1%}") for f in facts["check"]
        ]
        print_table(("NOT IN THE FIT", "PREDICTED", "MEASURED", "ERROR"), rows)


def _numbers(option: str, text: str, low: int, high: int) -> list[int]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < low or numbers[-1] > high:
        raise Misuse(f"{option} must be numbers from {low} to {high} with commas between, got {text!r}")
    return numbers


def _runs(decode: Iterable[tuple[int, int]], lengths: Sequence[int]) -> dict[Run, None]:
    """Every run once, in order: a decode step is a run to STEPS + 1 tokens less the same to one."""
    steps = [Run(batch, length, output) for batch, length in decode for output in (STEPS + 1, 1)]
    return dict.fromkeys(steps + [Run(1, length, 1) for length in lengths])


def _check_runs(unseen: Sequence[int], check: bool) -> dict[Run, None]:
    return _runs([(size, SHORT) for size in unseen], CHECK_PROMPTS) | {CHECK_RUN: None} if check else {}


def _measure(engine: LLM, runs: Iterable[Run], rounds: int) -> dict[Run, float]:
    """Seconds, the median of the rounds. Each round makes every run, in an order of its own, so that a slow minute of
    the machine falls on all alike; the fastest would flatter short runs, which fit between two disturbances."""
    from inferd.types import SamplingParams

    chooser, tokens = random.Random(0), range(100, engine.loaded.tokenizer.num_tokens - 100)

    def seconds(run: Run) -> float:
        prompts: Any = [{"prompt_token_ids": chooser.choices(tokens, k=run.length)} for _ in range(run.batch)]
        params = SamplingParams(temperature=0, max_tokens=run.output, ignore_eos=True)
        begin = time.perf_counter()
        engine.generate(prompts, params, use_tqdm=False)
        return time.perf_counter() - begin

    runs = list(runs)
    seconds(runs[0])
    times = [{run: seconds(run) for run in chooser.sample(runs, len(runs))} for _ in range(rounds)]
    return {run: median(turn[run] for turn in times) for run in runs}


def _step(times: dict[Run, float], batch: int, length: int) -> float:
    return max(1e-9, times[Run(batch, length, STEPS + 1)] - times[Run(batch, length, 1)]) / STEPS


def _calibration(
    name: str, decode: Iterable[tuple[int, int]], lengths: Sequence[int], times: dict[Run, float], rounds: int
) -> Calibration:
    import inferd
    from inferd.planner.calibrate import Anchor, Calibration, PromptAnchor

    decode = list(decode)
    prompts = dict.fromkeys([(1, n) for n in lengths] + [pair for pair in decode if pair[1] == SHORT])
    return Calibration(
        model=name,
        host=f"{platform.node()}, {platform.machine()}",
        engine=f"inferd {inferd.__version__}",
        date=date.today().isoformat(),
        prompts=f"random tokens; decode over {STEPS} steps; the median of {rounds} rounds",
        decode=tuple(Anchor(b, length + STEPS / 2, _step(times, b, length)) for b, length in decode),
        prefill=tuple(PromptAnchor(n, times[Run(count, n, 1)], count) for count, n in prompts),
    )


def _checked(calibration: Calibration, unseen: Sequence[int], times: dict[Run, float]) -> list[dict[str, Any]]:
    """Predicted and measured: steps and prompts that the calibration does not hold, and a whole run."""
    from inferd.planner.calibrate import CalibratedTimer
    from inferd.planner.simulate import Limits, simulate
    from inferd.planner.workload import Arrival

    timer = CalibratedTimer(calibration)
    pairs = [
        (f"ITL at batch {batch}, ms", 1e3 * timer.decode(batch, SHORT + STEPS / 2), 1e3 * _step(times, batch, SHORT))
        for batch in unseen
    ]
    for length in CHECK_PROMPTS:
        predicted = timer.empty_step + timer.prefill(length, 0)
        pairs.append((f"prompt of {length} tokens, ms", 1e3 * predicted, 1e3 * times[Run(1, length, 1)]))
    run, tokens = CHECK_RUN, CHECK_RUN.batch * CHECK_RUN.output
    requests = [Arrival(0.0, run.length, 0, run.output)] * run.batch
    simulated = simulate(requests, timer, Limits(64, token_budget=MEASURED_LEN))
    pairs.append((f"tok/s of {run.batch} requests at once", tokens / simulated.seconds, tokens / times[run]))
    return [{"what": what, "predicted": p, "measured": m, "error": p / m - 1} for what, p, m in pairs]


def read_calibration(path: Path) -> Calibration:
    """Raises Misuse that names the file and what is wrong in it."""
    from inferd.planner.calibrate import calibration_from_json

    return checked(calibration_from_json, path.read_text("utf-8"), path.name)
