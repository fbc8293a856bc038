"""`inferd`: the commands, and how an error leaves the program."""

from __future__ import annotations

import importlib
import platform
from typing import Any

import click

import inferd
from inferd.cli.options import json_option
from inferd.cli.output import Failure, print_json
from inferd.errors import InferdError

# in the order of use; a command's module is loaded when it is asked for
_COMMANDS = {
    "serve": "serve:serve",
    "run": "run:run",
    "ps": "ps:ps",
    "pull": "models:pull",
    "list": "models:list_models",
    "show": "models:show",
    "rm": "models:rm",
    "predict": "predict:predict",
    "rag": "rag:rag",
    "batch": "batch:batch",
    "bench": "bench:bench",
    "eval": "evaluate:evaluate",
    "plan": "plan:plan",
    "usage": "usage:usage",
    "doctor": "doctor:doctor",
}


class Cli(click.Group):
    """Errors of the tree and of the operating system end in one line, never in a traceback."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        known = super().get_command(ctx, cmd_name)
        if known is None and cmd_name in _COMMANDS:
            module, _, name = _COMMANDS[cmd_name].partition(":")
            known = getattr(importlib.import_module(f"inferd.cli.{module}"), name)
            assert isinstance(known, click.Command)
        return known

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click ends quietly when the reader of a pipe has left
        except InferdError as error:
            raise Failure(str(error)) from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename is not None else ""
            raise Failure(where + (error.strerror or str(error))) from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS, *self.commands]


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(inferd.__version__, message="inferd %(version)s")
def cli() -> None:
    """On-premises AI inference with its own engine.

    Start with: inferd serve, or: inferd run smollm2
    """


@cli.command()
@json_option
def version(as_json: bool) -> None:
    """Print the version."""
    facts = {"inferd": inferd.__version__, "python": platform.python_version(), "machine": platform.machine()}
    if as_json:
        print_json(facts)
    else:
        click.echo(f"inferd {facts['inferd']} (Python {facts['python']}, {facts['machine']})")


def main() -> None:
    cli(prog_name="inferd")
