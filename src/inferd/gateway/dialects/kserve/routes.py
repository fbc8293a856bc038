"""The routes of /v2."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inferd.errors import InvalidRequestError
from inferd.gateway.context import Gateway
from inferd.gateway.dialects.kserve import descriptions
from inferd.gateway.dialects.kserve.inference import InferRequest
from inferd.gateway.dialects.kserve.payload import payload_response, read_payload
from inferd.gateway.dialects.kserve.text import GenerateCall
from inferd.gateway.errors import json_response
from inferd.gateway.json_fields import decode
from inferd.gateway.router import Model
from inferd.worker.protocol import Inferred

Handler = Callable[[Request], Awaitable[Response]]


def routes(gateway: Gateway) -> list[Route]:
    own = KServe(gateway)
    of_model: tuple[tuple[str, Handler, str], ...] = (
        ("/ready", own.model_ready, "GET"),
        ("/config", own.config, "GET"),
        ("/stats", own.statistics, "GET"),
        ("/infer", own.infer, "POST"),
        ("/generate", own.generate, "POST"),
        ("/generate_stream", own.generate_stream, "POST"),
        ("", own.metadata, "GET"),
    )
    return [
        Route("/v2", own.server),
        Route("/v2/health/live", own.live),
        Route("/v2/health/ready", own.ready),
        Route("/v2/models/stats", own.all_statistics),
        Route("/v2/repository/index", own.index, methods=["POST"]),
        Route("/v2/repository/models/{model:path}/load", own.load, methods=["POST"]),
        Route("/v2/repository/models/{model:path}/unload", own.unload, methods=["POST"]),
        Route("/v2/systemsharedmemory/{rest:path}", own.shared_memory, methods=["GET", "POST"]),
        Route("/v2/cudasharedmemory/{rest:path}", own.shared_memory, methods=["GET", "POST"]),
        *(Route(prefix + path, handler, methods=[method])
          for prefix in ("/v2/models/{model:path}/versions/{version}", "/v2/models/{model:path}")
          for path, handler, method in of_model),
    ]  # fmt: skip


class KServe:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def server(self, request: Request) -> Response:
        return json_response(descriptions.server_metadata(self._gateway.version))

    async def live(self, request: Request) -> Response:
        return Response()

    async def ready(self, request: Request) -> Response:
        return _state(self._gateway.router.is_ready)

    async def model_ready(self, request: Request) -> Response:
        model, _, version = self._found(request)
        descriptions.check_version(model, version)
        return _state(model.worker.is_ready)

    async def metadata(self, request: Request) -> Response:
        return json_response(descriptions.model_metadata(*await self._known(request)))

    async def config(self, request: Request) -> Response:
        return json_response(descriptions.model_config(*await self._known(request)))

    async def statistics(self, request: Request) -> Response:
        model, name, _ = self._found(request)
        return json_response({"model_stats": [descriptions.model_statistics(model, name)]})

    async def all_statistics(self, request: Request) -> Response:
        models = self._gateway.router.models
        return json_response({"model_stats": [descriptions.model_statistics(model, model.name) for model in models]})

    async def index(self, request: Request) -> Response:
        head, _ = await read_payload(request, self._gateway.config)
        fields = decode(head) if head.strip() else {}
        if set(fields) - {"ready"} or not isinstance(fields.get("ready", False), bool):
            raise InvalidRequestError("the body may hold ready, true or false, and nothing else", param="ready")
        entries = [descriptions.index_entry(model, model.name) for model in self._gateway.router.models]
        return json_response([entry for entry in entries if entry["state"] == "READY" or not fields.get("ready")])

    async def load(self, request: Request) -> Response:
        """Answered when it is loaded; how long it then stays is the server's to say."""
        model, _, _ = await self._told(request, {})
        await self._load(model)
        return Response()

    async def unload(self, request: Request) -> Response:
        """Answered when its memory is free. A later request loads it again."""
        model, _, _ = await self._told(request, {"unload_dependents": False})
        await self._gateway.router.residency.unload(model)
        return Response()

    async def shared_memory(self, request: Request) -> Response:
        raise InvalidRequestError("shared memory is not supported: send tensors in the body")

    async def infer(self, request: Request) -> Response:
        model, name, version = self._found(request)
        inference = InferRequest(*await read_payload(request, self._gateway.config), version)
        with model.metrics.calls.timed(inference.num_rows) as timer:
            reply = await self._gateway.call(request, model, inference.command, Inferred, "predict")
            timer.measured(reply.queue_seconds, reply.compute_seconds, reply.output_seconds, reply.batch_size)
        return payload_response(request, *inference.answer(name, reply))

    async def generate(self, request: Request) -> Response:
        return await self._generate(request, is_streamed=False)

    async def generate_stream(self, request: Request) -> Response:
        return await self._generate(request, is_streamed=True)

    async def _generate(self, request: Request, *, is_streamed: bool) -> Response:
        self._found(request)
        served = self._gateway.router.find(request.path_params["model"])
        head, _ = await read_payload(request, self._gateway.config)
        return self._gateway.complete(request, served, GenerateCall(decode(head), is_streamed=is_streamed))

    def _found(self, request: Request) -> tuple[Model, str, str]:
        """The model, the name it was called by, and the version, "" for the latest."""
        name, version = request.path_params["model"], request.path_params.get("version", "")
        model = self._gateway.router.find(name).model
        descriptions.check_version(model, version)
        return model, name, version

    async def _known(self, request: Request) -> tuple[Model, str, str]:
        """As _found; a model that was never loaded is loaded, since its file alone says what it is."""
        model, _, _ = self._found(request)
        if model.worker.ready is None:
            await self._load(model)
        return self._found(request)

    async def _load(self, model: Model) -> None:
        async with self._gateway.router.residency.use(model):
            pass

    async def _told(self, request: Request, known: dict[str, object]) -> tuple[Model, str, str]:
        """As _found. known: the parameters that the body may hold, each with the one value that is honoured."""
        head, _ = await read_payload(request, self._gateway.config)
        fields = decode(head) if head.strip() else {}
        parameters = fields.pop("parameters", {})
        if fields or not isinstance(parameters, dict):
            raise InvalidRequestError("the body may hold an object of parameters and nothing else", param="parameters")
        for name, value in parameters.items():
            if name not in known or value != known[name]:
                raise InvalidRequestError(f"parameters: '{name[:80]}' cannot be honoured here", param=name[:80])
        return self._found(request)


def _state(is_ready: bool) -> Response:
    return Response(status_code=200 if is_ready else 503)
