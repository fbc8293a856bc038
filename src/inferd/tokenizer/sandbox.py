"""A Jinja environment in which a hostile template can neither run code nor use up time or memory.

Jinja's own sandbox stops code. The caps here stop resources: a trace function watches the clock on every line the
template runs, and every operation that can make a value grow is measured before it is done.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from inferd.errors import TemplateError

MAX_SECONDS = 1.0
MAX_ITEMS = 100_000  # of one range or repeated list
MAX_NUMBER_BITS = 4096

_FILTERS = (
    "abs capitalize count d default dictsort e escape first float forceescape int items last length list lower map max "
    "min reject rejectattr reverse round safe select selectattr sort string sum title trim unique upper"
).split()


class TemplateRefusalError(Exception):
    """The template called raise_exception: the messages do not suit it."""


class _MeasuredConcat(CodeGenerator):
    """`a ~ b` becomes a call that checks sizes first."""

    def visit_Concat(self, node: nodes.Concat, frame: Any) -> None:  # noqa: N802
        self.write("environment.concat_values((")
        for item in node.nodes:
            self.visit(item, frame)
            self.write(", ")
        self.write("))")


class Sandbox(ImmutableSandboxedEnvironment):
    code_generator_class = _MeasuredConcat
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols], cache_size=0)
        known = {name: self.filters[name] for name in _FILTERS}
        self.filters.clear()
        self.filters.update(known)
        self.filters.update(tojson=self._tojson, join=self._join, replace=self._replace, indent=self._indent)
        self.globals.pop("lipsum", None)
        self.globals.update(
            range=self._range,
            raise_exception=_raise_exception,
            strftime_now=lambda form: time.strftime(str(form)[:200]),
        )
        self.max_len = 1 << 20

    def check_len(self, length: int) -> None:
        if length > self.max_len:
            raise TemplateError("the chat template builds a value that is too large")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str | bytes):
            raise TemplateError("the chat template uses printf formatting, which is not allowed")
        if operator == "+" and _sized(left) and _sized(right):
            self.check_len(len(left) + len(right))
        if operator == "*":
            for value, times in ((left, right), (right, left)):
                if _sized(value) and isinstance(times, int):
                    self.check_len(len(value) * max(times, 0))
        if operator in ("*", "**") and isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
            if bits > MAX_NUMBER_BITS:
                raise TemplateError("the chat template computes a number that is too large")
        return super().call_binop(context, operator, left, right)

    def concat_values(self, values: tuple[Any, ...]) -> str:
        texts = [str(value) for value in values]
        self.check_len(sum(map(len, texts)))
        return "".join(texts)

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(owner, str | bytes) and name in ("format", "format_map", "translate", "expandtabs", "encode"):
            raise TemplateError(f"the chat template calls str.{name}, which is not allowed")
        if isinstance(owner, str):
            if name in ("center", "ljust", "rjust", "zfill"):
                self.check_len(max((arg for arg in args if isinstance(arg, int)), default=0))
            elif name == "replace":
                return self._replace(owner, *args, **kwargs)
            elif name == "join" and args:
                return self._join(args[0], owner)
        return super().call(context, function, *args, **kwargs)

    def _range(self, *args: int) -> range:
        result = range(*args)
        if len(result) > MAX_ITEMS:
            raise TemplateError(f"the chat template loops over more than {MAX_ITEMS} numbers")
        return result

    def _tojson(self, value: Any, indent: int | None = None, **_: Any) -> str:
        """As Hugging Face's templates expect: no HTML escaping, not only ASCII."""
        if indent is not None and not 0 <= indent <= 16:
            raise TemplateError("the chat template indents JSON too far")
        text = json.dumps(value, ensure_ascii=False, indent=indent)
        self.check_len(len(text))
        return text

    def _join(self, value: Any, separator: str = "", attribute: str | None = None) -> str:
        items = list(value)
        if attribute is not None:
            items = [self.getitem(item, attribute) for item in items]
        texts: list[str] = [str(item) for item in items]
        self.check_len(sum(map(len, texts)) + len(str(separator)) * max(0, len(texts) - 1))
        joined: str = str(separator).join(texts)
        return joined

    def _replace(self, text: Any, old: str, new: str, count: int = -1) -> str:
        text, old, new = str(text), str(old), str(new)
        self.check_len(len(text) + text.count(old) * max(0, len(new) - len(old)))
        return text.replace(old, new, -1 if count is None else count)

    def _indent(self, text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        prefix = width if isinstance(width, str) else " " * min(int(width), 64)
        lines = str(text).split("\n")
        self.check_len(len(str(text)) + len(prefix) * len(lines))
        indented = [prefix + line if (i or first) and (line or blank) else line for i, line in enumerate(lines)]
        return "\n".join(indented)


def _sized(value: Any) -> bool:
    return isinstance(value, str | bytes | list | tuple)


def _raise_exception(message: Any) -> None:
    raise TemplateRefusalError(str(message))


@contextlib.contextmanager
def limited(sandbox: Sandbox, max_len: int) -> Iterator[None]:
    """Within: at most MAX_SECONDS, and no value longer than max_len. The clock is looked at on every line run."""
    deadline = time.monotonic() + MAX_SECONDS
    sandbox.max_len = max(max_len, sandbox.max_len)
    before = sys.gettrace()

    def watch(frame: FrameType, event: str, arg: Any) -> Callable[..., Any]:
        if time.monotonic() > deadline:
            raise TemplateError(f"the chat template ran for more than {MAX_SECONDS:g} s")
        return watch

    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


