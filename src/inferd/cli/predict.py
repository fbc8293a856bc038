"""`inferd predict`: a table through a predictive model, in this process."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inferd.cli.models import ensure_local
from inferd.cli.options import json_option
from inferd.cli.output import Misuse, print_json
from inferd.config import EngineConfig

if TYPE_CHECKING:
    from inferd.predictive.job import Done, TableJob

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _features(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, list[str]]:
    features = {}
    for value in values:
        name, equals, columns = value.partition("=")
        if not equals or not name or not all(columns.split(",")):
            raise click.BadParameter(f"{value!r} must be INPUT=COLUMN,COLUMN,…", context, parameter)
        features[name] = columns.split(",")
    return features


@click.command()
@click.argument("model")
@click.argument("table", type=_FILE)
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="CSV file to write; an interrupted one is continued.")
@click.option("--features", multiple=True, callback=_features, metavar="INPUT=COLUMN,…",
              help="Columns that fill an input; default: those of the model's settings, or of its name, or all.")
@click.option("--keep", multiple=True, metavar="COLUMN", help="Copy this column; may be given several times.")
@click.option("--model-version", "version", default="", metavar="VERSION", help="Default: the latest.")
@click.option("--chunk-rows", type=click.IntRange(1, 1_000_000), default=4096, show_default=True,
              help="Rows computed at a time, and at most lost by a kill.")
@click.option("--num-threads", type=click.IntRange(1, 256), metavar="N", help="Default: every usable core.")
@json_option
def predict(
    model: str, table: Path, output: Path, num_threads: int | None, as_json: bool, **values: Any
) -> None:  # fmt: skip
    """Compute the rows of TABLE, a CSV file with a header, with MODEL, an ONNX file or directory.

    Interrupted in whatever way, the same command goes on where it was.
    """
    path = ensure_local(model)
    from inferd.models.kinds import is_predictive
    from inferd.predictive.job import TableJob, version_files
    from inferd.predictive.model import PredictiveModel

    if not is_predictive(path):
        raise Misuse(f"{model} is no predictive model: its file must be in ONNX")
    threads = EngineConfig(num_threads=num_threads).resolved_num_threads
    loaded = PredictiveModel(path, threads)
    files = version_files(path, loaded.version(values["version"]))
    begin = time.monotonic()
    done = _run(TableJob(loaded, files, table, output, **values))
    seconds = time.monotonic() - begin
    if as_json:
        facts = {"rows": done.num_rows, "resumed_rows": done.num_resumed, "seconds": round(seconds, 3)}
        print_json({"output": str(output), **facts})
        return
    earlier = f", {done.num_resumed} of them in an earlier run" if done.num_resumed else ""
    click.echo(f"{done.num_rows} rows in {output}{earlier}; {seconds:.1f} s")


def _run(job: TableJob) -> Done:
    """With a bar on a terminal's stderr; on another, the rows done so far when it is interrupted."""
    with click.progressbar(length=1, label="rows", file=sys.stderr, item_show_func=lambda rows: rows) as bar:
        num_rows = 0

        def show(rows: int, at: int, size: int) -> None:
            nonlocal num_rows
            num_rows = rows
            bar.length = max(1, size)
            bar.update(at - bar.pos, f"{rows}")

        try:
            return job.run(show)
        except KeyboardInterrupt:
            click.echo(f"\ninterrupted after {num_rows} rows; the same command goes on", err=True)
            raise SystemExit(130) from None
