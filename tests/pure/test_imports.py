"""Imports point one way, and the front of the house stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
BASE = {"errors", "types", "config", "machine", "units", "yaml_file"}
MODELS = BASE | {"models", "quantization", "tokenizer"}  # siblings; no cycle among their modules
FRONT = {"worker.protocol", "worker.client", "worker.supervisor"}

# part of inferd -> the parts it may import, besides itself
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "types": {"errors"},
    "config": {"errors", "types"},
    "machine": set(),
    "units": {"errors"},
    "yaml_file": {"errors"},
    "models": MODELS,
    "quantization": MODELS,
    "tokenizer": MODELS | {"_native"},
    "executors": MODELS | {"_native"},
    "speculative": MODELS | {"executors"},
    "structured": {"errors", "types"},
    "engine": MODELS | {"executors", "speculative", "structured", "metrics"},
    "llm": MODELS | {"executors", "engine", "structured"},
    "predictive": BASE | {"models"},
    "worker": MODELS | {"predictive", "executors", "engine", "structured", "parsing"},
    "encoder": MODELS | {"executors", "worker"},
    "metrics": {"types", "errors"},
    "ledger": BASE | {"metrics"},
    "jobs": BASE | {"ledger"},
    "rag": BASE | {"ledger"},
    "pipelines": BASE | {"predictive", "worker.protocol"},
    "planner": BASE,
    "bench": BASE,
    "dashboard": BASE | {"planner"},
    "eval": MODELS | {"executors", "engine", "llm", "__init__"},
    "parsing": {"errors"},
    "gateway": BASE | {"parsing", "metrics", "ledger", "jobs", "rag", "pipelines", "dashboard"} | FRONT,
    "cli": MODELS
    | {"executors", "engine", "llm", "gateway", "__init__", "ledger", "planner", "bench", "eval", "predictive"},
    "__init__": BASE | {"llm", "encoder"},
    "__main__": {"cli"},
}
NEVER = {"torch", "transformers", "pydantic", "pickle"}
# what a request passes before its worker: must start fast and hold no model
FRONT_MODULES = ["inferd.gateway.app", "inferd.cli.main", *(f"inferd.{name}" for name in sorted(FRONT))]
HEAVY = {"numpy", "tokenizers", "jinja2"}


def modules() -> dict[str, Path]:
    paths = (SRC / "inferd").rglob("*.py")
    return {".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


MODULES = modules()


def imports(path: Path, *, top_level: bool = False) -> Iterator[str]:
    """Full dotted names; those under TYPE_CHECKING count as any other unless only what runs at import is asked for."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else str(node.module)


def part_of(module: str) -> str:
    """inferd.engine.scheduler -> engine; inferd itself -> __init__."""
    return ([*module.split("."), "__init__"])[1]


def strays(module: str, path: Path) -> list[str]:
    own = part_of(module)
    allowed = ALLOWED[own]
    inside = [name for name in imports(path) if name.split(".")[0] == "inferd"]
    return [
        f"{module} imports {name}"
        for name in inside
        if part_of(name) not in allowed | {own} and name.removeprefix("inferd.") not in allowed
    ]


def test_every_part_has_a_rule() -> None:
    assert {part_of(module) for module in MODULES} == set(ALLOWED)


def test_imports_point_one_way() -> None:
    assert [stray for module, path in MODULES.items() for stray in strays(module, path)] == []


def test_a_wrong_import_is_seen(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def f():\n    from inferd.engine import engine\n    import inferd.worker.host\n")
    assert len(strays("inferd.gateway.wrong", wrong)) == 2
    assert len(strays("inferd.models.wrong", wrong)) == 2
    assert strays("inferd.worker.wrong", wrong) == []


def test_nothing_imports_what_may_not_run_here() -> None:
    found = {(m, name) for m, path in MODULES.items() for name in imports(path) if name.split(".")[0] in NEVER}
    assert found == set()


def test_modules_form_no_cycle() -> None:
    graph = {m: {n for n in imports(p, top_level=True) if n in MODULES and n != m} for m, p in MODULES.items()}
    while leaves := [module for module, needs in graph.items() if not needs & graph.keys()]:
        for module in leaves:
            del graph[module]
    assert sorted(graph) == []


@pytest.mark.parametrize("module", ["inferd", *FRONT_MODULES])
def test_the_front_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) & (HEAVY | NEVER - {"pickle"}) == set()


def test_every_name_of_the_public_door_opens() -> None:
    import inferd

    assert len(inferd.__all__) == len(set(inferd.__all__)) > 0
    assert all(getattr(inferd, name) is not None for name in inferd.__all__)
