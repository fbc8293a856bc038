"""`inferd ps`: the models of a running server."""

from __future__ import annotations

from typing import Any

import click

from inferd.cli.options import json_option
from inferd.cli.output import format_bytes, print_json, print_table
from inferd.cli.remote import call


@click.command()
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="Where the server is.")
@json_option
def ps(url: str, as_json: bool) -> None:
    """Show which models a server has in memory, and what they take.

    The key is read from INFERD_API_KEY.
    """
    state = call(url, "/inferd/state")
    if as_json:
        names = ("name", "status", "memory_bound", "resident_bytes", "loaded_share", "idle_seconds", "idle_timeout",
                 "num_loads", "num_evictions", "num_running", "num_waiting")  # fmt: skip
        print_json([{name: model[name] for name in names} for model in state["models"]])
        return
    rows = [_row(model) for model in state["models"]]
    print_table(("MODEL", "STATUS", "RESIDENT", "AT MOST", "REQUESTS", "IDLE", "LEAVES AFTER"), rows)


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    share, resident, idle = model["loaded_share"], model["resident_bytes"], model["idle_seconds"]
    return (
        model["name"],
        model["status"] if share is None else f"{model['status']} {share:.0%}",
        "-" if resident is None else format_bytes(resident),
        format_bytes(model["memory_bound"]),
        str(model["num_running"] + model["num_waiting"]),
        "-" if idle is None else f"{idle:.0f} s",
        "never" if model["idle_timeout"] is None else f"{model['idle_timeout']:g} s",
    )
