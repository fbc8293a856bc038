"""`inferd bench serve | offline | cold-start | plot`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inferd.bench.config import LoadConfig
from inferd.cli.models import ensure_local
from inferd.cli.options import checked, config_option, engine_options, json_option
from inferd.cli.output import Failure, Misuse, print_facts, print_json, print_table
from inferd.config import EngineConfig

if TYPE_CHECKING:
    from inferd.bench.load import Run

INTERRUPTED = 130  # what shells report after Ctrl-C


class Numbers(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """Numbers with commas between them."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float]) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self._kind(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of numbers, as in 1,2,4", param, ctx)


class Pairs(click.ParamType):  # type: ignore[type-arg]
    """NAME:VALUE; values become numbers where `is_number`."""

    name = "pair"

    def __init__(self, *, is_number: bool) -> None:
        self._is_number = is_number

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        name, colon, text = str(value).partition(":")
        try:
            if colon and name.strip():
                return name.strip(), float(text) if self._is_number else text.strip()
        except ValueError:
            pass
        self.fail(f"{value!r} is not of the form {'NAME:NUMBER' if self._is_number else 'NAME:VALUE'}", param, ctx)


def _json_object(ctx: click.Context, param: click.Parameter, value: str) -> dict[str, Any]:
    try:
        found = json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise click.BadParameter(f"not a JSON object: {value[:80]}")
    return found


def _load(flag: str, help_text: str, **attributes: Any) -> Any:
    return config_option(LoadConfig, flag, help_text, **attributes)


_CHOICE = click.Choice
_FILE = click.Path(dir_okay=False, path_type=Path)
_OUTPUT = click.option("--output", type=_FILE, metavar="FILE", help="Write the JSON report.")
_TARGET_OPTIONS = (
    click.option("--url", "--base-url", "url", default="http://127.0.0.1:8000", show_default=True,
                 help="The server, with or without /v1."),
    _load("--model", "Name of the model in requests; default: the first the server lists."),
    _load("--api", "Which route is called.", type=_CHOICE(("chat", "completions"))),
    click.option("--api-key", envvar=["INFERD_API_KEY", "OPENAI_API_KEY"], metavar="KEY",
                 help="Key to send; no report shows it. Environment: INFERD_API_KEY, OPENAI_API_KEY."),
    click.option("--header", "headers", multiple=True, type=Pairs(is_number=False), metavar="NAME:VALUE",
                 help="A header to send; may be given several times."),
    click.option("--extra-body", default="{}", callback=_json_object, metavar="JSON",
                 help="Fields to add to each request, over those of the benchmark; null takes one away."),
    _load("--temperature", "0 always takes the likeliest token.", type=float),
    _load("--ignore-eos/--no-ignore-eos", "Ask for outputs of full length; not every server knows the field."),
    _load("--timeout", "For one request, to its end.", type=float, metavar="SECONDS"),
)  # fmt: skip
_DATASET_OPTIONS = (
    _load("--dataset", "Where prompts and lengths come from.",
          type=_CHOICE(("random", "shared-prefix", "sharegpt", "mooncake", "azure"))),
    _load("--dataset-path", "File of sharegpt (JSON), mooncake (JSON lines) or azure (CSV).", metavar="FILE"),
    _load("--input-len", "Length of random prompts.", type=int, metavar="TOKENS"),
    _load("--output-len", "Length of outputs; default: 64, or as the dataset says.", type=int, metavar="TOKENS"),
    _load("--range-ratio", "Random lengths are uniform within plus and minus this share.", type=float),
    _load("--prefix-len", "Length of a shared prefix, before --input-len own tokens.", type=int, metavar="TOKENS"),
    _load("--num-prefixes", "How many different shared prefixes.", type=int, metavar="N"),
    _load("--length-scale", "Factor on the lengths of a trace.", type=float),
    _load("--trace-speed", "How many times faster than it was recorded a trace is replayed.", type=float),
)  # fmt: skip
_LOAD_OPTIONS = (
    click.option("--request-rate", "request_rates", type=Numbers(float), default=(), metavar="R,R,...",
                 help="Requests per second, several for a sweep; inf: all at once. Default: inf, or as a trace says."),
    click.option("--max-concurrency", type=Numbers(int), default=(), metavar="N,N,...",
                 help="Most requests in flight, several for a sweep. Without --request-rate: so many clients, each of "
                      "which asks again when it is answered."),
    _load("--arrival", "How requests spread over time.", type=_CHOICE(("poisson", "gamma", "constant", "burst"))),
    _load("--burstiness", "Shape of gamma: 1 is poisson, below 1 is burstier.", type=float),
    _load("--burst-size", "Requests at one instant with burst.", type=int, metavar="N"),
    _load("--num-prompts", "Requests of each run.", type=int, metavar="N"),
    _load("--duration", "Send for so long, instead of --num-prompts.", type=float, metavar="SECONDS"),
    _load("--num-warmups", "Requests before, which do not count.", type=int, metavar="N"),
    click.option("--goodput", multiple=True, type=Pairs(is_number=True), metavar="METRIC:MS",
                 help="A limit that good requests keep: ttft, tpot or e2el; may be given several times."),
    _load("--goodput-share", "Share of good requests that the best rate of a sweep must keep.", type=float),
    _load("--seed", "Of prompts, lengths and times.", type=int),
)  # fmt: skip
_OUTPUT_OPTIONS = (
    _OUTPUT,
    click.option("--plot", type=_FILE, metavar="FILE", help="Draw the curves: .html, or .png with matplotlib."),
    click.option("--label", default="", help="Name of the result in plots."),
    click.option("--save-detailed", is_flag=True, help="Put the times of every request into the report."),
    json_option,
)  # fmt: skip


def _with(*groups: tuple[Any, ...]) -> Callable[[Any], Any]:
    def add(command: Any) -> Any:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return add


@click.group()
def bench() -> None:
    """Measure a server, the engine alone, or a cold start."""


@bench.command()
@_with(_TARGET_OPTIONS, _DATASET_OPTIONS, _LOAD_OPTIONS, _OUTPUT_OPTIONS)
def serve(
    output: Path | None, plot: Path | None, label: str, save_detailed: bool, as_json: bool, **values: Any
) -> None:
    """Send a load to an OpenAI-compatible server and report its latencies.

    With --request-rate the load is open: requests are sent when the schedule says, whatever the server does. With
    --max-concurrency alone it is closed: as many clients ask one request after the other.
    """
    values["goodput"], values["headers"] = dict(values["goodput"]), dict(values["headers"])
    config = checked(LoadConfig, **values)
    from inferd.bench import plots, report
    from inferd.bench.machine import provenance

    if plot is not None:
        checked(plots.check, plot)
    _check_output(output)
    origin = provenance()
    runs, facts = _measured(config)
    document = report.document(origin, runs, config, facts, detailed=save_detailed) | {"label": label}
    if output is not None:
        report.write_json(output, document)
    if plot is not None:
        plots.write(plot, [(label, document)])
    if as_json:
        print_json(document)
    else:
        _print_serve(document, config, facts)
    if not any(run.num_done > run.num_failed for run in runs):
        raise Failure("no request was answered")


def _measured(config: LoadConfig) -> tuple[list[Run], Any]:
    import uvloop

    from inferd.bench.load import run_sweep
    from inferd.bench.progress import progress
    from inferd.bench.target import Target

    async def measure() -> tuple[list[Run], Any]:
        target = Target(config)
        try:
            await target.probe()
            with progress(len(config.points)) as on_tick:
                return await run_sweep(config, target, on_tick), target.facts
        finally:
            target.close()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(measure())
    except KeyboardInterrupt:
        click.echo("stopped; nothing was reported", err=True)
        raise SystemExit(INTERRUPTED) from None


def _print_serve(document: dict[str, Any], config: LoadConfig, facts: Any) -> None:
    from inferd.bench import plots, report

    parts = plots.runs_of(document)
    version = f" (version {facts.version})" if facts.version else ""
    click.echo(f"{facts.model} at {config.url}{version}\n")
    if len(parts) == 1:
        print_facts(report.fact_lines(parts[0]))
        click.echo()
        print_table(report.LATENCY_HEADER, report.latency_rows(parts[0]))
    else:
        print_table(report.SWEEP_HEADER, report.sweep_rows(parts))
        if document["max_rate_within_goodput"] is not None:
            share = f"{100 * config.goodput_share:g} %"
            click.echo(f"\n{share} of the requests were good up to {document['max_rate_within_goodput']} requests/s")
    for part in parts:
        for line in report.warnings(part, config, facts):
            click.echo(f"warning: {plots.load_name(part)}: {line}", err=True)


@bench.command()
@click.argument("model")
@click.option("--batch-size", "batch_sizes", type=Numbers(int), default=(1, 8, 32), metavar="N,N,...",
              help="Requests at once, several for a sweep; default: 1,8,32.")  # fmt: skip
@click.option("--input-len", default=128, show_default=True, metavar="TOKENS", help="Length of prompts.")
@click.option("--output-len", default=64, show_default=True, metavar="TOKENS", help="Length of outputs.")
@click.option("--repeat", default=3, show_default=True, metavar="N", help="Batches of each size; medians are shown.")
@_OUTPUT
@engine_options
@json_option
def offline(
    model: str, batch_sizes: tuple[int, ...], input_len: int, output_len: int, repeat: int, output: Path | None,
    as_json: bool, **values: Any,
) -> None:  # fmt: skip
    """Measure the engine in this process, without HTTP, by batch size.

    Prompts are random tokens, outputs have their full length, sampling is greedy.
    """
    from inferd.bench.offline import OfflineConfig, measure

    sizes = {"batch_sizes": batch_sizes, "input_len": input_len, "output_len": output_len, "repeat": repeat}
    config = checked(OfflineConfig, seed=values["seed"], **sizes)
    _check_output(output)
    checked(EngineConfig, **values)  # before a download
    path = ensure_local(model)
    begin = time.perf_counter()
    from inferd.executors.native import cpu_info
    from inferd.llm import LLM

    llm = checked(LLM, model=str(path), max_num_seqs=max(batch_sizes), **values)
    loaded = time.perf_counter() - begin
    on_batch = _show_batch if sys.stderr.isatty() else lambda size, turn: None
    rows = list(measure(llm.loaded.engine, llm.loaded.tokenizer.num_tokens, config, on_batch))
    llm.close()
    from inferd.bench.machine import provenance

    document = {"benchmark": "offline", **provenance(), "kernels": cpu_info()["isa"], "model_id": model,
                "arguments": {**sizes, **values}, "load_seconds": loaded, "runs": rows}  # fmt: skip
    _finish(document, output, as_json=as_json, show=_print_offline)


def _show_batch(size: int, turn: int) -> None:
    click.echo(f"\rbatch {size}, repeat {turn + 1}   ", nl=False, err=True)


def _print_offline(document: dict[str, Any]) -> None:
    from inferd.bench.report import OFFLINE_HEADER, offline_rows

    click.echo(f"{document['model_id']}, loaded in {document['load_seconds']:.2f} s, {document['kernels']} kernels\n")
    print_table(OFFLINE_HEADER, offline_rows(document["runs"]))


@bench.command("cold-start")
@click.argument("model")
@click.option("--kind", "kinds", multiple=True, type=_CHOICE(("run", "serve")), default=("run", "serve"),
              show_default=True, help="Which command is started; may be given several times.")  # fmt: skip
@click.option("--repeat", default=5, show_default=True, metavar="N", help="Starts of each kind; the median is shown.")
@click.option("--cold", "is_cold", is_flag=True, help="Drop the model from the page cache before each start.")
@click.option("--timeout", default=120.0, show_default=True, metavar="SECONDS", help="For one start.")
@_OUTPUT
@json_option
def cold_start(model: str, output: Path | None, as_json: bool, **values: Any) -> None:
    """Time inferd run and inferd serve from the start of the process to the first token."""
    from inferd.bench.coldstart import ColdStartConfig, measure
    from inferd.bench.machine import provenance

    _check_output(output)
    config = checked(ColdStartConfig, model=Path(model), **values)  # before a download
    config = replace(config, model=ensure_local(model))
    on_start = (lambda kind: click.echo(f"inferd {kind} ...", err=True)) if sys.stderr.isatty() else lambda kind: None
    before = provenance()
    figures = measure(config, on_start)
    document = {"benchmark": "cold-start", **before, "model_id": model, "repeat": config.repeat, **figures}
    _finish(document, output, as_json=as_json, show=_print_cold_start)


def _print_cold_start(document: dict[str, Any]) -> None:
    rows = []
    for kind in ("run", "serve"):
        if values := document.get(f"{kind}_first_token_all_s"):
            median = document[f"{kind}_first_token_s"]
            rows.append((f"inferd {kind}", f"{median:.3f}", f"{min(values):.3f}", f"{max(values):.3f}"))
    print_table(("TO THE FIRST TOKEN", "MEDIAN S", "MIN S", "MAX S"), rows)
    if document["is_cold"]:
        click.echo(
            f"\n{100 * document['resident_share_before']:.0f} % of the file was still in memory before the last start"
        )


def _check_output(output: Path | None) -> None:
    """Before an hour of measuring, not after it."""
    if output is not None and not output.parent.is_dir():
        raise Misuse(f"--output: no folder {output.parent}")


def _finish(
    document: dict[str, Any], output: Path | None, *, as_json: bool, show: Callable[[dict[str, Any]], None]
) -> None:
    from inferd.bench.report import write_json

    if output is not None:
        write_json(output, document)
    if as_json:
        print_json(document)
    else:
        show(document)


@bench.command()
@click.argument("reports", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--output", required=True, type=_FILE, metavar="FILE",
              help="An .html or, with matplotlib, a .png file.")  # fmt: skip
def plot(reports: tuple[Path, ...], output: Path) -> None:
    """Draw REPORTS of `inferd bench serve` into one figure, to compare servers."""
    from inferd.bench import plots

    checked(plots.check, output)
    results = []
    for path in reports:
        try:
            document = json.loads(path.read_text("utf-8"))
            is_report = document["benchmark"] == "serve"
        except (ValueError, KeyError, TypeError):
            is_report = False
        if not is_report:
            raise Failure(f"{path}: no report of inferd bench serve")
        results.append((document.get("label") or path.stem, document))
    plots.write(output, results)
    click.echo(str(output))
