"""Which worker serves a model name, how many requests are in flight, and whether new ones are let in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from inferd.errors import ModelNotFoundError, OverloadedError
from inferd.gateway.config import ModelConfig, ServerConfig
from inferd.metrics.recorder import Recorder
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
        )
        self.worker = Supervisor(worker, self.metrics.on_stats)

    @property
    def name(self) -> str:
        return self.names[0]


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

    def find(self, name: str | None) -> Model:
        """None is allowed where a route's body need not name a model: then the first one."""
        model = self.models[0] if name is None else self._by_name.get(name)
        if model is None:
            raise ModelNotFoundError(f"The model '{str(name)[:200]}' does not exist.")
        return model

    def check_admission(self, num_new: int) -> None:
        if self.is_draining:
            raise OverloadedError("The server is shutting down.", retry_after=5.0)
        if self.num_in_flight + num_new > self.config.max_queue_len:
            raise OverloadedError("Too many requests are waiting.", retry_after=1.0)

    @contextmanager
    def admitted(self, num_new: int) -> Iterator[None]:
        self.check_admission(num_new)
        self.num_in_flight += num_new
        try:
            yield
        finally:
            self.num_in_flight -= num_new
