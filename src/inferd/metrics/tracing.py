"""One OpenTelemetry span for every request, with the GenAI conventions' attributes, and one for each of its stages.

Spans are made when a request has ended, from times that were taken anyway: nothing is added to its way.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from inferd.errors import ConfigError
from inferd.metrics.requests import RequestRecord

PROVIDER = "inferd"
MAX_INT = 2**63 - 1  # of an attribute; a larger one would keep the whole batch of spans from being sent


class Tracer:
    """provider: a TracerProvider of the SDK. Raises ConfigError without the extra otel."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer(PROVIDER)
        self._trace = _module("opentelemetry.trace")
        self._propagator = _module("opentelemetry.trace.propagation.tracecontext").TraceContextTextMapPropagator()

    @classmethod
    def to_endpoint(cls, url: str) -> Tracer:
        """Sends in the background, as OTLP over HTTP; url: all of it, with /v1/traces."""
        sdk = _module("opentelemetry.sdk.trace")
        exporter = _module("opentelemetry.exporter.otlp.proto.http.trace_exporter").OTLPSpanExporter(endpoint=url)
        resource = _module("opentelemetry.sdk.resources").Resource.create({"service.name": PROVIDER})
        provider = sdk.TracerProvider(resource=resource)
        provider.add_span_processor(_module("opentelemetry.sdk.trace.export").BatchSpanProcessor(exporter))
        return cls(provider)

    def add_request(self, record: RequestRecord) -> None:
        """Listener of a Recorder."""
        info = record.info
        parent = self._propagator.extract({"traceparent": info.traceparent}) if info.traceparent else None
        span = self._tracer.start_span(
            f"{info.operation} {record.model}",
            context=parent,
            kind=self._trace.SpanKind.SERVER,
            attributes=attributes_of(record),
            start_time=_nanoseconds(record.arrival),
        )
        if record.finish_reason == "error":
            span.set_status(self._trace.Status(self._trace.StatusCode.ERROR))
        inside = self._trace.set_span_in_context(span)
        for name, begin, end in stages_of(record):
            stage = self._tracer.start_span(name, context=inside, start_time=_nanoseconds(begin))
            stage.end(_nanoseconds(end))
        span.end(_nanoseconds(record.arrival + record.e2e))

    def close(self) -> None:
        """Sends what waits."""
        self._provider.shutdown()


def attributes_of(record: RequestRecord) -> dict[str, Any]:
    info, sampling = record.info, record.info.sampling
    known = {
        "gen_ai.operation.name": info.operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": record.model,
        "gen_ai.response.model": record.model,
        "gen_ai.response.id": info.id,
        "gen_ai.request.choice.count": sampling.n if sampling.n > 1 else None,
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.temperature": float(sampling.temperature),
        "gen_ai.request.top_p": float(sampling.top_p),
        "gen_ai.request.top_k": sampling.top_k if sampling.top_k > 0 else None,
        "gen_ai.request.seed": sampling.seed if sampling.seed is not None and sampling.seed <= MAX_INT else None,
        "gen_ai.request.frequency_penalty": float(sampling.frequency_penalty),
        "gen_ai.request.presence_penalty": float(sampling.presence_penalty),
        "gen_ai.request.stop_sequences": list(sampling.stop) or None,
        "gen_ai.usage.input_tokens": record.num_prompt_tokens,
        "gen_ai.usage.output_tokens": record.num_output_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.num_cached_tokens,
        "gen_ai.response.finish_reasons": [record.finish_reason],
        "gen_ai.response.time_to_first_chunk": record.ttft,
        "error.type": "engine_error" if record.finish_reason == "error" else None,
        "inferd.busy_seconds": record.busy,
        "inferd.num_preemptions": record.num_preemptions,
        "inferd.is_good": record.is_good,
        "inferd.cost": record.cost,
        "inferd.tenant": info.tenant or None,
    }
    return {name: value for name, value in known.items() if value is not None}


def stages_of(record: RequestRecord) -> Iterator[tuple[str, float, float]]:
    """(name, begin, end) of queue, prefill and decode, in seconds since 1970, as far as they were measured.

    The engine measures how long, not when: they are laid around the first token, which the gateway saw.
    """
    if record.ttft is None or record.queue is None or record.prefill is None or record.decode is None:
        return
    first = record.arrival + record.ttft
    yield "queue", first - record.prefill - record.queue, first - record.prefill
    yield "prefill", first - record.prefill, first
    yield "decode", first, first + record.decode


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"otlp_endpoint needs the extra otel: pip install 'inferd[otel]' ({error})") from None
