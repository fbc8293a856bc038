"""The host of a model that answers calls, an encoder or a predictive one: calls in, batches to it, replies out."""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from inferd.errors import EngineError, InferdError, OverloadedError
from inferd.worker.batcher import Batcher, BatchPolicy, Pending
from inferd.worker.frames import read_frame
from inferd.worker.protocol import (
    HEARTBEAT_SECONDS,
    Call,
    Cancel,
    Failed,
    Heartbeat,
    Message,
    Reply,
    command_decoder,
    to_frame,
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

    def run(self, batch: Sequence[Pending]) -> list[Reply]:
        """One reply for each call. What it raises fails the calls of the batch, and nothing else."""
        ...


class CallHost:
    """`run` returns never: the process ends with its socket."""

    def __init__(self, service: CallService, stream: socket.socket) -> None:
        self._service = service
        self._stream = stream
        self._batcher = Batcher(service.policy)
        self._outbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._num_turns = 0
        self._num_computing = 0

    def run(self) -> None:
        for number in range(self._service.num_runners):
            threading.Thread(target=self._compute, name=f"runner-{number}", daemon=True).start()
        threading.Thread(target=self._write, name="writer", daemon=True).start()
        try:
            while (body := read_frame(self._stream)) is not None:
                self._handle(command_decoder.decode(body))
        except Exception:
            log.exception("the connection to the gateway failed")
        os._exit(0)

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
            self._num_turns += 1

    def _compute_batch(self, batch: list[Pending]) -> None:
        self._num_computing += 1
        try:
            for reply in self._service.run(batch):
                self._outbox.put(reply)
        except Exception as error:
            for pending in batch:
                self._fail(pending.call.call_id, error)
        finally:
            self._num_computing -= 1

    def _fail(self, call_id: str, error: Exception) -> None:
        if not isinstance(error, InferdError):
            log.exception("a call failed", exc_info=error)
        self._outbox.put(Failed(request_id=call_id, error=to_wire_error(error)))

    def _write(self) -> None:
        """Thread: replies out, and a heartbeat whenever a second passed since the last."""
        beat_at = time.monotonic()
        while True:
            try:
                message = self._outbox.get(timeout=max(0.0, beat_at - time.monotonic()))
            except queue.Empty:
                beat_at = time.monotonic() + HEARTBEAT_SECONDS
                has_work = bool(self._num_computing or self._batcher.num_waiting)
                message = Heartbeat(num_turns=self._num_turns, has_work=has_work)
            try:
                self._stream.sendall(to_frame(message))
            except OSError:
                os._exit(0)
