"""Frames off a blocking socket: the worker's side."""

from __future__ import annotations

import socket

from inferd.worker.protocol import HEADER, frame_size


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
