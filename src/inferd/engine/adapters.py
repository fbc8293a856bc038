"""The adapters of an engine: which are loaded under which name, and which requests use them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from inferd.errors import InvalidRequestError
from inferd.executors.base import Executor
from inferd.models.lora import load_adapter

MAX_NAME_LEN = 256


@dataclass(slots=True, eq=False)
class LoadedAdapter:
    name: str
    adapter_id: int  # of the executor; never given twice, so that it salts the prefix cache
    num_requests: int = 0  # unfinished ones
    is_unloaded: bool = False


@dataclass(frozen=True, slots=True)
class PreparedAdapter:
    """In the executor, under no name yet: install it, or discard it."""

    adapter_id: int


class Adapters:
    """An adapter that is unloaded has no name any more at once; its memory is free when its last request has ended."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._by_name: dict[str, LoadedAdapter] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._by_name)

    def prepare(self, path: Path) -> PreparedAdapter:
        """The slow part; may run on another thread. Raises ModelNotFoundError, ModelLoadError or MemoryError."""
        return PreparedAdapter(self._executor.load_adapter(load_adapter(path, self._executor.spec)))

    def install(self, name: str, prepared: PreparedAdapter) -> None:
        """Raises InvalidRequestError for a name that cannot be had; the adapter is discarded then."""
        try:
            self.check_name(name)
        except InvalidRequestError:
            self._executor.unload_adapter(prepared.adapter_id)
            raise
        self._by_name[name] = LoadedAdapter(name, prepared.adapter_id)

    def check_name(self, name: str) -> None:
        if not 1 <= len(name) <= MAX_NAME_LEN:
            raise InvalidRequestError(f"lora_name must have 1 to {MAX_NAME_LEN} characters", param="lora_name")
        if name in self._by_name:
            raise InvalidRequestError(f"The adapter '{name}' is loaded already.", param="lora_name")

    def unload(self, name: str) -> None:
        """Raises InvalidRequestError for an unknown name. Requests that run keep the adapter to their end."""
        adapter = self.find(name, param="lora_name")
        del self._by_name[name]
        adapter.is_unloaded = True
        self._free_when_unused(adapter)

    def find(self, name: str, param: str = "adapter") -> LoadedAdapter:
        if name not in self._by_name:
            raise InvalidRequestError(f"The adapter '{name[:MAX_NAME_LEN]}' is not loaded.", param=param)
        return self._by_name[name]

    def enter(self, adapter: LoadedAdapter) -> None:
        adapter.num_requests += 1

    def leave(self, adapter: LoadedAdapter) -> None:
        adapter.num_requests -= 1
        self._free_when_unused(adapter)

    def _free_when_unused(self, adapter: LoadedAdapter) -> None:
        if adapter.is_unloaded and adapter.num_requests == 0:
            self._executor.unload_adapter(adapter.adapter_id)
