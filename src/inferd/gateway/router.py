"""Which worker serves a model name, how many requests are in flight, and whether new ones are let in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

from inferd.config import EngineConfig
from inferd.errors import InvalidRequestError, ModelNotFoundError, OverloadedError
from inferd.gateway.config import ModelConfig, ServerConfig
from inferd.gateway.residency import FOREVER, Place, Residency
from inferd.metrics.recorder import Recorder
from inferd.worker.client import WorkerClient
from inferd.worker.protocol import Kind, Ready
from inferd.worker.supervisor import Supervisor, WorkerConfig

_PROCESS_BYTES = 160 * 2**20  # of a worker without a model: 90 MiB measured, and room for what a request takes
MIN_KV_BYTES, MAX_KV_BYTES = 64 * 2**20, 2**30  # of a KV cache that a memory budget sizes
_FILE_FACTOR = 1.3  # packed weights over the file: 1.00 to 1.26 measured


class Model:
    """One served model: its names, its worker, and what its memory is."""

    def __init__(self, config: ModelConfig, server: ServerConfig, recorder: Recorder, residency: Residency) -> None:
        self.config = config
        self.names = config.names
        self.num_in_flight = 0
        self.engine = _engine_of(config, server)
        self._residency = residency
        self.created = int(time.time())
        self.metrics = recorder.of(self.names[0])
        worker = WorkerConfig(
            model=config.model,
            factory=server.worker_factory,
            engine=self.engine,
            stuck_after=server.stuck_after,
            kill_after=server.kill_after,
            adapters=config.adapters,
        )
        self.worker = Supervisor(worker, self.metrics.on_stats, self._on_ready)
        idle_timeout = server.idle_timeout if config.idle_timeout is None else config.idle_timeout
        residency.add(self, FOREVER if idle_timeout is None else idle_timeout)

    @property
    def name(self) -> str:
        return self.names[0]

    def _on_ready(self, ready: Ready, num_restarts: int) -> None:
        self.metrics.on_ready(ready.num_blocks, ready.block_size, num_restarts)

    @property
    def num_bytes(self) -> int:
        kv_cache = (self.engine.kv_cache_memory or 0) if self.config.has_kv_cache else 0
        return int(self.config.num_bytes * _FILE_FACTOR) + kv_cache + _PROCESS_BYTES

    @property
    def place(self) -> Place:
        return self._residency.place_of(self)

    def start(self) -> None:
        self.worker.start()

    async def wait_loaded(self) -> None:
        await self.worker.wait_started()

    async def stop(self) -> None:
        await self.worker.stop()

    @asynccontextmanager
    async def lease(
        self, kind: Kind, *, idle_timeout: float | None = None
    ) -> AsyncIterator[tuple[WorkerClient, Ready]]:
        """Within: the model is loaded and stays. idle_timeout: how long it stays afterwards, from now on.

        Raises InvalidRequestError when the model is not of this kind, OverloadedError when it cannot be had.
        """
        async with self._residency.use(self, idle_timeout):
            client = await self.worker.client()
            ready = self.worker.ready
            assert ready is not None  # a worker has a client only after it was ready
            if ready.kind != kind:
                message = f"The model '{self.name}' {_KINDS[ready.kind]}; this route is for others."
                raise InvalidRequestError(message, param="model")
            yield client, ready

    @contextmanager
    def counted(self, num_new: int) -> Iterator[None]:
        """Within: num_new requests more. Raises OverloadedError beyond the model's own limit."""
        limit = self.config.max_in_flight
        if limit is not None and self.num_in_flight + num_new > limit:
            raise OverloadedError(f"{self.name} takes at most {limit} requests at a time.", retry_after=1.0)
        self.num_in_flight += num_new
        try:
            yield
        finally:
            self.num_in_flight -= num_new


_KINDS = {"generate": "makes text", "encode": "makes vectors and scores", "predict": "is a predictive model"}


def _engine_of(config: ModelConfig, server: ServerConfig) -> EngineConfig:
    """With a budget the KV cache has a size that is known before the model is loaded."""
    engine = config.engine or server.engine
    if server.memory_budget is None or engine.kv_cache_memory is not None:
        return engine
    return replace(engine, kv_cache_memory=min(max(server.memory_budget // 8, MIN_KV_BYTES), MAX_KV_BYTES))


@dataclass(frozen=True, slots=True)
class Served:
    """What a name stands for: a model, or one of its adapters."""

    model: Model
    adapter: str = ""

    @property
    def name(self) -> str:
        return self.adapter or self.model.name


class Router:
    def __init__(self, config: ServerConfig, recorder: Recorder) -> None:
        self.config = config
        self.residency = Residency(config.memory_budget, config.load_timeout)
        self.models = tuple(Model(model, config, recorder, self.residency) for model in config.models)
        self._by_name = {name: model for model in self.models for name in model.names}
        self.is_draining = False
        self._is_started = False

    @property
    def num_in_flight(self) -> int:
        return sum(model.num_in_flight for model in self.models)

    @property
    def is_ready(self) -> bool:
        """What was loaded answers; a model that is loaded on demand may be asleep, or on its way."""
        return not self.is_draining and self._is_started and all(map(self._is_fine, self.models))

    def _is_fine(self, model: Model) -> bool:
        return model.worker.is_ready or model.worker.is_loading or model.place.phase != "resident"

    async def start(self) -> None:
        """Loads what is to be loaded at the start; raises what kept a model from loading."""
        budget, num_bytes = self.config.memory_budget, 0
        preloads = []
        for model in self.models:
            wanted = self.config.preload if model.config.preload is None else model.config.preload
            if wanted and (budget is None or num_bytes + model.num_bytes <= budget):
                num_bytes += model.num_bytes
                preloads.append(asyncio.create_task(self.load(model)))
        try:
            await asyncio.gather(*preloads)
            self._is_started = True
        finally:
            for task in preloads:
                task.cancel()

    async def load(self, model: Model) -> None:
        """Until it is in memory; raises what kept it from loading."""
        async with self.residency.use(model):
            pass

    async def unload(self, model: Model) -> None:
        """Until it has left memory, after the requests that use it."""
        await self.residency.unload(model)

    async def stop(self) -> None:
        await self.residency.close()

    def find(self, name: object, kind: Kind = "generate") -> Served:
        """None, for a body that names no model, is the first one of its kind. Raises ModelNotFoundError."""
        if name is None:
            fitting = (model for model in self.models if model.worker.ready and model.worker.ready.kind == kind)
            return Served(next(fitting, self.models[0]))
        served = None
        if isinstance(name, str):
            served = self._served(name) or self._served(self.config.alias_of(name) or "")
        if served is None:
            raise ModelNotFoundError(f"The model '{str(name)[:200]}' does not exist.")
        return served

    def knows(self, name: str) -> bool:
        """Whether a model or an adapter has this name."""
        return self._served(name) is not None

    def _served(self, name: str) -> Served | None:
        if name in self._by_name:
            return Served(self._by_name[name])
        owner = next((model for model in self.models if name in model.worker.adapters), None)
        return None if owner is None else Served(owner, name)

    @contextmanager
    def admitted(self, num_new: int, model: Model) -> Iterator[None]:
        """Within: num_new requests count as in flight. Raises OverloadedError when they cannot be let in."""
        if self.is_draining:
            raise OverloadedError("The server is shutting down.", retry_after=5.0)
        limit = self.config.max_queue_len
        if num_new > limit:
            raise InvalidRequestError(f"prompt must hold at most {limit} prompts, got {num_new}", param="prompt")
        if self.num_in_flight + num_new > limit:
            raise OverloadedError("Too many requests are waiting.", retry_after=1.0)
        with model.counted(num_new):
            yield
