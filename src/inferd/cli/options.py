"""Options that commands share, and how they become an EngineConfig."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click

from inferd.cli.output import Misuse
from inferd.config import EngineConfig
from inferd.errors import ConfigError, InvalidRequestError

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")

_UNITS = {"": 1, "B": 1} | {
    prefix + unit: base**power
    for base, unit, prefixes in ((1024, "iB", "KMGT"), (1000, "B", "kMGT"))
    for power, prefix in enumerate(prefixes, 1)
}


class ByteSize(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A count of bytes, also as 512MiB or 2GB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", str(value).strip())
        if match is None or match[2] not in _UNITS:
            self.fail(f"{value!r} is no size: write bytes, or a number with one of {', '.join(_UNITS)[4:]}", param, ctx)
        return int(float(match[1]) * _UNITS[match[2]])


def default_of(config: type, field: str) -> Any:
    return next(f.default for f in fields(config) if f.name == field)


def config_option(config: type, flag: str, help_text: str, **attributes: Any) -> Callable[[Command], Command]:
    """An option named as its field, with the field's default."""
    field = flag.partition("/")[0].strip().lstrip("-").replace("-", "_")
    default = default_of(config, field)
    shown = default is not None and default is not False
    return click.option(flag, default=default, show_default=shown, help=help_text, **attributes)


def _engine(flag: str, help_text: str, **attributes: Any) -> Callable[[Command], Command]:
    return config_option(EngineConfig, flag, help_text, **attributes)


_ENGINE_OPTIONS = (
    _engine("--max-model-len", "Longest prompt and output together; default: the model's.", type=int, metavar="TOKENS"),
    _engine("--max-num-batched-tokens", "Token budget of one step; default: 512.", type=int, metavar="TOKENS"),
    _engine("--kv-cache-memory", "Memory of the KV cache, as in 2GiB; default: by free memory.", type=ByteSize()),
    _engine("--kv-cache-dtype", "int8 halves the KV cache.", type=click.Choice(("auto", "bf16", "int8"))),
    _engine("--num-threads", "Threads of the kernels; default: every usable core.", type=int, metavar="N"),
    _engine("--enable-prefix-caching/--no-enable-prefix-caching", "Reuse the KV blocks of equal prefixes."),
    _engine("--speculative", "Guess tokens ahead: faster, same output.", type=click.Choice(("off", "ngram"))),
    _engine("--seed", "For requests that bring no seed.", type=int),
    _engine("--executor", "What runs the model; reference is slow.", type=click.Choice(("native", "reference"))),
)


def engine_options(command: Command) -> Command:
    for option in reversed(_ENGINE_OPTIONS):
        command = option(command)
    return command


def engine_config(values: dict[str, Any]) -> EngineConfig:
    """From the options of a command; takes its fields out of `values`."""
    names = {f.name for f in fields(EngineConfig)}
    return checked(EngineConfig, **{name: values.pop(name) for name in list(values) if name in names})


def checked(config: Callable[..., T], *arguments: Any, **values: Any) -> T:
    """Calls `config`; a value out of range is a mistake in how the command was called: exit code 2."""
    try:
        return config(*arguments, **values)
    except (ConfigError, InvalidRequestError) as error:
        raise Misuse(str(error)) from None


json_option = click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
