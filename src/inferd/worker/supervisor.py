"""Keeps one worker process alive: starts it, watches it, fails its requests when it dies, starts the next."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from inferd.config import EngineConfig
from inferd.errors import ConfigError, EngineError, InferdError, OverloadedError
from inferd.types import EngineStats
from inferd.worker.client import WorkerClient
from inferd.worker.protocol import (
    Configure,
    Done,
    LoadAdapter,
    LoadFailed,
    Loading,
    Ready,
    UnloadAdapter,
    from_wire_error,
    to_frame,
)
from inferd.worker.quarantine import Quarantine

log = logging.getLogger("inferd.supervisor")
MAX_FAILED_STARTS = 5  # then requests no longer wait for the next
QUICK_DEATH_SECONDS = 10.0
LOOK_SECONDS = 0.5
BACKOFF_SECONDS = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    model: str
    factory: str
    engine: EngineConfig
    stuck_after: float = 10.0  # seconds without progress until /ready is false
    kill_after: float = 60.0  # and until the worker is killed
    restart_wait: float = 10.0  # how long a request waits for a worker that is starting
    adapters: dict[str, str] = field(default_factory=dict)  # name -> path, loaded with the first worker


class Supervisor:
    def __init__(
        self, config: WorkerConfig, on_stats: Callable[[EngineStats], None], on_ready: Callable[[Ready, int], None]
    ) -> None:
        """on_ready gets what a new worker says of itself, and how many there were before it."""
        self.config = config
        self.ready: Ready | None = None  # of the latest worker
        self.num_restarts = 0
        self.failure: InferdError | None = None  # what kept the first worker from loading: then there is no second
        self.pid: int | None = None
        self.adapters = dict(config.adapters)  # name -> path: what a new worker loads too
        self.loaded_share = 0.0  # of the weights, while a worker is loading
        self._on_stats = on_stats
        self._on_ready = on_ready
        self._client: WorkerClient | None = None
        self._quarantine = Quarantine()
        self._num_failed_starts = 0
        self._was_up = False  # since the last start
        self._is_up = asyncio.Event()  # up, or given up
        self._task: asyncio.Task[None] | None = None

    @property
    def is_ready(self) -> bool:
        client = self._client
        return client is not None and client.seconds_stuck() < self.config.stuck_after

    @property
    def is_loading(self) -> bool:
        """Since the start no worker has been up yet."""
        return self._task is not None and not self._was_up and self.failure is None

    def start(self) -> None:
        """From nothing, also after a stop."""
        self.failure, self._was_up, self._num_failed_starts = None, False, 0
        self._is_up.clear()
        self._task = asyncio.create_task(self._run())

    async def wait_started(self) -> None:
        """Until the first worker is up; raises what kept it from loading."""
        if not self._was_up:
            await self._is_up.wait()
        if self.failure is not None:
            raise self.failure

    async def client(self) -> WorkerClient:
        """The live worker's client; waits a little for one that is starting, else OverloadedError."""
        if self._client is None and self._num_failed_starts >= MAX_FAILED_STARTS:
            raise OverloadedError("The model is not available: its worker does not start.", retry_after=30.0)
        if self._client is None and self.failure is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_up.wait(), self.config.restart_wait)
        if self._client is None:
            raise OverloadedError("The model is loading.", retry_after=2.0)
        return self._client

    async def load_adapter(self, name: str, path: str) -> None:
        """Raises InvalidRequestError naming what is wrong with the adapter, or what `client` raises."""
        client = await self.client()
        await client.call(LoadAdapter(call_id=client.new_call_id(), name=name, path=path), Done)
        self.adapters[name] = path

    async def unload_adapter(self, name: str) -> None:
        """One of `adapters`. Requests that run keep it."""
        client = await self.client()
        del self.adapters[name]
        await client.call(UnloadAdapter(call_id=client.new_call_id(), name=name), Done)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        num_quick = 0  # short lives in a row
        loop = asyncio.get_running_loop()
        while True:
            started_at = loop.time()
            try:
                failure = await self._run_once()
            except OSError as error:
                log.error("the worker could not be started: %s", error)
                failure = EngineError("The worker could not be started.")
            quick = loop.time() - started_at < QUICK_DEATH_SECONDS
            if failure is not None:
                log.error("the worker of %s does not start: %s", os.path.basename(self.config.model), failure)
                if not self._was_up:
                    self.failure = failure
                    self._is_up.set()
                    return
                num_quick += 1
                self._num_failed_starts += 1
            else:
                num_quick = min(num_quick + 1, 2) if quick else 0
            self.num_restarts += 1
            await asyncio.sleep(BACKOFF_SECONDS[min(num_quick, len(BACKOFF_SECONDS) - 1)])

    async def _run_once(self) -> InferdError | None:
        """One life of a worker. Returns why it never came up, None when it was up and died."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await self._spawn(theirs)
        self.pid = process.pid
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        client = WorkerClient(reader, writer, self._on_stats, self._quarantine)
        num_oom_kills = _num_oom_kills()
        try:
            config = self.config
            configure = Configure(
                factory=config.factory, model=config.model, engine=config.engine, adapters=self.adapters
            )
            writer.write(to_frame(configure))
            failure = await self._wait_ready(client)
            if failure is not None:
                return failure
            self._client = client
            self._num_failed_starts, self._was_up = 0, True
            self._is_up.set()
            was_stuck = await self._serve(client, process)
            suspects = client.running
            self._fail(client)
            code = await _reap(process, grace=0 if was_stuck else 1)
            log.error("the worker (pid %d) ended with %d; %d requests failed", process.pid, code, len(suspects))
            # somebody's kill is no request's fault; the kernel's, for want of memory, may be
            if was_stuck or code != -signal.SIGKILL or _num_oom_kills() > num_oom_kills:
                self._quarantine.blame(suspects)
            return None
        finally:
            self._fail(client)
            await _reap(process, grace=0)

    def _fail(self, client: WorkerClient) -> None:
        self._client = None
        if self.failure is None:
            self._is_up.clear()
        client.fail_all(EngineError("The engine stopped while this request was running."))

    async def _spawn(self, theirs: socket.socket) -> asyncio.subprocess.Process:
        environment = {name: value for name, value in os.environ.items() if name != "INFERD_API_KEY"}
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "inferd.worker.main",
            str(theirs.fileno()),
            pass_fds=(theirs.fileno(),),
            stdin=asyncio.subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )

    async def _wait_ready(self, client: WorkerClient) -> InferdError | None:
        while (event := await client.read()) is not None:
            if isinstance(event, Ready):
                if (failure := self._drop_adapters(event.details.get("adapter_errors", {}))) is not None:
                    return failure
                self.ready = event
                self._on_ready(event, self.num_restarts)
                return None
            if isinstance(event, LoadFailed):
                return from_wire_error(event.error)
            if isinstance(event, Loading):
                self.loaded_share = event.share
        return EngineError("The worker ended before it was ready.")

    def _drop_adapters(self, errors: dict[str, str]) -> InferdError | None:
        """Those that cannot be loaded: no reason for a restarted model not to serve, but one not to start at all."""
        for name, message in errors.items():
            if self.ready is None:  # no worker was ever up
                return ConfigError(f"adapter {name}: {message}")
            log.error("the adapter %s is gone: %s", name, message)
            self.adapters.pop(name, None)
        return None

    async def _serve(self, client: WorkerClient, process: asyncio.subprocess.Process) -> bool:
        """Until the worker's end closes, or it must be killed because it makes no progress: then True."""
        reading = asyncio.create_task(client.run())
        num_stuck = 0  # looks in a row; one alone may only mean that this process was stopped for a while
        try:
            while not reading.done() and num_stuck < 2:
                await asyncio.wait({reading}, timeout=LOOK_SECONDS)
                num_stuck = num_stuck + 1 if client.seconds_stuck() >= self.config.kill_after else 0
            if num_stuck:
                log.error("the worker (pid %d) makes no progress; killed", process.pid)
            return num_stuck > 0
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def _reap(process: asyncio.subprocess.Process, grace: float) -> int:
    """Its exit code, after a kill when it does not end by itself within `grace` seconds."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), grace)
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    return await process.wait()


def _num_oom_kills() -> int:
    """Processes this machine's kernel has killed for want of memory since it started."""
    with contextlib.suppress(OSError), open("/proc/vmstat", encoding="ascii") as lines:
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    return 0
