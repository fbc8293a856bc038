"""A conversation with a model in this process: history, settings, one answer at a time, and the terminal around it."""

from __future__ import annotations

import itertools
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from inferd.errors import EngineError, InferdError, InvalidRequestError
from inferd.types import GenerateRequest, SamplingParams

if TYPE_CHECKING:
    from inferd.llm import LLM

SETTABLE = (
    "temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty", "presence_penalty",
    "frequency_penalty", "max_tokens", "seed",
)  # fmt: skip
HELP = """\
/help                    this list
/clear                   forget the conversation
/system [TEXT]           set the system message, and forget the conversation; without TEXT: no system message
/set [NAME VALUE]        a sampling value, as in /set temperature 0.7; alone: show them all
/bye                     leave (also Ctrl-D, or Ctrl-C twice); Ctrl-C during an answer stops the answer"""

# a model's text must not move the cursor or change the terminal
_HARMLESS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds are measured in this process, from the question to each event."""

    text: str
    finish_reason: str  # of the engine, or "stopped" by Ctrl-C
    num_prompt_tokens: int
    num_cached_tokens: int
    num_tokens: int
    first_token_seconds: float
    tokens_per_second: float | None  # between the first and the last token; None below two tokens

    @property
    def summary(self) -> str:
        speed = f", {self.tokens_per_second:.1f} tok/s" if self.tokens_per_second is not None else ""
        return f"{self.num_tokens} tokens{speed}, first after {self.first_token_seconds * 1000:.0f} ms"


class Chat:
    """Messages and settings of one conversation. A base model has no messages: it continues each text alone."""

    def __init__(self, llm: LLM, sampling: SamplingParams, system: str | None) -> None:
        self.sampling = sampling
        self._llm = llm
        self._numbers = itertools.count()
        self.set_system(system)

    @property
    def is_base_model(self) -> bool:
        return self._llm.loaded.chat_template is None

    def set_system(self, text: str | None) -> None:
        self._system = [{"role": "system", "content": text}] if text else []
        self.clear()

    def clear(self) -> None:
        self._messages: list[dict[str, str]] = list(self._system)

    def set_value(self, name: str, text: str) -> None:
        """Raises InvalidRequestError with the name and the allowed range."""
        if name not in SETTABLE:
            raise InvalidRequestError(f"{name!r} cannot be set; these can: {', '.join(SETTABLE)}")
        value: dict[str, Any] = {name: _number(text)}
        self.sampling = replace(self.sampling, **value)

    def ask(self, text: str, write: Callable[[str], None], is_stopped: Callable[[], bool]) -> Answer:
        """Answers in pieces through `write`. Raises InferdError; the conversation is then as it was before."""
        question = {"role": "user", "content": text}
        if self.is_base_model:
            ids = self._llm.loaded.tokenizer.encode(text)
        else:
            ids = self._llm.render_chat([*self._messages, question])
        answer = self._answer(ids, write, is_stopped)
        if answer.text:
            self._messages += [question, {"role": "assistant", "content": answer.text}]
        return answer

    def _answer(self, ids: list[int], write: Callable[[str], None], is_stopped: Callable[[], bool]) -> Answer:
        begin = time.perf_counter()
        first = last = begin
        pieces: list[str] = []
        reason, num_tokens, num_cached = "stopped", 0, 0
        for event in self._events(ids, is_stopped):
            last = time.perf_counter()
            first = last if num_tokens == 0 else first
            num_tokens += len(event.token_ids)
            num_cached = max(num_cached, event.num_cached_tokens)
            pieces.append(event.text)
            write(event.text)
            if event.finish_reason == "error":
                raise EngineError(event.error or "the engine failed")
            reason = event.finish_reason or reason
        speed = (num_tokens - 1) / (last - first) if num_tokens > 1 else None
        return Answer("".join(pieces), reason, len(ids), num_cached, num_tokens, first - begin, speed)

    def _events(self, ids: list[int], is_stopped: Callable[[], bool]) -> Iterator[Any]:
        """Step by step, so that a long prompt can be stopped before its first token."""
        engine = self._llm.loaded.engine
        request_id = f"chat-{next(self._numbers)}"
        engine.add(GenerateRequest(request_id=request_id, prompt_token_ids=tuple(ids), sampling=self.sampling))
        try:
            while engine.has_work and not is_stopped():
                yield from engine.step()
        finally:
            engine.abort(request_id)


def _number(text: str) -> int | float | None:
    if text.lower() == "none":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise InvalidRequestError(f"{text!r} is no number")


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Inside, Ctrl-C only turns what is yielded true: an exception in the middle of a step would break the engine."""
    signals: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: signals.append(number))
    try:
        yield lambda: bool(signals)
    finally:
        signal.signal(signal.SIGINT, before)


def write_text(text: str) -> None:
    sys.stdout.write(text.translate(_HARMLESS) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def converse(chat: Chat) -> None:
    """Reads lines until /bye, Ctrl-D or Ctrl-C twice."""
    with_editing()
    num_interrupts = 0
    while True:
        try:
            line = input(">>> ").strip()
            num_interrupts = 0
            if line == "/bye":
                return
            respond(chat, line)
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:  # at the prompt, or just as an answer ended
            num_interrupts += 1
            click.echo()
            if num_interrupts == 2:
                return
            click.echo("Ctrl-C again, or /bye, to leave")


def with_editing() -> None:
    """Arrow keys and history at the prompt, where this Python has readline."""
    try:
        import readline  # noqa: F401
    except ImportError:
        return


def respond(chat: Chat, line: str) -> None:
    try:
        if line.startswith("/"):
            command(chat, line)
        elif line:
            reply(chat, line)
    except InferdError as error:
        click.echo(f"error: {error}", err=True)


def reply(chat: Chat, line: str) -> None:
    with interruptible() as is_stopped:
        answer = chat.ask(line, write_text, is_stopped)
    stopped = ", stopped" if answer.finish_reason == "stopped" else ""
    click.secho(f"\n[{answer.summary}{stopped}]", dim=True)


def command(chat: Chat, line: str) -> None:
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    if name == "/help":
        click.echo(HELP)
    elif name == "/clear":
        chat.clear()
        click.echo("the conversation is forgotten")
    elif name == "/system":
        chat.set_system(rest or None)
        click.echo("system message set" if rest else "no system message")
    elif name == "/set" and not rest:
        click.echo("\n".join(f"{key} {getattr(chat.sampling, key)}" for key in SETTABLE))
    elif name == "/set" and len(rest.split()) == 2:
        chat.set_value(*rest.split())
        click.echo(rest)
    else:
        click.echo(f"{name} is not understood like this; /help lists the commands", err=True)
