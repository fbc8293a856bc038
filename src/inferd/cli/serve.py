"""`inferd serve`: the HTTP server, with its models fetched first."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
from click.core import ParameterSource

from inferd.cli.models import ensure_local
from inferd.cli.options import ByteSize, Duration, checked, config_option, engine_config, engine_options, json_option
from inferd.cli.output import Failure, Misuse, print_json
from inferd.config import EngineConfig
from inferd.gateway.config import ModelConfig, ServerConfig
from inferd.gateway.config_file import read_config_file
from inferd.models.kinds import is_predictive, kind_of
from inferd.predictive.settings import load_settings

DEFAULT_MODEL = "smollm2"


def _server(flag: str, help_text: str, **attributes: Any) -> Any:
    return config_option(ServerConfig, flag, help_text, **attributes)


class ModelAlias(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    name = "PATTERN=NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        pattern, sign, name = str(value).partition("=")
        if not (pattern and sign and name):
            self.fail(f"{value!r} is no alias: write PATTERN=NAME", param, ctx)
        return pattern, name


class KeyWeight(click.ParamType):  # type: ignore[type-arg]  # as above
    name = "KEY=WEIGHT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        key, _, weight = str(value).rpartition("=")
        try:
            return key, float(weight)
        except ValueError:
            self.fail("write KEY=WEIGHT, such as KEY=2.5", param, ctx)


_SERVER_OPTIONS = (
    _server("--host", "Address to listen on; beyond this machine only with a key or --insecure."),
    _server("--port", "Port to listen on; 0 takes a free one.", type=int),
    _server("--grpc-port", "Also serve KServe's protocol over gRPC on this port; needs the extra grpc.", type=int,
            metavar="PORT"),
    click.option("--api-key", "api_keys", multiple=True, envvar="INFERD_API_KEY", show_envvar=True, metavar="KEY",
                 help="A key clients must send; may be given several times."),
    click.option("--key-weight", "key_weights", multiple=True, type=KeyWeight(),
                 help="A key's share of the engine when keys compete, as KEY=2.5; others have 1. Several times."),
    _server("--insecure", "Let other machines in without a key.", is_flag=True),
    click.option("--served-model-name", "served_names", multiple=True, metavar="NAME",
                 help="What clients call the model; may be given several times, for one model only."),
    click.option("--model-alias", "model_aliases", multiple=True, type=ModelAlias(),
                 help="Names that stand for a served one, as 'claude-*=smollm2'; may be given several times."),
    click.option("--lora-modules", "lora_modules", multiple=True, metavar="NAME=PATH",
                 help="A LoRA adapter and what clients call it; may be given several times, for one model only."),
    click.option("--lora-dir", "lora_dirs", multiple=True, type=click.Path(exists=True, file_okay=False),
                 help="A directory below which requests may load adapters; may be given several times."),
    config_option(EngineConfig, "--encoder-dtype", "Products of encoders; q8_0 is faster and less exact.",
                  type=click.Choice(("auto", "f32", "bf16", "q8_0"))),
    config_option(EngineConfig, "--max-num-seqs", "Most sequences that run at once.", type=int, metavar="N"),
    config_option(EngineConfig, "--itl-target", "Time between tokens that long prompts must leave room for.",
                  type=float, metavar="SECONDS"),
    click.option("--config", "config_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
                 help="A YAML file with these options and the models; options given here count more."),
    click.option("--pipeline", "pipelines", multiple=True, metavar="FILE", type=click.Path(exists=True, dir_okay=False),
                 help="A YAML file that declares a pipeline; may be given several times."),
    click.option("--all", "serves_all", is_flag=True, help="Also every other model of the store, loaded on demand."),
    _server("--preload/--on-demand", "Load the models at the start, or each with its first request."),
    _server("--memory-budget", "Memory of all loaded models, as in 8GiB; the least lately used leave for others.",
            type=ByteSize()),
    _server("--idle-timeout", "How long a model stays in memory without a request, as in 10m; default: for ever.",
            type=Duration()),
    _server("--load-timeout", "How long a request waits for its model.", type=Duration()),
    _server("--max-queue-len", "Most requests in flight; more get status 503.", type=int, metavar="N"),
    _server("--drain-timeout", "How long running requests may go on after a first Ctrl-C.", type=float,
            metavar="SECONDS"),
    _server("--sla-ttft", "Time to the first token that a good request keeps to.", type=float, metavar="SECONDS"),
    _server("--sla-itl", "Mean time between its tokens.", type=float, metavar="SECONDS"),
    _server("--price-per-hour", "What this host costs; or say what it was bought for.", type=float, metavar="PRICE"),
    _server("--purchase-price", "What this host was bought for.", type=float, metavar="PRICE"),
    _server("--amortisation-years", "Time in which the purchase is written off.", type=float, metavar="YEARS"),
    _server("--power-watts", "What a bought host draws on average.", type=float, metavar="WATTS"),
    _server("--electricity-price", "Price of a kWh for a bought host.", type=float, metavar="PRICE"),
    _server("--currency", "Of the prices.", metavar="CODE"),
    _server("--usage-ledger/--no-usage-ledger", "Keep the usage of every request; default: where a price is set."),
    _server("--batch-dir", "Where files and batch jobs are kept; default: a folder of INFERD_HOME.", metavar="DIR"),
    _server("--max-batch-requests", "Most requests of batch jobs that run at once.", type=int, metavar="N"),
    _server("--response-retention", "How long /v1/responses are kept, as in 30d; 0: not at all.", type=Duration()),
    _server("--otlp-endpoint", "Where traces go, as OTLP over HTTP; needs the extra otel.", metavar="URL"),
    click.option("--cors-origin", "cors_origins", multiple=True, metavar="ORIGIN",
                 help="A web origin whose pages may call; may be given several times."),
    click.option("--allowed-host", "allowed_hosts", multiple=True, metavar="HOST",
                 help="A Host header to accept; may be given several times."),
)  # fmt: skip


def _server_options(command: Any) -> Any:
    for option in reversed(_SERVER_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@_server_options
@engine_options
@json_option
@click.pass_context
def serve(context: click.Context, /, models: tuple[str, ...], as_json: bool, **values: Any) -> None:
    """Serve models over HTTP, smollm2 when none is named.

    A MODEL is an alias (fetched on first use), a .gguf file, a model directory or org/name.
    """
    config = server_config(context, models, values)
    check_address(config.host, config.port)
    config = replace(config, models=tuple(map(_with_files, config.models)))
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    from inferd.gateway.app import serve as serve_http

    code = serve_http(config, on_ready=lambda url: announce(config, url, as_json=as_json))
    if code:
        raise SystemExit(code)


def server_config(context: click.Context, models: tuple[str, ...], values: dict[str, Any]) -> ServerConfig:
    """What was given on the command line, over the file, over the defaults."""
    adapters = _adapters(values.pop("lora_modules"))
    names, serves_all, file = values.pop("served_names"), values.pop("serves_all"), values.pop("config_file")
    written = checked(read_config_file, file) if file is not None else {}
    listed: tuple[ModelConfig, ...] = written.pop("models", ())
    is_default = not (models or listed or serves_all)
    named = tuple(ModelConfig(model=m, served_names=names) for m in ((DEFAULT_MODEL,) if is_default else models))
    if names and len(models) > 1:
        raise Misuse("--served-model-name names one model, and several are given")
    queue = values["max_queue_len"]  # engine_config takes it: it bounds the engine's queue too
    values["engine"] = engine_config(values, written.pop("engine", None), lambda name: _is_given(context, name))
    values["max_queue_len"] = queue
    values |= {name: value for name, value in written.items() if not _is_given(context, name)}
    values["engine"] = replace(values["engine"], max_queue_len=values["max_queue_len"])
    served = (*listed, *named)
    if adapters and len(served) != 1:
        raise Misuse("--lora-modules are for one model: name it, or list the adapters in the file of --config")
    served = tuple(replace(model, adapters={**model.adapters, **adapters}) for model in served)
    if serves_all:
        served = (*served, *_rest_of_store(served))
    return checked(ServerConfig, models=served, **values)


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


def _rest_of_store(served: tuple[ModelConfig, ...]) -> Iterator[ModelConfig]:
    from inferd.models import store

    known = {model.model for model in served}
    yield from (ModelConfig(model=m.name, preload=False) for m in store.list_models() if m.name not in known)


def _with_files(model: ModelConfig) -> ModelConfig:
    """Its files are on this machine, and their size is known; a predictive one may bring a name."""
    path = ensure_local(model.model)
    if is_predictive(path) and not model.served_names and (name := load_settings(path).name):
        model = replace(model, served_names=(name,))
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    num_bytes = sum(file.stat().st_size for file in files)
    return replace(model, num_bytes=num_bytes, has_kv_cache=kind_of(path) == "generate")


def _adapters(texts: tuple[str, ...]) -> dict[str, str]:
    """Each NAME=PATH as name -> absolute path."""
    adapters: dict[str, str] = {}
    for text in texts:
        name, _, path = text.partition("=")
        if not name or not path:
            raise Misuse(f"--lora-modules must be NAME=PATH, got {text!r}")
        if name in adapters:
            raise Misuse(f"--lora-modules names {name} twice")
        if not Path(path).exists():
            raise Misuse(f"--lora-modules {name}: there is no {path}")
        adapters[name] = str(Path(path).resolve())
    return adapters


def check_address(host: str, port: int) -> None:
    """Fails when nothing can listen there: at once, not after a download."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise Failure(f"cannot listen on {host} port {port}: {error.strerror}") from None


def announce(config: ServerConfig, url: str, *, as_json: bool) -> None:
    """Where the server is, how to talk to it, and how long its start took."""
    seconds = seconds_since_start()
    base = _reachable(config.host, url)
    names = [model.names[0] for model in config.models]
    if as_json:
        print_json({"url": base, "models": names, "start_seconds": round(seconds, 2)})
        return
    if is_predictive(Path(config.models[0].model).expanduser()):
        click.echo(f"""{", ".join(names)} at {base}/v2, ready after {seconds:.1f} s

  # pip install 'tritonclient[http]', or curl {base}/v2/models/{quote(names[0])}
  import tritonclient.http
  client = tritonclient.http.InferenceServerClient("{base.removeprefix("http://")}")
  print(client.get_model_metadata("{names[0]}"))

Ctrl-C ends it.""")
        return
    key = "$INFERD_API_KEY" if config.api_keys else ""
    header = f' -H "authorization: Bearer {key}"' if key else ""
    python_key = 'os.environ["INFERD_API_KEY"]' if key else '"none"'
    message = f"{{'model': '{names[0]}', 'messages': [{{'role': 'user', 'content': 'Hello'}}]}}".replace("'", '"')
    click.echo(
        f"""{", ".join(names)} at {base}/v1, ready after {seconds:.1f} s

  curl {base}/v1/chat/completions -H "content-type: application/json"{header} \\
    -d '{message}'

  {"import os" if key else "# pip install openai"}
  from openai import OpenAI
  client = OpenAI(base_url="{base}/v1", api_key={python_key})
  messages = [{{"role": "user", "content": "Hello"}}]
  print(client.chat.completions.create(model="{names[0]}", messages=messages).choices[0].message.content)

Ctrl-C ends it."""
    )


def _reachable(host: str, url: str) -> str:
    """The URL as this machine can call it: a server on every address is also on the loopback one."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://{f'[{name}]' if ':' in name else name}:{url.rpartition(':')[2]}"


def seconds_since_start() -> float:
    """Since the operating system started this process: the interpreter's own start counts."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
