"""`python -m inferd.worker.main FD`: loads the model of the first frame and serves it on the inherited socket."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sys
import time

from inferd.errors import ConfigError, InferdError, ModelLoadError
from inferd.worker.frames import read_frame
from inferd.worker.protocol import (
    Configure,
    LoadFailed,
    Loading,
    WireError,
    command_decoder,
    to_frame,
)
from inferd.worker.services import Progress, load_service

log = logging.getLogger("inferd.worker")
PR_SET_PDEATHSIG = 1
TELL_SECONDS = 0.2
EXIT_LOAD_FAILED = 65
EXIT_ENGINE_FAILED = 70


def _teller(stream: socket.socket) -> Progress:
    """Tells the gateway how far the load is, at most a few times a second."""
    told_at = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= TELL_SECONDS:
            told_at = time.monotonic()
            stream.sendall(to_frame(Loading(share=done / max(1, total))))

    return tell


def run(stream: socket.socket) -> int:
    body = read_frame(stream)
    if body is None:
        return 0
    command = command_decoder.decode(body)
    if not isinstance(command, Configure):
        return EXIT_LOAD_FAILED
    try:
        service = load_service(command, _teller(stream))
    except Exception as error:
        log.exception("the model could not be loaded")
        known = isinstance(error, InferdError)
        kind = "config" if isinstance(error, ConfigError | ModelLoadError) else "engine"
        message = str(error) if known else "the model could not be loaded"
        stream.sendall(to_frame(LoadFailed(error=WireError(kind=kind, message=message))))
        return EXIT_LOAD_FAILED
    stream.sendall(to_frame(service.ready))
    try:
        service.run(stream)
    except Exception:
        log.exception("the engine failed")
    return EXIT_ENGINE_FAILED


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the gateway decides
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    code = run(socket.socket(fileno=int(sys.argv[1])))
    logging.shutdown()
    os._exit(code)  # daemon threads hold the socket


if __name__ == "__main__":
    main()
