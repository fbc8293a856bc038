"""`inferd batch run`: a file of requests, answered by a server of its own or by one that runs."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from inferd.cli.batch_client import BatchClient
from inferd.cli.models import ensure_local
from inferd.cli.options import checked, engine_config, engine_options, json_option
from inferd.cli.output import Failure, Misuse, print_json
from inferd.gateway.config import ModelConfig, ServerConfig

DEFAULT_MODEL = "smollm2"
POLL_SECONDS = 0.5
_UNFINISHED = frozenset({"validating", "in_progress", "finalizing"})
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


@click.group()
def batch() -> None:
    """Many requests from a file."""


@batch.command("run")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Where the answers go; default: beside the input, as NAME.output.jsonl.")
@click.option("--model", metavar="MODEL", help="Answers every line, whatever model it names; default: what they name.")
@click.option("--url", metavar="URL", help="A running server to send the batch to, in place of one of its own.")
@click.option("--api-key", envvar="INFERD_API_KEY", show_envvar=True, metavar="KEY", help="For the server at --url.")
@click.option("--window", default="24h", show_default=True, metavar="TIME", help="When the batch expires.")
@engine_options
@json_option
def run_batch(
    file: Path, output: Path | None, model: str | None, url: str | None, api_key: str | None, window: str,
    as_json: bool, **values: Any,
) -> None:  # fmt: skip
    """Answer every line of FILE, in OpenAI's batch format.

    Answers go to the output file, lines that failed to one beside it. After an interruption the same command goes on
    where it was.
    """
    target = output or file.with_name(file.stem + ".output.jsonl")
    endpoint, models = _asked(file)
    if url is not None:
        if model is not None:
            raise Misuse("--model is for a server of its own; the server at --url has its models")
        ended = _carry_through(BatchClient(url, api_key), file, endpoint, window, _UNFINISHED)
        _write_results(BatchClient(url, api_key), ended, target)
    else:
        journal = target.with_name(target.name + ".journal")
        config = _own_server(journal, model, models, values)

        def work(own_url: str) -> dict[str, Any]:
            client = BatchClient(own_url, None)
            ended = _carry_through(client, file, endpoint, window, _UNFINISHED | {"completed"})
            _write_results(client, ended, target)
            return ended

        ended = _beside_server(config, work)
        shutil.rmtree(journal)
    _tell(ended, target, as_json=as_json)


def _asked(file: Path) -> tuple[str, list[str]]:
    """(the endpoint of the first line, the models that lines name); what is wrong the server tells by line number."""
    endpoint, models = "/v1/chat/completions", dict[str, None]()
    is_first = True
    with file.open("rb") as lines:
        for line in lines:
            try:
                fields = json.loads(line)
                body, url = fields.get("body") or {}, fields.get("url")
                name = body.get("model")
            except (ValueError, AttributeError):
                continue
            if is_first and isinstance(url, str):
                endpoint, is_first = url, False
            if isinstance(name, str):
                models[name] = None
    return endpoint, list(models)


def _own_server(journal: Path, model: str | None, models: list[str], values: dict[str, Any]) -> ServerConfig:
    names = [model] if model is not None else models or [DEFAULT_MODEL]
    for name in names:
        ensure_local(name)
    configs = tuple(ModelConfig(model=name) for name in names)
    aliases = (("*", configs[0].names[0]),) if model is not None else ()
    engine = engine_config(values)
    return checked(
        ServerConfig, models=configs, model_aliases=aliases, engine=engine, port=0, drain_timeout=0.1,
        batch_dir=str(journal), response_retention=0.0,
    )  # fmt: skip


def _beside_server(config: ServerConfig, work: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """What work returns, given the URL of a server that runs for as long."""
    from inferd.gateway.app import serve

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    results: list[dict[str, Any] | Exception] = []

    def run(url: str) -> None:
        try:
            results.append(work(url))
        except Exception as error:
            results.append(error)
        os.kill(os.getpid(), signal.SIGTERM)

    serve(config, on_ready=lambda url: threading.Thread(target=run, args=(url,), daemon=True).start())
    if not results:
        raise Failure("interrupted; the same command goes on from here")
    if isinstance(results[0], Exception):
        raise results[0]
    return results[0]


def _carry_through(
    client: BatchClient, file: Path, endpoint: str, window: str, to_continue: frozenset[str]
) -> dict[str, Any]:
    """The batch of the file once it has ended: a new one, or one that reads the same and was begun before."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    found = client.find(digest, to_continue)
    current = found or client.create(client.upload(file), endpoint, window, digest)
    while current["status"] not in _ENDED:
        _show_progress(current)
        time.sleep(POLL_SECONDS)
        current = client.batch(current["id"])
    if sys.stderr.isatty():
        click.echo(err=True)
    return current


def _show_progress(current: dict[str, Any]) -> None:
    if sys.stderr.isatty():
        counts = current["request_counts"]
        text = f"{counts['completed'] + counts['failed']} of {counts['total']} lines, {counts['failed']} failed"
        click.echo(f"\r{current['status']}: {text}   ", nl=False, err=True)


def _errors_of(target: Path) -> Path:
    return target.with_name(target.name + ".errors")


def _write_results(client: BatchClient, ended: dict[str, Any], target: Path) -> None:
    for file_id, path in ((ended["output_file_id"], target), (ended["error_file_id"], _errors_of(target))):
        path.unlink(missing_ok=True)
        if file_id is not None:
            path.write_bytes(client.content(file_id))


def _tell(ended: dict[str, Any], target: Path, *, as_json: bool) -> None:
    """Fails unless every line has an answer."""
    counts = ended["request_counts"]
    if as_json:
        print_json({"id": ended["id"], "status": ended["status"], **counts, "output": str(target)})
    elif counts["completed"]:
        click.echo(f"{counts['completed']} answers in {target}")
    if ended["status"] == "failed":
        told = [f"line {error['line']}: {error['message']}" for error in ended["errors"]["data"]]
        raise Failure("the batch was refused\n  " + "\n  ".join(told))
    if ended["status"] != "completed" or counts["failed"]:
        how = f"{ended['status']}: " if ended["status"] != "completed" else ""
        raise Failure(f"{how}{counts['failed']} lines have no answer; see {_errors_of(target)}")
