"""`inferd plan`: what a model needs, how fast it answers and what its tokens cost, before anything is bought."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from inferd.cli.options import checked, json_option
from inferd.cli.output import Failure, Misuse, print_json, print_table
from inferd.cli.plan_calibrate import calibrate, read_calibration
from inferd.errors import ModelNotFoundError

if TYPE_CHECKING:
    from inferd.planner import ModelShape, Report
    from inferd.planner.precision import Precision

Command = TypeVar("Command", bound=Callable[..., Any])

_MODEL = click.option(
    "--model", metavar="MODEL", help="A preset, a model of the store, a .gguf file, or a config.json or its folder."
)
_SHARED = (
    click.option("--precision", help="Of the weights; default: bf16, or the file's own.", metavar="NAME"),
    click.option("--kv-precision", default="bf16", show_default=True, help="Of the KV cache.", metavar="NAME"),
    click.option("--prompt-tokens", type=int, default=1000, show_default=True, help="Mean tokens of a prompt."),
    click.option("--output-tokens", type=int, default=300, show_default=True, help="Mean tokens of an answer."),
    click.option("--rate", type=float, default=1.0, show_default=True, help="Requests a second over all nodes."),
    click.option("--length-cv", type=float, default=0.5, show_default=True, help="Spread of lengths; 0: all equal."),
    click.option("--arrival-cv", type=float, default=1.0, show_default=True, help="Burstiness; 1: Poisson."),
    click.option("--cached-fraction", type=float, default=0.0, show_default=True, help="Share of a prompt cached."),
    click.option("--ttft-s", type=float, default=2.0, show_default=True, help="Target: seconds to the first token."),
    click.option("--tpot-s", type=float, default=0.1, show_default=True, help="Target: seconds for a further token."),
    click.option("--tp", type=int, help="Devices of one replica; default: what serves most within the targets."),
    click.option("--max-batch", type=int, default=256, show_default=True, help="Sequences of one replica at once."),
    click.option("--token-budget", type=int, default=2048, show_default=True, help="Tokens of one engine step."),
    click.option("--memory-utilization", type=float, default=0.9, show_default=True, help="Share the engine may fill."),
    click.option("--activation-gib", type=float, help="Of one device, for activations; default: by the vocabulary."),
    click.option("--years", type=float, help="Term of ownership; default: 3."),
    click.option("--utilization", type=float, help="Share of the capacity that is used; default: 0.5."),
    click.option("--server-usd", type=float, help="Price of one node; default: devices by the catalogue, and a host."),
    click.option("--rent-usd-h", type=float, help="Rent of one node an hour, instead of ownership."),
    click.option("--usd-per-kwh", type=float, help="Price of electricity; default: 0.12."),
    click.option("--pue", type=float, help="Power usage effectiveness of the site; default: 1.3."),
    click.option("--node-watts", type=float, help="Of one node under load, at the wall; default: from its TDP."),
    click.option("--cost", "cost_lines", multiple=True, metavar="NAME=VALUE", help="Any other line of the cost."),
    click.option("--api", "apis", multiple=True, metavar="NAME", help="An API price to break even with; repeatable."),
    click.option("--calibration", type=click.Path(dir_okay=False), help="A file of plan calibrate."),
    json_option,
    click.option("--markdown", is_flag=True, help="Print Markdown."),
)
_WORKLOAD = (
    "prompt_tokens", "output_tokens", "rate", "length_cv", "arrival_cv", "cached_fraction", "ttft_s", "tpot_s",
)  # fmt: skip
_COSTS = ("years", "utilization", "server_usd", "rent_usd_h", "usd_per_kwh", "pue", "node_watts")
_PLAN = ("kv_precision", "tp", "max_batch", "token_budget", "memory_utilization", "activation_gib")


def _shared(command: Command) -> Command:
    for option in reversed((_MODEL, *_SHARED)):
        command = option(command)
    return command


@click.group("plan", invoke_without_command=True)
@click.option("--hardware", metavar="NAME[:COUNT]", help="One node, as h200:8, or a .json file of a device.")
@_shared
@click.option("--plot", type=click.Path(dir_okay=False), help="Also draw cost and sensitivity: .png, .svg or .pdf.")
@click.pass_context
def plan(ctx: click.Context, /, hardware: str | None, plot: str | None, **values: Any) -> None:
    """Memory, latency, throughput and cost of a model on a node.

    Example: inferd plan --model llama-3-70b --hardware h200:8 --precision fp8 --rate 20
    """
    if ctx.invoked_subcommand is not None:
        return
    if not hardware:
        raise Misuse("--hardware is missing: one node, as h200:8 (inferd plan hardware lists them)")
    from inferd import planner

    model, options = _options(values)
    report = checked(planner.plan, model, hardware, **options)
    if plot:
        _draw(plot, report, values)
    _show(report, values)
    if not report.fits:
        raise SystemExit(1)


def _show(report: Report, values: dict[str, Any]) -> None:
    if values["as_json"]:
        print_json(report.facts())
    else:
        click.echo(report.markdown() if values["markdown"] else report.text())


def _draw(path: str, report: Report, values: dict[str, Any]) -> None:
    from inferd.planner.plots import plot_report

    try:
        checked(plot_report, report, Path(path))
    except ImportError:
        raise Failure("--plot needs matplotlib: pip install 'inferd[plots]'") from None
    if not values["as_json"]:
        click.echo(f"drawn into {path}", err=True)


@plan.command()
@click.option("--hardware", metavar="NAME[:COUNT]", multiple=True, required=True, help="A node; repeatable.")
@_shared
def compare(hardware: tuple[str, ...], **values: Any) -> None:
    """The same plan on several kinds of node, side by side."""
    from inferd import planner
    from inferd.planner.report import comparison, markdown_table

    model, options = _options(values)
    reports = checked(planner.compare, model, hardware, **options)
    header, rows = comparison(reports)
    if values["as_json"]:
        print_json([report.facts() for report in reports])
    elif values["markdown"]:
        click.echo(markdown_table(header, rows))
    else:
        print_table(header, rows)


@plan.command("hardware")
@json_option
def list_hardware(as_json: bool) -> None:
    """List the device catalogue: dense rates, prices with their dates."""
    from dataclasses import asdict

    from inferd.planner.hardware import catalogue

    devices = catalogue().values()
    if as_json:
        print_json([asdict(device) for device in devices])
        return

    def cell(value: float | None) -> str:
        return "-" if value is None else f"{value:g}"

    header = (
        "NAME",
        "GB",
        "GB/s",
        "BF16 TF",
        "FP8 TF",
        "FP4 TF",
        "W",
        "BUY $",
        "RENT $/h",
        "CONFIDENCE",
        "PRICES FROM",
    )
    rows = [
        (
            d.id, cell(d.mem_gb), cell(d.mem_bw_gbps), cell(d.bf16_dense_tflops), cell(d.fp8_dense_tflops),
            cell(d.fp4_dense_tflops), cell(d.tdp_w), cell(d.purchase_usd), cell(d.rent_usd_h_low), d.confidence,
            "; ".join(note for note in (d.purchase_note, d.rent_note) if note),
        )
        for d in devices
    ]  # fmt: skip
    print_table(header, rows)


@plan.command("models")
@json_option
def list_presets(as_json: bool) -> None:
    """List the model presets."""
    from inferd.planner.shapes import presets

    shapes = {shape.id: shape for shape in presets().values()}
    facts: list[dict[str, Any]] = [
        {
            "name": shape.id,
            "parameters": shape.total_params,
            "active": shape.active_params,
            "kv_elements_per_token": shape.kv_elements_per_token,
        }
        for shape in shapes.values()
    ]
    if as_json:
        print_json(facts)
        return
    rows = [(f["name"], f"{f['parameters'] / 1e9:.2f}", f"{f['active'] / 1e9:.2f}") for f in facts]
    print_table(("NAME", "PARAMETERS B", "ACTIVE B"), rows)


@plan.command()
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only this claim, as A30; repeatable.")
@json_option
@click.option("--markdown", is_flag=True, help="Print Markdown.")
def article(ids: tuple[str, ...], as_json: bool, markdown: bool) -> None:
    """Recompute the 61 audited claims of an article on inference economics."""
    from inferd.planner.article import recompute
    from inferd.planner.report import markdown_table

    findings = checked(recompute, ids)
    if as_json:
        print_json([finding.facts() for finding in findings])
        return
    header, rows = ("id", "claim", "computed", "verdict"), [f.cells() for f in findings]
    if markdown:
        click.echo(markdown_table(header, rows))
        return
    for finding in findings:
        click.echo(f"{finding.id}  {finding.claim}\n    computed: {finding.computed}\n    verdict:  {finding.verdict}")
    click.echo(f"{len(findings)} claims")


def _options(values: dict[str, Any]) -> tuple[str | ModelShape, dict[str, Any]]:
    """The model, and the keyword arguments of planner.plan."""
    from inferd.planner import CostInputs, Workload
    from inferd.planner.planning import DEFAULT_APIS

    if not values["model"]:
        raise Misuse("--model is missing: a preset, as llama-3-70b (inferd plan models lists them), or a model file")
    workload = checked(Workload, **{name: values[name] for name in _WORKLOAD})
    given = {name: values[name] for name in _COSTS if values[name] is not None}
    costs = checked(CostInputs, **given, **_cost_lines(values["cost_lines"]))
    model, precision = _model(values["model"])
    options = {name: values[name] for name in _PLAN}
    options |= {"workload": workload, "costs": costs, "apis": values["apis"] or DEFAULT_APIS}
    options["precision"] = values["precision"] or precision
    if values["calibration"]:
        options["calibration"] = read_calibration(Path(values["calibration"]))
    return model, options


def _cost_lines(texts: Sequence[str]) -> dict[str, float]:
    """NAME=VALUE of fields of CostInputs that have no option of their own."""
    from dataclasses import fields

    from inferd.planner import CostInputs
    from inferd.planner.tables import choose

    allowed = {f.name: f.name for f in fields(CostInputs) if f.name not in _COSTS}
    lines = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            lines[checked(choose, "--cost", name, allowed)] = float(number)
        except ValueError:
            raise Misuse(f"--cost: {text!r}: write NAME=NUMBER, as network_usd=20000") from None
    return lines


def _model(name: str) -> tuple[str | ModelShape, str | Precision]:
    """A preset's name in bf16, or a file's shape in its own format."""
    path = Path(name)
    if path.suffix == ".json" or (path / "config.json").is_file():
        return _config_shape(path if path.is_file() else path / "config.json"), "bf16"
    from inferd.planner.shapes import preset, presets

    if name.lower() in presets():
        return name, "bf16"
    from inferd.models import store

    try:
        return _gguf_shape(path if path.suffix == ".gguf" else store.resolve(name))
    except ModelNotFoundError:
        if path.suffix == ".gguf":
            raise
        checked(preset, name)  # raises with the names near it
        raise


def _config_shape(path: Path) -> ModelShape:
    from inferd.planner.shape_files import shape_from_config

    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise Failure(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise Failure(f"{path} must hold an object")
    return checked(shape_from_config, config, path.parent.resolve().name)


def _gguf_shape(path: Path) -> tuple[ModelShape, Precision]:
    from inferd.models.gguf import read_gguf
    from inferd.planner.shape_files import file_precision, shape_from_gguf

    file = read_gguf(path)
    shape = checked(shape_from_gguf, file.metadata, list(file.tensors), path.stem)
    return shape, file_precision(shape, {name: weight.nbytes for name, weight in file.tensors.items()})


plan.add_command(calibrate)
