"""Spans of requests: what the GenAI conventions ask for, in the caller's trace. Skipped without the extra otel."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from typing import Any

import pytest

from inferd.metrics.requests import RequestInfo, RequestRecord
from inferd.metrics.tracing import Tracer, attributes_of, stages_of
from inferd.types import SamplingParams

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def record(**changes: Any) -> RequestRecord:
    info = RequestInfo(
        id="chatcmpl-1-0", tenant="key:1", sampling=SamplingParams(temperature=0.5, max_tokens=9, seed=3, stop=("x",)),
        traceparent=f"00-{TRACE_ID}-{PARENT_ID}-01",
    )  # fmt: skip
    values: dict[str, Any] = {
        "info": info, "model": "m", "arrival": 1000.0, "queue": 0.25, "prefill": 0.5, "decode": 2.0, "ttft": 1.0,
        "tpot": 0.1, "e2e": 3.0, "busy": 1.5, "num_prompt_tokens": 7, "num_cached_tokens": 2, "num_output_tokens": 4,
        "num_preemptions": 0, "finish_reason": "stop", "is_good": False, "cost": 0.01,
    }  # fmt: skip
    return RequestRecord(**{**values, **changes})


def test_attributes_are_those_of_the_conventions() -> None:
    found = attributes_of(record())
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.request.model"] == found["gen_ai.response.model"] == "m"
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (7, 4)
    assert found["gen_ai.response.finish_reasons"] == ["stop"]
    assert (found["gen_ai.request.max_tokens"], found["gen_ai.request.stop_sequences"]) == (9, ["x"])
    assert "gen_ai.request.top_k" not in found
    assert "error.type" not in found
    assert attributes_of(record(finish_reason="error"))["error.type"] == "engine_error"


def test_every_attribute_is_a_known_one() -> None:
    known = pytest.importorskip("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
    names = {value for name, value in vars(known).items() if name.startswith("GEN_AI")}
    own = {name for name in attributes_of(record()) if not name.startswith("inferd.")}
    assert own <= names


def test_stages_lie_around_the_first_token() -> None:
    assert list(stages_of(record())) == [
        ("queue", 1000.25, 1000.5), ("prefill", 1000.5, 1001.0), ("decode", 1001.0, 1003.0),
    ]  # fmt: skip
    assert list(stages_of(record(ttft=None))) == []


def test_spans_are_in_the_callers_trace() -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(memory))
    tracer = Tracer(provider)
    tracer.add_request(record())
    tracer.add_request(record(finish_reason="error"))
    spans = memory.get_finished_spans()
    tracer.close()
    assert [span.name for span in spans] == ["queue", "prefill", "decode", "chat m"] * 2
    request = spans[3]
    assert f"{request.context.trace_id:032x}" == TRACE_ID
    assert f"{request.parent.span_id:016x}" == PARENT_ID
    assert (request.start_time, request.end_time) == (1000 * 10**9, 1003 * 10**9)
    assert all(stage.parent.span_id == request.context.span_id for stage in spans[:3])
    assert (request.kind.name, request.status.status_code.name) == ("SERVER", "UNSET")
    assert spans[7].status.status_code.name == "ERROR"


def test_spans_reach_an_endpoint() -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    messages = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    bodies: list[bytes] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tracer = Tracer.to_endpoint(f"http://127.0.0.1:{server.server_port}/v1/traces")
        tracer.add_request(record())
        tracer.close()
        server.shutdown()
    sent = messages.ExportTraceServiceRequest.FromString(b"".join(bodies))
    (resource,) = sent.resource_spans
    names = [span.name for scope in resource.scope_spans for span in scope.spans]
    assert sorted(names) == ["chat m", "decode", "prefill", "queue"]
    assert resource.resource.attributes[0].value.string_value


def test_the_gateway_loads_no_telemetry_by_itself() -> None:
    code = "import sys, inferd.gateway.app; print([name for name in sys.modules if 'opentelemetry' in name])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
