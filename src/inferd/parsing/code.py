"""Calls written as Python: `get_weather(city="Paris")`, in a list or inside of print(). Nothing is evaluated."""

from __future__ import annotations

import ast
import json
from typing import Any


def calls_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    """(name, arguments) of each; [] when the text is anything else than calls with literal keyword arguments."""
    try:
        body = ast.parse(text.strip()).body
        return [call for statement in body for call in _calls_in(statement)]
    except (SyntaxError, ValueError, RecursionError, MemoryError, TypeError):
        return []


def _calls_in(statement: ast.stmt) -> list[tuple[str, dict[str, Any]]]:
    node: ast.AST = statement.value if isinstance(statement, ast.Expr) else statement
    nodes = list(node.elts) if isinstance(node, ast.List) else [node]
    return [_call(_unprinted(one)) for one in nodes]


def _unprinted(node: ast.AST) -> ast.AST:
    is_print = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    return node.args[0] if is_print and isinstance(node, ast.Call) and len(node.args) == 1 else node


def _call(node: ast.AST) -> tuple[str, dict[str, Any]]:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("not a call with keyword arguments")
    arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg}
    if len(arguments) != len(node.keywords):
        raise ValueError("arguments must be named once each")
    json.dumps(arguments, allow_nan=False)
    return ast.unparse(node.func), arguments
