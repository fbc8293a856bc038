"""`inferd pull | list | show | rm`: the model store from the command line."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from inferd.cli.options import json_option
from inferd.cli.output import format_bytes, format_count, print_facts, print_json, print_table, pull_progress

if TYPE_CHECKING:
    from pathlib import Path

    from inferd.models.checkpoint import Checkpoint


def ensure_local(name: str) -> Path:
    """The model's path; what can be pulled is, on first use. Raises ModelNotFoundError."""
    from inferd.models import store

    if store.is_local(name) or not store.can_be_pulled(name):
        return store.resolve(name)
    with pull_progress(name) as progress:
        return store.pull(name, progress)


@click.command()
@click.argument("name")
@json_option
def pull(name: str, as_json: bool) -> None:
    """Fetch a model into the store; at once when it is there."""
    path = ensure_local(name)
    if as_json:
        print_json({"name": name, "path": str(path)})
    else:
        click.echo(f"{name} is at {path}")


@click.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List the models of the store."""
    from inferd.models import store

    models = store.list_models()
    if as_json:
        print_json([{**asdict(model), "path": str(model.path)} for model in models])
    elif models:
        rows = [(model.name, format_bytes(model.num_bytes), str(model.path)) for model in models]
        print_table(("MODEL", "SIZE", "PATH"), rows)
    else:
        click.echo(f"no models in {store.store_dir()}; fetch one with: inferd pull smollm2")


@click.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show what a model file says: sizes, tensor types, context, memory."""
    from inferd.models import store
    from inferd.models.loader import load_checkpoint

    facts = checkpoint_facts(load_checkpoint(store.resolve(name)))
    if as_json:
        print_json(facts)
        return
    types = ", ".join(f"{count} x {kind}" for kind, count in facts["tensor_types"].items())
    defaults = ", ".join(f"{key} {value}" for key, value in facts["generation_defaults"].items())
    print_facts(
        [
            ("name", facts["name"]),
            ("path", facts["path"]),
            ("family", facts["family"]),
            ("parameters", format_count(facts["num_parameters"])),
            ("weights", f"{format_bytes(facts['num_weight_bytes'])} ({types})"),
            ("layers", f"{facts['num_layers']} of width {facts['hidden_size']}, feed-forward {facts['ffn_size']}"),
            ("heads", f"{facts['num_heads']} of {facts['head_dim']}, {facts['num_kv_heads']} for keys and values"),
            ("vocabulary", str(facts["vocab_size"])),
            ("context", f"{facts['max_position']} tokens"),
            ("KV cache", f"{format_bytes(facts['kv_bytes_per_token'])} per token"),
            ("chat template", "yes" if facts["has_chat_template"] else "no"),
            ("asks for", defaults or "no sampling values"),
        ]
    )


def checkpoint_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """Sizes are in bytes; all of them are derived from the file, none is measured."""
    from inferd.engine.memory import kv_bytes_per_token

    spec = checkpoint.spec
    sizes = ("hidden_size", "ffn_size", "num_layers", "num_heads", "num_kv_heads", "head_dim", "vocab_size")
    return {
        "name": checkpoint.name,
        "path": str(checkpoint.path),
        "family": spec.family,
        "num_parameters": spec.num_parameters,
        "num_weight_bytes": checkpoint.num_weight_bytes,
        "tensor_types": dict(Counter(weight.kind.name for weight in checkpoint.weights.values()).most_common()),
        **{size: getattr(spec, size) for size in sizes},
        "max_position": spec.max_position,
        "kv_bytes_per_token": kv_bytes_per_token(spec),
        "has_chat_template": checkpoint.chat_template is not None,
        "generation_defaults": dict(checkpoint.generation_defaults),
    }


@click.command()
@click.argument("names", nargs=-1, required=True)
def rm(names: tuple[str, ...]) -> None:
    """Remove models from the store."""
    from inferd.models import store

    for name in names:
        store.remove(name)
        click.echo(f"removed {name}")
