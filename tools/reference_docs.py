"""Writes docs/reference/*.md from the code: the commands and the fields of every configuration class.

reference_docs.py [--check]     --check writes nothing and fails when a page is stale
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from inferd.cli.main import cli

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "reference"
NOTE = "<!-- Made from the code by `make docs`; edit the code instead. -->\n"
CLASSES = (
    ("src/inferd/config.py", "EngineConfig"),
    ("src/inferd/gateway/config.py", "ServerConfig"),
    ("src/inferd/types.py", "SamplingParams"),
)


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def cli_page() -> str:
    parts = [NOTE, "# Command line\n"]
    for name, command in _commands(cli, ""):
        parts += [f"## inferd {name}\n", inspect.cleandoc(command.help or "") + "\n"]
        if isinstance(command, click.Group) and not command.invoke_without_command:
            continue
        parts.append(f"    inferd {' '.join([name, *_arguments(command)])}\n")
        if options := [_option_row(p) for p in command.params if isinstance(p, click.Option)]:
            parts.append(table(("option", "default", "meaning"), options))
    return "\n".join(parts)


def _commands(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    """(full name, command) of a group and of the groups in it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield prefix + name, command
        if isinstance(command, click.Group):
            yield from _commands(command, f"{prefix}{name} ")


def _arguments(command: click.Command) -> Iterator[str]:
    yield "[OPTIONS]"
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            name = (parameter.name or "").upper()
            shown = parameter.metavar or (name if parameter.required else f"[{name}]")
            yield shown + ("..." if parameter.nargs == -1 and not shown.endswith("...") else "")


def _option_row(option: click.Option) -> tuple[str, str, str]:
    flags = " / ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
    default = "" if not option.show_default else f"`{option.default}`"
    choices = f" One of {', '.join(option.type.choices)}." if isinstance(option.type, click.Choice) else ""
    environment = f" Environment: `{option.envvar}`." if option.envvar else ""
    return flags, default, (option.help or "") + choices + environment


def config_page() -> str:
    parts = [NOTE, "# Configuration\n", "Every field of the classes that hold options. A value out of range raises an "]
    parts[-1] += "error that names the field and the range.\n"
    for file, name in CLASSES:
        module = file.removeprefix("src/").removesuffix(".py").replace("/", ".")
        doc, rows = read_class(ROOT / file, name)
        parts += [f"## {name}\n", f"`{module}.{name}`. {doc}\n" if doc else f"`{module}.{name}`.\n"]
        parts.append(table(("field", "type", "default", "meaning"), rows))
    return "\n".join(parts)


def read_class(path: Path, name: str) -> tuple[str, list[tuple[str, ...]]]:
    """Docstring, and for each field its name, type, default and the comment on its line."""
    text = path.read_text("utf-8")
    lines = text.splitlines()
    found = next(n for n in ast.parse(text).body if isinstance(n, ast.ClassDef) and n.name == name)
    rows = []
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            comment = lines[(node.end_lineno or 0) - 1][node.end_col_offset or 0 :].strip().removeprefix("#").strip()
            cells = (node.target.id, ast.unparse(node.annotation), _default(node.value))
            rows.append((*(f"`{cell}`" for cell in cells), comment))
    return " ".join((ast.get_docstring(found) or "").split()), rows


def _default(value: ast.expr | None) -> str:
    """field(default=x) is x, field(default_factory=f) is f()."""
    if value is None:
        return "required"
    keywords = {k.arg: k.value for k in value.keywords} if isinstance(value, ast.Call) else {}
    if "default_factory" in keywords:
        return ast.unparse(keywords["default_factory"]) + "()"
    return ast.unparse(keywords.get("default", value))


def pages() -> dict[Path, str]:
    return {PAGES / "cli.md": cli_page(), PAGES / "config.md": config_page()}


def stale() -> list[Path]:
    return [path for path, text in pages().items() if not path.exists() or path.read_text("utf-8") != text]


def main() -> int:
    old = stale()
    if "--check" in sys.argv[1:]:
        for path in old:
            print(f"{path.relative_to(ROOT)} is stale: run make docs", file=sys.stderr)
        return 1 if old else 0
    PAGES.mkdir(parents=True, exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
