"""The worker's end of its socket: commands off it, messages and heartbeats onto it."""

from __future__ import annotations

import logging
import os
import queue
import socket
import time
from collections.abc import Callable
from typing import NoReturn

from inferd.errors import InferdError
from inferd.worker.protocol import (
    HEADER,
    HEARTBEAT_SECONDS,
    Command,
    Failed,
    Heartbeat,
    Message,
    Reply,
    command_decoder,
    frame_size,
    to_frame,
    to_wire_error,
)

log = logging.getLogger("inferd.worker")


def read_frame(stream: socket.socket) -> bytes | None:
    """The next frame's body; None at the end of the stream."""
    header = _read_exactly(stream, HEADER.size)
    return None if header is None else _read_exactly(stream, frame_size(header))


def _read_exactly(stream: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = stream.recv(min(size - len(parts), 2**20))
        if not part:
            return None
        parts += part
    return bytes(parts)


class Line:
    """The connection to the gateway, whose end is this process's end. `send` may be called from any thread."""

    def __init__(self, stream: socket.socket, heartbeat: Callable[[], Heartbeat]) -> None:
        self._stream = stream
        self._heartbeat = heartbeat
        self._outbox: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def send(self, message: Message) -> None:
        self._outbox.put(message)

    def read(self, handle: Callable[[Command], None]) -> NoReturn:
        """Commands in, for a thread of its own."""
        try:
            while (body := read_frame(self._stream)) is not None:
                handle(command_decoder.decode(body))
        except Exception:
            log.exception("the connection to the gateway failed")
        os._exit(0)

    def write(self) -> NoReturn:
        """Messages out, and a heartbeat whenever a second passed since the last; for a thread of its own."""
        beat_at = time.monotonic()
        while True:
            try:
                message = self._outbox.get(timeout=max(0.0, beat_at - time.monotonic()))
            except queue.Empty:
                beat_at = time.monotonic() + HEARTBEAT_SECONDS
                message = self._heartbeat()
            try:
                self._stream.sendall(_frame(message))
            except OSError:
                os._exit(0)


def _frame(message: Message) -> bytes:
    """A reply that no frame can hold fails its call, not the worker."""
    try:
        return to_frame(message)
    except InferdError as error:
        if not isinstance(message, Reply):
            raise
        return to_frame(Failed(request_id=message.call_id, error=to_wire_error(error)))
