"""The door to all figures of a gateway: by model, as Prometheus reads them, and the latest requests."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from prometheus_client import CollectorRegistry, generate_latest

from inferd.metrics.calls_exposition import CallCollector
from inferd.metrics.cost import HostPrice
from inferd.metrics.exposition import ModelCollector
from inferd.metrics.model import HostPeriod, ModelMetrics
from inferd.metrics.requests import DEFAULT_TARGETS, Clock, RequestRecord, Targets

log = logging.getLogger("inferd.metrics")
T = TypeVar("T")
NUM_LATEST = 100
_NO_TARGETS: Mapping[str, Targets] = {}


class Recorder:
    """targets: by model, where they are not the usual ones. price: of the whole host, shared by num_models models.

    What ends is handed to every listener: requests, and periods of the host's time.
    """

    def __init__(
        self,
        targets: Mapping[str, Targets] = _NO_TARGETS,
        price: HostPrice | None = None,
        num_models: int = 1,
        clock: Clock = time.monotonic,
    ) -> None:
        self.price = price
        self.latest: deque[RequestRecord] = deque(maxlen=NUM_LATEST)
        self.models: dict[str, ModelMetrics] = {}
        self.request_listeners: list[Callable[[RequestRecord], None]] = [self.latest.append]
        self.period_listeners: list[Callable[[HostPeriod], None]] = []
        self._targets = targets
        self._share = None if price is None else replace(price, per_hour=price.per_hour / num_models)
        self._clock = clock
        self._began_at = clock()
        self._registry = CollectorRegistry()
        self._registry.register(ModelCollector(self.models))
        self._registry.register(CallCollector(self.models))

    @property
    def uptime(self) -> float:
        return self._clock() - self._began_at

    def of(self, name: str) -> ModelMetrics:
        if name not in self.models:
            self.models[name] = ModelMetrics(
                name,
                targets=self._targets.get(name, DEFAULT_TARGETS),
                price=self._share,
                on_request=self._on_request,
                on_period=self._on_period,
                clock=self._clock,
            )
        return self.models[name]

    def render(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Hands on the time of the host that is not in the books yet."""
        for model in self.models.values():
            model.end_period()

    def _on_request(self, record: RequestRecord) -> None:
        _tell(self.request_listeners, record)

    def _on_period(self, period: HostPeriod) -> None:
        _tell(self.period_listeners, period)


def _tell(listeners: Iterable[Callable[[T], None]], value: T) -> None:
    """A listener that fails must not end the request, or the worker's connection, that it hears of."""
    for listener in listeners:
        try:
            listener(value)
        except Exception:
            log.exception("a listener of the recorder failed")
