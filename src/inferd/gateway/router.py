"""Which worker serves a model name, how many requests are in flight, and whether new ones are let in."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from inferd.errors import InvalidRequestError, ModelNotFoundError, OverloadedError
from inferd.gateway.config import ModelConfig, ServerConfig
from inferd.metrics.recorder import Recorder
from inferd.worker.client import WorkerClient
from inferd.worker.protocol import Kind, Ready
from inferd.worker.supervisor import Supervisor, WorkerConfig


class Model:
    """One served model: its names and its worker."""

    def __init__(self, config: ModelConfig, server: ServerConfig, recorder: Recorder) -> None:
        self.names = config.names
        self.created = int(time.time())
        self.metrics = recorder.of(self.names[0])
        worker = WorkerConfig(
            model=config.model,
            factory=server.worker_factory,
            engine=server.engine,
            stuck_after=server.stuck_after,
            kill_after=server.kill_after,
            adapters=dict(config.adapters),
        )
        self.worker = Supervisor(worker, self.metrics.on_stats, self._on_ready)

    @property
    def name(self) -> str:
        return self.names[0]

    def _on_ready(self, ready: Ready, num_restarts: int) -> None:
        self.metrics.on_ready(ready.num_blocks, ready.block_size, num_restarts)

    @asynccontextmanager
    async def lease(self, kind: Kind) -> AsyncIterator[tuple[WorkerClient, Ready]]:
        """Within: the worker is up and stays. Raises InvalidRequestError when the model is not of this kind."""
        client = await self.worker.client()
        ready = self.worker.ready
        assert ready is not None  # a worker has a client only after it was ready
        if ready.kind != kind:
            what = {"generate": "makes text", "encode": "makes vectors and scores", "predict": "is a predictive model"}
            raise InvalidRequestError(
                f"The model '{self.name}' {what[ready.kind]}; this route is for others.", param="model"
            )
        yield client, ready


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
        self.models = tuple(Model(model, config, recorder) for model in config.models)
        self._by_name = {name: model for model in self.models for name in model.names}
        self.num_in_flight = 0
        self.is_draining = False

    @property
    def is_ready(self) -> bool:
        return not self.is_draining and all(model.worker.is_ready for model in self.models)

    def start(self) -> None:
        for model in self.models:
            model.worker.start()

    async def wait_started(self) -> None:
        """Until every model was loaded once; raises what kept one from loading."""
        for model in self.models:
            await model.worker.wait_started()

    async def stop(self) -> None:
        for model in self.models:
            await model.worker.stop()

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
    def admitted(self, num_new: int) -> Iterator[None]:
        """Within: num_new requests count as in flight. Raises OverloadedError when they cannot be let in."""
        if self.is_draining:
            raise OverloadedError("The server is shutting down.", retry_after=5.0)
        limit = self.config.max_queue_len
        if num_new > limit:
            raise InvalidRequestError(f"prompt must hold at most {limit} prompts, got {num_new}", param="prompt")
        if self.num_in_flight + num_new > limit:
            raise OverloadedError("Too many requests are waiting.", retry_after=1.0)
        self.num_in_flight += num_new
        try:
            yield
        finally:
            self.num_in_flight -= num_new
