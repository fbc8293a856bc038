"""The gRPC server beside the HTTP one, on the same event loop."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
import msgspec
from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.types import ASGIApp

from inferd.errors import ConfigError, InvalidRequestError
from inferd.gateway.config import ServerConfig
from inferd.gateway.kserve_grpc import kserve_pb2 as pb
from inferd.gateway.kserve_grpc.inner import Answer, Caller, Inner
from inferd.gateway.kserve_grpc.messages import from_body, to_body, values_of

log = logging.getLogger("inferd.gateway")
SERVICE = "inference.GRPCInferenceService"
PASSED_ON = frozenset({"authorization", "x-api-key", "x-request-id", "traceparent"})  # of the metadata
_HEAD_LEN = "inference-header-content-length"
_STOP_SECONDS = 2.0  # for calls that were failed to reach their clients
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
M = TypeVar("M", bound=Message)


class GrpcServer:
    def __init__(self, app: ASGIApp, config: ServerConfig) -> None:
        """app: the gateway's. Raises ConfigError when the port is taken."""
        options = [("grpc.max_receive_message_length", config.max_body_size), ("grpc.so_reuseport", 0)]
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers((_handlers(Service(app, config)),))
        host = f"[{config.host}]" if ":" in config.host else config.host
        try:
            self._server.add_insecure_port(f"{host}:{config.grpc_port}")
        except RuntimeError:
            raise ConfigError(f"grpc_port: cannot listen on {config.host} port {config.grpc_port}") from None

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(_STOP_SECONDS)


class Failure(Exception):
    """An answer of the gateway that is an error."""

    def __init__(self, answer: Answer) -> None:
        self.code = _CODES.get(answer.status, grpc.StatusCode.INTERNAL)
        try:
            super().__init__(str(msgspec.json.decode(answer.body)["error"]))
        except (msgspec.DecodeError, KeyError, TypeError):
            super().__init__(f"The gateway answered with status {answer.status}.")


class Service:
    """The methods of the protocol. Each takes a request and its caller, and returns the response."""

    def __init__(self, app: ASGIApp, config: ServerConfig) -> None:
        self._inner = Inner(app)
        self._host = next(iter(sorted(config.checked_hosts or {"localhost"})))  # no browser speaks gRPC to a socket

    def caller(self, context: Any) -> Caller:
        sent = {key: value for key, value in context.invocation_metadata() or () if key in PASSED_ON}
        return Caller(headers=sent, host=self._host, address=_address(context.peer()))

    async def server_live(self, request: Message, caller: Caller) -> Message:
        return pb.ServerLiveResponse(live=await self._is_fine(caller, "/v2/health/live"))

    async def server_ready(self, request: Message, caller: Caller) -> Message:
        return pb.ServerReadyResponse(ready=await self._is_fine(caller, "/v2/health/ready"))

    async def model_ready(self, request: Any, caller: Caller) -> Message:
        return pb.ModelReadyResponse(ready=await self._is_fine(caller, _model_path(request) + "/ready"))

    async def server_metadata(self, request: Message, caller: Caller) -> Message:
        return _filled(pb.ServerMetadataResponse(), await self._json(caller, "GET", "/v2"))

    async def model_metadata(self, request: Any, caller: Caller) -> Message:
        return _filled(pb.ModelMetadataResponse(), await self._json(caller, "GET", _model_path(request)))

    async def model_config(self, request: Any, caller: Caller) -> Message:
        config = await self._json(caller, "GET", _model_path(request) + "/config")
        return _filled(pb.ModelConfigResponse(), {"config": config})

    async def model_statistics(self, request: Any, caller: Caller) -> Message:
        path = _model_path(request) + "/stats" if request.name else "/v2/models/stats"
        return _filled(pb.ModelStatisticsResponse(), await self._json(caller, "GET", path))

    async def repository_index(self, request: Any, caller: Caller) -> Message:
        body = msgspec.json.encode({"ready": request.ready})
        return _filled(
            pb.RepositoryIndexResponse(), {"models": await self._json(caller, "POST", "/v2/repository/index", body)}
        )

    async def load(self, request: Any, caller: Caller) -> Message:
        await self._told(caller, request, "load")
        return pb.RepositoryModelLoadResponse()

    async def unload(self, request: Any, caller: Caller) -> Message:
        await self._told(caller, request, "unload")
        return pb.RepositoryModelUnloadResponse()

    async def infer(self, request: Any, caller: Caller) -> Message:
        body, head_len = to_body(request)
        path = _model_path(request, request.model_name, request.model_version) + "/infer"
        answer = await self._inner.ask(caller, "POST", path, body, **{_HEAD_LEN: str(head_len)})
        if answer.status != 200:
            raise Failure(answer)
        response: Message = from_body(answer.body, int(answer.headers.get(_HEAD_LEN, len(answer.body))))
        return response

    async def _told(self, caller: Caller, request: Any, what: str) -> None:
        body = msgspec.json.encode({"parameters": values_of(request.parameters)})
        path = f"/v2/repository/models/{request.model_name}/{what}"
        answer = await self._inner.ask(caller, "POST", path, body)
        if answer.status != 200:
            raise Failure(answer)

    async def _json(self, caller: Caller, method: str, path: str, body: bytes = b"") -> Any:
        answer = await self._inner.ask(caller, method, path, body)
        if answer.status != 200:
            raise Failure(answer)
        return msgspec.json.decode(answer.body)

    async def _is_fine(self, caller: Caller, path: str) -> bool:
        """False for what is not ready or not there; other errors are raised."""
        answer = await self._inner.ask(caller, "GET", path)
        if answer.status not in (200, 404, 503):
            raise Failure(answer)
        return answer.status == 200


def _model_path(request: Any, name: str = "", version: str = "") -> str:
    name, version = name or request.name, version or getattr(request, "version", "")
    return f"/v2/models/{name}" + (f"/versions/{version}" if version else "")


def _filled(message: M, fields: Any) -> M:
    return json_format.ParseDict(fields, message)


def _address(peer: str) -> tuple[str, int] | None:
    """peer: ipv4:1.2.3.4:5, or ipv6:%5B::1%5D:5."""
    host, _, port = peer.partition(":")[2].replace("%5B", "").replace("%5D", "").rpartition(":")
    return (host, int(port)) if host and port.isdecimal() else None


Method = Callable[[Any, Caller], Awaitable[Message]]


def _handlers(service: Service) -> Any:
    methods: dict[str, tuple[Method, Any, Any]] = {
        "ServerLive": (service.server_live, pb.ServerLiveRequest, pb.ServerLiveResponse),
        "ServerReady": (service.server_ready, pb.ServerReadyRequest, pb.ServerReadyResponse),
        "ModelReady": (service.model_ready, pb.ModelReadyRequest, pb.ModelReadyResponse),
        "ServerMetadata": (service.server_metadata, pb.ServerMetadataRequest, pb.ServerMetadataResponse),
        "ModelMetadata": (service.model_metadata, pb.ModelMetadataRequest, pb.ModelMetadataResponse),
        "ModelInfer": (service.infer, pb.ModelInferRequest, pb.ModelInferResponse),
        "ModelConfig": (service.model_config, pb.ModelConfigRequest, pb.ModelConfigResponse),
        "ModelStatistics": (service.model_statistics, pb.ModelStatisticsRequest, pb.ModelStatisticsResponse),
        "RepositoryIndex": (service.repository_index, pb.RepositoryIndexRequest, pb.RepositoryIndexResponse),
        "RepositoryModelLoad": (service.load, pb.RepositoryModelLoadRequest, pb.RepositoryModelLoadResponse),
        "RepositoryModelUnload": (service.unload, pb.RepositoryModelUnloadRequest, pb.RepositoryModelUnloadResponse),
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            _unary(service, method),
            request_deserializer=request.FromString,
            response_serializer=response.SerializeToString,
        )
        for name, (method, request, response) in methods.items()
    }
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        _streamed(service),
        request_deserializer=pb.ModelInferRequest.FromString,
        response_serializer=pb.ModelStreamInferResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


def _unary(service: Service, method: Method) -> Callable[[Any, Any], Awaitable[Message]]:
    async def answer(request: Any, context: Any) -> Message:
        try:
            return await method(request, service.caller(context))
        except Failure as failure:
            code, message = failure.code, str(failure)
        except InvalidRequestError as error:
            code, message = grpc.StatusCode.INVALID_ARGUMENT, error.message
        await context.abort(code, message)
        raise AssertionError("abort raises")

    return answer


def _streamed(service: Service) -> Callable[[Any, Any], AsyncIterator[Message]]:
    """One response for each request, in their order; an error is a response too, and the stream goes on."""

    async def answers(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Message]:
        caller = service.caller(context)
        async for request in requests:
            try:
                yield pb.ModelStreamInferResponse(infer_response=await service.infer(request, caller))
            except Failure as failure:
                yield pb.ModelStreamInferResponse(error_message=str(failure))
            except InvalidRequestError as error:
                yield pb.ModelStreamInferResponse(error_message=error.message)

    return answers
