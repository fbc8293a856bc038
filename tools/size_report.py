"""Lines per folder. Fails when a Python file has over 400 lines or a function over 60: size_report.py"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("src/inferd", "native", "tests", "benchmarks", "tools", "examples")
SUFFIXES = (".py", ".pyi", ".cpp", ".h", ".inl")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


def source_files() -> Iterator[Path]:
    for folder in FOLDERS:
        yield from sorted(path for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES)


def folder_of(path: Path) -> str:
    """src/inferd and tests are counted by their folders, the others whole."""
    parts = path.relative_to(ROOT).parts[:-1]
    return "/".join(parts[:3] if parts[0] == "src" else parts[:2])


def long_functions(path: Path, text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or 0) - node.lineno + 1
            if size > MAX_FUNCTION_LINES:
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {size} lines, over {MAX_FUNCTION_LINES}"


def main() -> int:
    lines: Counter[str] = Counter()
    files: Counter[str] = Counter()
    problems: list[str] = []
    for path in source_files():
        text = path.read_text("utf-8")
        count = text.count("\n")
        lines[folder_of(path)] += count
        files[folder_of(path)] += 1
        if path.suffix == ".py":
            problems += long_functions(path, text)
            if count > MAX_FILE_LINES:
                problems.append(f"{path.relative_to(ROOT)}: {count} lines, over {MAX_FILE_LINES}")
    for folder in sorted(lines):
        print(f"{lines[folder]:7d} lines {files[folder]:4d} files  {folder}")
    print(f"{sum(lines.values()):7d} lines {sum(files.values()):4d} files")
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
