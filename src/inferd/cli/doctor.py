"""`inferd doctor`: what this machine is, which kernels run on it and why, and which models fit."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import click

import inferd
from inferd.cli.models import checkpoint_facts
from inferd.cli.options import json_option
from inferd.cli.output import format_bytes, print_facts, print_json, print_table
from inferd.errors import ModelLoadError
from inferd.machine import cpu_model, cpuinfo

_NEEDS = {  # flags of /proc/cpuinfo, as native/dispatch.cpp asks cpuid for them
    "avx512": ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"),
    "avx2": ("avx2", "fma", "f16c"),
}


@click.command()
@click.option("--tokens", type=click.IntRange(min=1), default=8192, show_default=True, help="Size of the KV cache.")
@json_option
def doctor(tokens: int, as_json: bool) -> None:
    """Show the CPU, the kernels, the memory, and which stored models fit."""
    facts = {
        "inferd": inferd.__version__,
        "python": platform.python_version(),
        "cpu": _cpu(),
        "memory": _memory(),
        **_models(tokens),
    }
    if as_json:
        print_json(facts)
    else:
        _print(facts, tokens)


def _print(facts: dict[str, Any], tokens: int) -> None:
    cpu, memory = facts["cpu"], facts["memory"]
    quota = f", limited to {cpu['quota']:g} by the container" if cpu["quota"] else ""
    print_facts(
        [
            ("inferd", f"{facts['inferd']} on Python {facts['python']}"),
            ("cpu", cpu["model"]),
            ("cores", f"{cpu['cores']} usable{quota}"),
            ("kernels", f"{cpu['isa']}: {cpu['why']}"),
            ("memory", f"{format_bytes(memory['available'])} free of {format_bytes(memory['total'])}"),
            ("store", facts["store"]),
        ]
    )
    if not facts["models"]:
        click.echo("\nno models in the store; fetch one with: inferd pull smollm2")
        return
    click.echo()
    rows = [_row(model) for model in facts["models"]]
    print_table(("MODEL", "WEIGHTS", f"KV OF {tokens} TOKENS", "TOKENS THAT FIT", "FITS"), rows)


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    if "error" in model:
        return model["name"], "-", "-", "-", model["error"]
    sizes = format_bytes(model["weights"]), format_bytes(model["kv"])
    return model["name"], *sizes, str(model["tokens_that_fit"]), "yes" if model["fits"] else "no"


def _cpu() -> dict[str, Any]:
    from inferd.executors.native import cpu_info

    info, flags = cpu_info(), set(cpuinfo("flags").split())
    return {
        "model": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "quota": _cpu_quota(),
        "isa": info["isa"],
        "available": info["available"],
        "why": _why(info["isa"], info["available"], flags),
    }


def _why(isa: str, available: list[str], flags: set[str]) -> str:
    if os.environ.get("INFERD_ISA"):
        return f"INFERD_ISA asks for them (the CPU could run {', '.join(available)})"
    missing = [
        f"{better} needs {', '.join(flag for flag in needs if flag not in flags)}"
        for better, needs in _NEEDS.items()
        if better not in available
    ]
    return "; ".join(missing) + ", which the CPU lacks" if missing else "the best there are; the CPU has all they need"


def _cpu_quota() -> float | None:
    """Cores the control group allows, as a number of whole cores; None when it sets no limit."""
    quota, _, period = _cgroup("cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _cgroup(file: str) -> str:
    path = Path("/sys/fs/cgroup") / file
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _memory() -> dict[str, int]:
    """In bytes; a limit of the control group counts where it is the smaller."""
    from inferd.engine.memory import available_memory

    total, limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), _cgroup("memory.max")
    return {"total": min(total, int(limit)) if limit.isdigit() else total, "available": available_memory()}


def _models(tokens: int) -> dict[str, Any]:
    from inferd.models import store

    available = _memory()["available"]
    models = [_fit(model.name, model.path, tokens, available) for model in store.list_models()]
    return {"store": str(store.store_dir()), "models": models}


def _fit(name: str, path: Path, tokens: int, available: int) -> dict[str, Any]:
    """Bytes a model needs, derived from its file: packed weights take what they take there."""
    from inferd.models.loader import load_checkpoint

    try:
        facts = checkpoint_facts(load_checkpoint(path))
    except ModelLoadError as error:
        return {"name": name, "error": str(error)}
    weights, per_token = facts["num_weight_bytes"], facts["kv_bytes_per_token"]
    return {
        "name": name,
        "weights": weights,
        "kv": tokens * per_token,
        "tokens_that_fit": max(0, available - weights) // per_token,
        "context": facts["max_position"],
        "fits": weights + tokens * per_token <= available,
    }
