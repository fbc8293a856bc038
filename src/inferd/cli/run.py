"""`inferd run`: a chat in the terminal, or one answer for a program."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

import click

from inferd.cli.models import ensure_local
from inferd.cli.options import checked, engine_options, json_option
from inferd.cli.output import Misuse, print_json
from inferd.config import EngineConfig
from inferd.types import SamplingParams

DEFAULT_TEMPERATURE = 0.7  # where the model asks for none: at 1.0 small models lose the thread
INTERRUPTED = 130  # what shells report after Ctrl-C
_SAMPLING = ("temperature", "top_p", "top_k", "max_tokens")


@click.command()
@click.argument("model")
@click.argument("prompt", required=False)
@click.option("--system", help="System message.")
@click.option("--temperature", type=float, help="0 always takes the likeliest token; default: the model's, else 0.7.")
@click.option("--top-p", type=float, help="Draw from the likeliest tokens of this share.")
@click.option("--top-k", type=int, help="Draw from so many likeliest tokens.")
@click.option("--max-tokens", type=int, help="End an answer after so many tokens; default: the context.")
@engine_options
@json_option
def run(model: str, prompt: str | None, system: str | None, as_json: bool, **values: Any) -> None:
    """Chat with MODEL in the terminal; with PROMPT, or text on standard input, answer once.

    The engine runs in this process. /help lists what can be typed in a chat.
    """
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read().strip()
    if prompt is None and as_json:
        raise Misuse("--json needs a PROMPT or text on standard input")
    if prompt == "":
        raise Misuse("the prompt is empty")
    given = {name: values.pop(name) for name in _SAMPLING}
    checked(EngineConfig, **values)  # before a download
    ensure_local(model)
    with _loading(model):
        from inferd.cli.chat import Chat, converse
        from inferd.llm import LLM

        llm = checked(LLM, model=model, max_num_seqs=1, **values)
    chat = Chat(llm, _sampling(llm, given), system)
    if prompt is not None:
        _answer_once(chat, prompt, as_json=as_json)
        return
    kind = "a base model that continues your text" if chat.is_base_model else "/help lists the commands"
    click.secho(f"{model}: {kind}", dim=True)
    converse(chat)


def _loading(model: str) -> Any:
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(f"loading {model}")


def _sampling(llm: Any, given: dict[str, Any]) -> SamplingParams:
    defaults: SamplingParams = llm.default_sampling_params()
    if "temperature" not in llm.loaded.checkpoint.generation_defaults:
        defaults = replace(defaults, temperature=DEFAULT_TEMPERATURE)
    wanted = {name: value for name, value in given.items() if value is not None}
    sampling: SamplingParams = checked(replace, defaults, **{"max_tokens": None, **wanted})
    return sampling


def _answer_once(chat: Any, prompt: str, *, as_json: bool) -> None:
    from inferd.cli.chat import interruptible, write_text

    with interruptible() as is_stopped:
        answer = chat.ask(prompt, (lambda text: None) if as_json else write_text, is_stopped)
    if as_json:
        print_json(asdict(answer))
    elif not answer.text.endswith("\n"):
        click.echo()
    if not as_json and sys.stderr.isatty():
        click.secho(f"[{answer.summary}]", dim=True, err=True)
    if answer.finish_reason == "stopped":
        raise SystemExit(INTERRUPTED)
