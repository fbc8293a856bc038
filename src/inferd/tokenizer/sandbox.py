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
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
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


class _Generation(Extension):
    """{% generation %} marks what the model itself wrote, for training: here its body counts, nothing else."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Measured(CodeGenerator):
    """`a ~ b` and list, tuple and dict displays become calls that check sizes.

    A list that holds another twice doubles what printing or comparing it costs, and 60 such steps never end.
    """

    def visit_Concat(self, node: nodes.Concat, frame: Any) -> None:  # noqa: N802
        self.write("environment.concat_values((")
        for item in node.nodes:
            self.visit(item, frame)
            self.write(", ")
        self.write("))")

    def visit_List(self, node: nodes.List, frame: Any) -> None:  # noqa: N802
        self._checked(super().visit_List, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Any) -> None:  # noqa: N802
        if node.ctx == "load":
            self._checked(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Any) -> None:  # noqa: N802
        self._checked(super().visit_Dict, node, frame)

    def _checked(self, visit: Callable[..., None], node: nodes.Node, frame: Any) -> None:
        self.write("environment.checked(")
        visit(node, frame)
        self.write(")")


class Sandbox(ImmutableSandboxedEnvironment):
    code_generator_class = _Measured
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation], cache_size=0)
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
        self.max_items = MAX_ITEMS

    def check_len(self, length: int) -> None:
        if length > self.max_len:
            raise TemplateError("the chat template builds a value that is too large")

    def checked(self, value: Any) -> Any:
        """The value itself, once the containers in it are known to hold at most max_items when written out."""
        stack, num_items = [value], 0
        while stack:
            item = stack.pop()
            if isinstance(item, dict):
                stack.extend(item.values())
            elif isinstance(item, list | tuple):
                stack.extend(item)
            num_items += 1
            if num_items + len(stack) > self.max_items:
                raise TemplateError(f"the chat template builds a value of more than {self.max_items} items")
        return value

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
        result = super().call_binop(context, operator, left, right)
        return self.checked(result) if isinstance(result, list | tuple) else result

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
        result = super().call(context, function, *args, **kwargs)
        return self.checked(result) if isinstance(result, dict | list | tuple) else result

    def _range(self, *args: int) -> range:
        result = range(*args)
        if len(result) > MAX_ITEMS:
            raise TemplateError(f"the chat template loops over more than {MAX_ITEMS} numbers")
        return result

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """As Hugging Face's templates expect: no HTML escaping, not only ASCII."""
        if indent is not None and not 0 <= indent <= 16:
            raise TemplateError("the chat template indents JSON too far")
        text = json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
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
        result: str = text.replace(old, new, -1 if count is None else count)
        return result

    def _indent(self, text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        prefix = width if isinstance(width, str) else " " * min(int(width), 64)
        lines = (str(text) + "\n").splitlines()  # as Jinja cuts: U+2028 and the like end a line too
        self.check_len(len(str(text)) + len(prefix) * len(lines))
        indented = [prefix + line if (i or first) and (line or blank) else line for i, line in enumerate(lines)]
        return "\n".join(indented)


def _sized(value: Any) -> bool:
    return isinstance(value, str | bytes | list | tuple)


def _raise_exception(message: Any) -> None:
    raise TemplateRefusalError(str(message))


@contextlib.contextmanager
def limited(sandbox: Sandbox, max_len: int, num_items: int = 0) -> Iterator[None]:
    """Within: at most MAX_SECONDS, no text longer than max_len, no value of over num_items + MAX_ITEMS parts.

    The clock is looked at on every line of the template and on every call.
    """
    deadline = time.monotonic() + MAX_SECONDS
    sandbox.max_len = max(max_len, sandbox.max_len)
    sandbox.max_items = max(num_items + MAX_ITEMS, sandbox.max_items)
    before = sys.gettrace()

    def watch(frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        if time.monotonic() > deadline:
            raise TemplateError(f"the chat template ran for more than {MAX_SECONDS:g} s")
        return watch if frame.f_code.co_filename == "<template>" else None  # lines of libraries need no clock

    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


