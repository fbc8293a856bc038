"""The host of a model that answers calls, an encoder or a predictive one: calls in, batches to it, replies out."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Sequence
from typing import Protocol

from inferd.errors import EngineError, InferdError, OverloadedError
from inferd.worker.batcher import Batcher, BatchPolicy, Pending
from inferd.worker.frames import Line
from inferd.worker.protocol import (
    Call,
    Cancel,
    Failed,
    Heartbeat,
    Ready,
    Reply,
    to_wire_error,
)

log = logging.getLogger("inferd.worker")


class CallService(Protocol):
    """num_runners: threads that call `run` at the same time."""

    @property
    def policy(self) -> BatchPolicy: ...
    @property
    def num_runners(self) -> int: ...
    def pending(self, call: Call) -> Pending:
        """Checks a call and prepares it; on the reader's thread. Raises InvalidRequestError naming the field."""
        ...

    def run(self, batch: Sequence[Pending]) -> Sequence[Reply]:
        """One reply for each call. When it raises, the calls are computed again one by one: only the bad one fails."""
        ...


class CallHost:
    """`run` returns never: the process ends with its socket."""

    def __init__(self, service: CallService, stream: socket.socket) -> None:
        self._service = service
        self._line = Line(stream, self._heartbeat)
        self._batcher = Batcher(service.policy)
        self._num_turns = 0
        self._num_computing = 0
        self._counting = threading.Lock()  # of what several runners change

    def run(self) -> None:
        for number in range(self._service.num_runners):
            threading.Thread(target=self._compute, name=f"runner-{number}", daemon=True).start()
        threading.Thread(target=self._line.write, name="writer", daemon=True).start()
        self._line.read(self._handle)

    def _handle(self, command: object) -> None:
        if isinstance(command, Cancel):
            self._batcher.cancel(command.call_id)
        elif isinstance(command, Call):
            try:
                self._batcher.put(self._service.pending(command))
            except Exception as error:
                self._fail(command.call_id, error)
        else:
            raise EngineError("this model answers calls only")

    def _compute(self) -> None:
        while True:
            batch, expired = self._batcher.take()
            for pending in expired:
                self._fail(
                    pending.call.call_id, OverloadedError("The call waited longer than its timeout.", retry_after=1.0)
                )
            if batch:
                self._compute_batch(batch)
            with self._counting:
                self._num_turns += 1

    def _compute_batch(self, batch: list[Pending]) -> None:
        with self._counting:
            self._num_computing += 1
        try:
            self._answer(batch)
        finally:
            with self._counting:
                self._num_computing -= 1

    def _answer(self, batch: list[Pending]) -> None:
        try:
            replies = self._service.run(batch)
        except Exception as error:
            if len(batch) == 1:
                self._fail(batch[0].call.call_id, error)
            else:
                for pending in batch:
                    self._answer([pending])
        else:
            for reply in replies:
                self._line.send(reply)

    def _fail(self, call_id: str, error: Exception) -> None:
        if not isinstance(error, InferdError):
            log.exception("a call failed", exc_info=error)
        self._line.send(Failed(request_id=call_id, error=to_wire_error(error)))

    def _heartbeat(self) -> Heartbeat:
        has_work = bool(self._num_computing or self._batcher.num_waiting)
        return Heartbeat(num_turns=self._num_turns, has_work=has_work)


class HostedService:
    """A CallService as a worker's service."""

    def __init__(self, ready: Ready, service: CallService) -> None:
        self.ready = ready
        self._service = service

    def run(self, stream: socket.socket) -> None:
        CallHost(self._service, stream).run()
