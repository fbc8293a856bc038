"""Options that commands share, and how they become an EngineConfig."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

import click

from inferd.cli.output import Misuse
from inferd.config import EngineConfig
from inferd.errors import ConfigError, InvalidRequestError
from inferd.units import parse_bytes, parse_seconds

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")


class ByteSize(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A count of bytes, also as 512MiB or 2GB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_bytes(str(value))
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class Duration(click.ParamType):  # type: ignore[type-arg]
    """Seconds, also as 5m or 1h30m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_seconds(str(value))
        except ConfigError as error:
            self.fail(str(error), param, ctx)


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


def engine_config(
    values: dict[str, Any], base: EngineConfig | None = None, is_given: Callable[[str], bool] = lambda name: True
) -> EngineConfig:
    """From the options of a command; takes its fields out of `values`. base: what counts where none is given."""
    names = {f.name for f in fields(EngineConfig)}
    own = {name: values.pop(name) for name in list(values) if name in names}
    if base is None:
        return checked(EngineConfig, **own)
    given = {name: value for name, value in own.items() if is_given(name)}
    return checked(lambda: replace(base, **given))


def checked(config: Callable[..., T], *arguments: Any, **values: Any) -> T:
    """Calls `config`; a value out of range is a mistake in how the command was called: exit code 2."""
    try:
        return config(*arguments, **values)
    except (ConfigError, InvalidRequestError) as error:
        raise Misuse(str(error)) from None


json_option = click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
