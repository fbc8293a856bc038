"""The service of a worker: what a loaded model says of itself, and the loop that answers for it."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable
from typing import Any, Protocol

from inferd.errors import ConfigError
from inferd.models.kinds import kind_of
from inferd.models.store import resolve
from inferd.worker.host import GenerateService
from inferd.worker.protocol import Configure, Kind, Ready

Progress = Callable[[int, int], None]  # bytes done, bytes in all

# by kind: a function of (model, EngineConfig, Progress); its module is imported by the worker that needs it
_LOADERS: dict[Kind, str] = {
    "generate": "inferd.worker.host:load",
    "encode": "inferd.worker.encoding:load",
    "predict": "inferd.worker.predicting:load",
}


class Service(Protocol):
    @property
    def ready(self) -> Ready: ...
    def run(self, stream: socket.socket) -> None:
        """Returns never, or raises what ends the worker."""
        ...


def load_service(command: Configure, progress: Progress) -> Service:
    """Raises ConfigError, ModelNotFoundError or ModelLoadError."""
    if command.factory:
        service: Service = GenerateService(_function(command.factory)(command.model, command.engine))
    else:
        load = _function(_LOADERS[kind_of(resolve(command.model))])
        service = load(command.model, command.engine, progress)
    if command.adapters:
        if not isinstance(service, GenerateService):
            raise ConfigError("adapters are for models that generate text")
        service.load_adapters(command.adapters)
    return service


def _function(name: str) -> Any:
    module_name, _, function_name = name.partition(":")
    function = getattr(importlib.import_module(module_name), function_name, None)
    if function is None:
        raise ConfigError(f"worker_factory must be module:function, got {name!r}")
    return function
