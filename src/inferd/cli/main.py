"""`inferd`: the commands, and how an error leaves the program."""

from __future__ import annotations

import platform
from typing import Any

import click

import inferd
from inferd.cli.doctor import doctor
from inferd.cli.models import list_models, pull, rm, show
from inferd.cli.options import json_option
from inferd.cli.output import Failure, print_json
from inferd.cli.run import run
from inferd.cli.serve import serve
from inferd.errors import InferdError


class Cli(click.Group):
    """Errors of the tree and of the operating system end in one line, never in a traceback."""

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
        return list(self.commands)  # in the order of use


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(inferd.__version__, message="inferd %(version)s")
def cli() -> None:
    """On-premises AI inference with its own engine.

    Start with: inferd serve, or: inferd run smollm2
    """


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the version."""
    facts = {"inferd": inferd.__version__, "python": platform.python_version(), "machine": platform.machine()}
    if as_json:
        print_json(facts)
    else:
        click.echo(f"inferd {facts['inferd']} (Python {facts['python']}, {facts['machine']})")


for command in (serve, run, pull, list_models, show, rm, doctor, version):
    cli.add_command(command)


def main() -> None:
    cli(prog_name="inferd")
