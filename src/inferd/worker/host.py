"""The engine loop of a worker and the threads that feed it.

The main thread owns the engine: it takes commands from one queue and steps. A reader thread decodes frames; a prompt
thread renders and tokenizes, so that a long prompt stalls neither a neighbour's step nor an abort; a writer thread
sends and beats once a second. Adapters are read and packed on a thread of their own; the main thread installs them
between two steps.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from inferd.config import EngineConfig
from inferd.errors import (
    EngineError,
    InferdError,
    InvalidRequestError,
    ModelLoadError,
    ModelNotFoundError,
    OverloadedError,
)
from inferd.tokenizer.chat_template import ChatTemplate
from inferd.types import EngineStats, GenerateRequest, PositionLogprobs, RequestTimings, TokenEvent
from inferd.worker.details import details_of
from inferd.worker.frames import Line
from inferd.worker.prompts import PromptReader, Tokenizer
from inferd.worker.protocol import (
    Abort,
    Aborted,
    Accepted,
    Cancel,
    Command,
    Configure,
    Detokenize,
    Done,
    Failed,
    Generate,
    Heartbeat,
    LoadAdapter,
    Message,
    Ready,
    Step,
    Tokenize,
    Tokenized,
    UnloadAdapter,
    to_wire_error,
)

log = logging.getLogger("inferd.worker")
STATS_SECONDS = 0.1


class Engine(Protocol):
    @property
    def max_model_len(self) -> int: ...
    @property
    def block_size(self) -> int: ...
    @property
    def has_work(self) -> bool: ...
    def add(self, request: GenerateRequest) -> None: ...
    def abort(self, request_id: str) -> RequestTimings | None: ...
    def step(self) -> list[TokenEvent]: ...
    def stats(self) -> EngineStats: ...
    def load_adapter(self, name: str, path: Path) -> None: ...
    def prepare_adapter(self, path: Path) -> Any: ...
    def install_adapter(self, name: str, prepared: Any) -> None: ...
    def unload_adapter(self, name: str) -> None: ...


class Loaded(Protocol):
    """What a worker's factory returns (engine.build.LoadedEngine)."""

    @property
    def engine(self) -> Engine: ...
    @property
    def checkpoint(self) -> Any: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def chat_template(self) -> ChatTemplate | None: ...


# what waits for the main thread; beside a LoadAdapter the adapter as the engine prepared it
Inbound = Abort | tuple[GenerateRequest, Accepted] | tuple[LoadAdapter | UnloadAdapter, Any]


class Host:
    """One engine on one socket. `run` returns never: the process ends with its socket or with an engine failure."""

    def __init__(self, loaded: Loaded, stream: socket.socket) -> None:
        self._engine = loaded.engine
        self._tokenizer = loaded.tokenizer
        self._prompts = PromptReader(loaded.tokenizer, loaded.chat_template, self._engine.max_model_len)
        self._line = Line(stream, self._heartbeat)
        self._unread: queue.SimpleQueue[Generate | Tokenize | Detokenize] = queue.SimpleQueue()
        self._reading: dict[str, bool] = {}  # request that is being tokenized -> whether it was aborted meanwhile
        self._reading_lock = threading.Lock()
        self._unprepared: queue.SimpleQueue[LoadAdapter | UnloadAdapter] = queue.SimpleQueue()
        self._inbox: queue.SimpleQueue[Inbound] = queue.SimpleQueue()
        self._num_turns = 0
        self._is_busy = False
        self._stats_at = 0.0
        self._last_stats: EngineStats | None = None

    def run(self) -> None:
        threading.Thread(target=self._line.read, args=(self._handle,), name="reader", daemon=True).start()
        threading.Thread(target=self._read_prompts, name="prompts", daemon=True).start()
        threading.Thread(target=self._prepare_adapters, name="adapters", daemon=True).start()
        threading.Thread(target=self._line.write, name="writer", daemon=True).start()
        while True:
            self._take_commands()
            self._is_busy = self._engine.has_work
            if self._is_busy:
                self._step()
            self._num_turns += 1

    def send(self, message: Message) -> None:
        self._line.send(message)

    def _take_commands(self) -> None:
        """Everything that waits; blocks while the engine has nothing to do."""
        while True:
            try:
                self._is_busy = self._engine.has_work
                command = self._inbox.get(block=not self._is_busy)
            except queue.Empty:
                return
            self._is_busy = True
            self._apply(command)

    def _apply(self, command: Any) -> None:
        if isinstance(command, Abort):
            timings = self._engine.abort(command.request_id)
            self.send(Aborted(request_id=command.request_id, timings=timings))
            self._last_stats = self._engine.stats()  # an idle engine steps no more, the heartbeat tells
            return
        what, more = command
        if isinstance(what, LoadAdapter | UnloadAdapter):
            self._change_adapters(what, more)
            return
        try:
            self._engine.add(what)
        except Exception as error:
            self._fail(what.request_id, error)
        else:
            self.send(more)

    def _change_adapters(self, command: LoadAdapter | UnloadAdapter, prepared: Any) -> None:
        try:
            if isinstance(command, LoadAdapter):
                self._engine.install_adapter(command.name, prepared)
            else:
                self._engine.unload_adapter(command.name)
        except Exception as error:
            self._fail(command.call_id, error)
        else:
            self.send(Done(call_id=command.call_id))

    def _step(self) -> None:
        events = self._engine.step()
        stats = self._stats_when_due()
        if events or stats is not None:
            self.send(Step(events=tuple(events), pieces=self._pieces(events), stats=stats))

    def _stats_when_due(self) -> EngineStats | None:
        now = time.monotonic()
        if now - self._stats_at < STATS_SECONDS and self._engine.has_work:
            return None
        self._stats_at = now
        self._last_stats = self._engine.stats()
        return self._last_stats

    def _pieces(self, events: list[TokenEvent]) -> dict[int, bytes]:
        ids: set[int] = set()
        for event in events:
            for position in (*(event.logprobs or ()), *(event.prompt_logprobs or ())):
                ids.update(_ids_of(position))
        return {token_id: self._tokenizer.token_bytes(token_id) for token_id in ids}

    def _fail(self, request_id: str, error: Exception) -> None:
        if not isinstance(error, InferdError):
            log.exception("request failed", exc_info=error)
        self.send(Failed(request_id=request_id, error=to_wire_error(error)))

    def _handle(self, command: Command) -> None:
        if isinstance(command, Abort):
            self._abort(command)
        elif isinstance(command, Generate):
            with self._reading_lock:
                self._reading[command.request_id] = False
            self._unread.put(command)
        elif isinstance(command, Tokenize | Detokenize):
            self._unread.put(command)
        elif isinstance(command, LoadAdapter | UnloadAdapter):
            self._unprepared.put(command)
        elif isinstance(command, Configure):
            raise EngineError("a worker is configured once")
        elif not isinstance(command, Cancel):  # what can be cancelled here is over in milliseconds
            self._fail(command.call_id, InvalidRequestError("this model generates text; it does not answer this call"))

    def _abort(self, command: Abort) -> None:
        with self._reading_lock:
            if command.request_id in self._reading:
                self._reading[command.request_id] = True
                return
        self._inbox.put(command)

    def _read_prompts(self) -> None:
        """Thread: prompts to token ids, one after the other."""
        while True:
            command = self._unread.get()
            if isinstance(command, Generate):
                self._read_one(command)
                continue
            try:
                self.send(self._answer(command))
            except Exception as error:
                self._fail(command.call_id, error)

    def _read_one(self, command: Generate) -> None:
        request, failure = None, None
        if not self._reading[command.request_id]:
            try:
                request = self._prompts.to_request(command)
            except Exception as error:
                failure = error
        with self._reading_lock:
            if self._reading.pop(command.request_id):
                self.send(Aborted(request_id=command.request_id, timings=None))
            elif request is not None:
                self._inbox.put(request)
            elif failure is not None:
                self._fail(command.request_id, failure)

    def _prepare_adapters(self) -> None:
        """Thread: adapters into memory, one after the other; what unloads one keeps its place in the order."""
        while True:
            command = self._unprepared.get()
            try:
                prepared = None
                if isinstance(command, LoadAdapter):
                    prepared = self._engine.prepare_adapter(Path(command.path))
            except Exception as error:
                self._fail(command.call_id, _adapter_error(error))
            else:
                self._inbox.put((command, prepared))

    def _answer(self, command: Tokenize | Detokenize) -> Tokenized:
        if isinstance(command, Detokenize):
            self._prompts.check_ids(command.token_ids, "tokens")
            text = self._tokenizer.decode(list(command.token_ids), skip_special_tokens=False)
            return Tokenized(call_id=command.call_id, text=text)
        ids = tuple(self._prompts.to_token_ids(command.prompt))
        pieces = tuple(self._tokenizer.token_bytes(i) for i in ids) if command.want_pieces else None
        text = self._prompts.to_text(command.prompt) if command.want_text else ""
        return Tokenized(call_id=command.call_id, token_ids=ids, pieces=pieces, text=text)

    def _heartbeat(self) -> Heartbeat:
        has_work = self._is_busy or bool(self._reading)
        return Heartbeat(num_turns=self._num_turns, has_work=has_work, stats=self._last_stats)


def _ids_of(position: PositionLogprobs | None) -> list[int]:
    return [] if position is None else [position.chosen.token_id, *(entry.token_id for entry in position.top)]


def _adapter_error(error: Exception) -> Exception:
    """What keeps an adapter from loading is the request's fault here, not the engine's."""
    if isinstance(error, ModelLoadError | ModelNotFoundError):
        return InvalidRequestError(str(error), param="lora_path")
    if isinstance(error, MemoryError):
        return OverloadedError("There is not enough memory for the adapter.", retry_after=60.0)
    return error


class GenerateService:
    """A loaded engine as a worker's service."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        engine, stats = loaded.engine, loaded.engine.stats()
        self.ready = Ready(
            max_model_len=engine.max_model_len,
            vocab_size=loaded.tokenizer.vocab_size,
            num_blocks=stats.num_blocks,
            block_size=engine.block_size,
            generation_defaults=_sampling_defaults(loaded.checkpoint.generation_defaults),
            details=details_of(loaded.checkpoint, loaded.chat_template, loaded.tokenizer.control),
        )

    def load_adapters(self, adapters: Mapping[str, str]) -> None:
        """Name -> path. One that cannot be loaded does not keep the model from serving."""
        errors: dict[str, str] = {}
        for name, path in adapters.items():
            try:
                self._loaded.engine.load_adapter(name, Path(path))
            except (InferdError, MemoryError) as error:
                log.error("the adapter %s could not be loaded: %s", name, error)
                errors[name] = str(error) or "not enough memory"
        if errors:
            details = {**self.ready.details, "adapter_errors": errors}
            self.ready = msgspec.structs.replace(self.ready, details=details)

    def run(self, stream: socket.socket) -> None:
        Host(self._loaded, stream).run()


def load(model: str, engine: EngineConfig, progress: Callable[[int, int], None]) -> GenerateService:
    from inferd.engine.build import build_engine

    loaded: Any = build_engine(model, engine, progress)
    return GenerateService(loaded)


def _sampling_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """The model's own defaults as plain JSON values."""
    return {str(name): value for name, value in values.items() if isinstance(value, int | float | str | list)}
