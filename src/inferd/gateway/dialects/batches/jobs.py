"""The journal of this server and its runner: opened by the first request, or at the start where there is a journal."""

from __future__ import annotations

import logging
import sqlite3
from functools import partial
from pathlib import Path

from inferd.config import home_dir
from inferd.errors import ConfigError
from inferd.gateway.context import Gateway
from inferd.gateway.dialects.batches.inside import ask
from inferd.gateway.errors import HttpError
from inferd.jobs.runner import Runner
from inferd.jobs.store import JobStore

log = logging.getLogger("inferd.gateway")


class Jobs:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._store: JobStore | None = None
        self._runner: Runner | None = None

    @property
    def _folder(self) -> Path:
        own = self._gateway.config.batch_dir
        return Path(own) if own is not None else home_dir() / "batches"

    def resume(self) -> None:
        """What a server before this one left."""
        if (self._folder / "jobs.db").exists():
            try:
                self.open()
            except HttpError as error:
                log.warning("batches are not resumed: %s", error)

    def open(self) -> JobStore:
        """Raises HttpError where another server works."""
        if self._store is None:
            try:
                self._store = JobStore(self._folder)
            except (ConfigError, OSError, sqlite3.Error) as error:
                log.warning("batches cannot be kept: %s", error)
                raise HttpError(503, "This server keeps no files and batches; its log says why.") from None
            gateway = self._gateway
            assert gateway.app is not None  # set before anything is served
            run = partial(ask, gateway.app)
            self._runner = Runner(
                self._store, run, gateway.config.max_batch_requests, lambda: gateway.router.is_draining
            )
        return self._store

    def wake(self) -> None:
        if self._runner is not None:
            self._runner.wake()

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
