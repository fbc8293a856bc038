"""The gateway as a process: sockets, workers, signals, and the way out."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop
from starlette.types import ASGIApp

from inferd.errors import ConfigError
from inferd.gateway.config import ServerConfig
from inferd.gateway.connection import uvicorn_options
from inferd.gateway.router import Router

if TYPE_CHECKING:
    from inferd.gateway.kserve_grpc.server import GrpcServer

LAST_WORDS_SECONDS = 2  # for error events to reach their clients after the workers ended


class Server(uvicorn.Server):
    """The first SIGTERM or SIGINT drains, the second ends at once."""

    def __init__(self, app: ASGIApp, router: Router, config: ServerConfig) -> None:
        options = uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            log_level="error",
            timeout_graceful_shutdown=LAST_WORDS_SECONDS,
            **uvicorn_options(),
        )
        super().__init__(options)
        self._router, self._drain_timeout = router, config.drain_timeout
        self._draining: asyncio.Task[None] | None = None

    @property
    def bound_port(self) -> int:
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self._router.is_draining:
            self.should_exit = self.force_exit = True
            if self._draining is not None:
                self._draining.cancel()
            return
        self._router.is_draining = True
        self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._drain_timeout
        while self._router.num_in_flight and loop.time() < deadline:
            await asyncio.sleep(0.05)
        await self._router.stop()  # what still runs gets its error event
        self.should_exit = True


async def run(app: ASGIApp, router: Router, config: ServerConfig, on_ready: Callable[[str], None] | None) -> None:
    """Serves until a signal ended it; raises what kept the first worker from loading."""
    server = Server(app, router, config)
    grpc = _grpc_server(app, config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.handle_exit, number, None)
    serving = asyncio.create_task(server._serve())  # serve() would install handlers of its own
    starting = asyncio.create_task(_start(server, router, config, on_ready))
    try:
        if grpc is not None:
            await grpc.start()
        await asyncio.wait({serving, starting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
        await serving
    finally:
        starting.cancel()
        server.should_exit = True
        await asyncio.gather(serving, starting, return_exceptions=True)
        await router.stop()
        if grpc is not None:
            await grpc.stop()


def _grpc_server(app: ASGIApp, config: ServerConfig) -> GrpcServer | None:
    """Raises ConfigError without the extra grpc, or when the port is taken."""
    if config.grpc_port is None:
        return None
    try:
        from inferd.gateway.kserve_grpc.server import GrpcServer
    except ImportError:
        raise ConfigError("grpc_port needs the extra grpc: pip install 'inferd[grpc]'") from None
    return GrpcServer(app, config)


async def _start(
    server: Server, router: Router, config: ServerConfig, on_ready: Callable[[str], None] | None
) -> None:
    await router.start()
    while not server.started:
        await asyncio.sleep(0.01)
    if on_ready is not None:
        on_ready(f"http://{config.host}:{server.bound_port}")


def run_until_ended(
    app: ASGIApp, router: Router, config: ServerConfig, on_ready: Callable[[str], None] | None
) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(app, router, config, on_ready))
