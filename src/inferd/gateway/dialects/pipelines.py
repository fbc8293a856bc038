"""GET and POST /v1/pipelines: inputs through the steps of a declared pipeline, each step timed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inferd.errors import ConfigError, InvalidRequestError, ModelNotFoundError
from inferd.gateway import encoding
from inferd.gateway.context import Gateway
from inferd.gateway.errors import json_response
from inferd.gateway.schemas import get, in_path, listed, post
from inferd.pipelines.spec import Embed, Infer, Pipeline, Settings, read_pipeline
from inferd.worker import protocol
from inferd.worker.protocol import Inferred, Tensor

MAX_STEPS = 4  # at a time: one that reads an image takes up to 200 MB


def paths() -> dict[str, Any]:
    """For the OpenAPI document."""
    pipeline = {"type": "object", "required": ["id", "object", "steps", "models"]}
    value = {"type": ["string", "number", "boolean", "array", "object"]}
    run = {"type": "object", "required": ["input"], "additionalProperties": False, "properties": {"input": value}}
    done = {"type": "object", "required": ["pipeline", "output", "stages"]}
    return {
        "/v1/pipelines": get("The pipelines that are declared", listed(pipeline)),
        "/v1/pipelines/{name}": in_path(post("An input through the steps of a pipeline", run, done), "name"),
    }


def routes(gateway: Gateway) -> list[Route]:
    own = Pipelines(gateway)
    return [
        Route("/v1/pipelines", own.list_pipelines),
        Route("/v1/pipelines/{name}", own.run, methods=["POST"]),
    ]


class Pipelines:
    def __init__(self, gateway: Gateway) -> None:
        """Raises ConfigError for a file that is no pipeline, or names a model that is not served."""
        self._gateway = gateway
        self._step_slots = asyncio.Semaphore(MAX_STEPS)
        self._pipelines: dict[str, Pipeline] = {}
        for path in gateway.config.pipelines:
            pipeline = read_pipeline(Path(path))
            if pipeline.name in self._pipelines:
                raise ConfigError(f"two pipelines have the name {pipeline.name!r}")
            for name in pipeline.models:
                _check_served(gateway, pipeline, name)
            self._pipelines[pipeline.name] = pipeline

    async def list_pipelines(self, request: Request) -> Response:
        data = [
            {"id": pipeline.name, "object": "pipeline", "steps": [kind for kind, _ in pipeline.steps],
             "models": pipeline.models}
            for pipeline in self._pipelines.values()
        ]  # fmt: skip
        return json_response({"object": "list", "data": data})

    async def run(self, request: Request) -> Response:
        name = request.path_params["name"]
        pipeline = self._pipelines.get(name)
        if pipeline is None:
            raise ModelNotFoundError(f"There is no pipeline '{name[:200]}'.")
        fields = await self._gateway.fields(request)
        if unknown := sorted(fields.keys() - {"input"}):
            raise InvalidRequestError(
                f"{unknown[0][:80]}: a pipeline's body has the field input only", param=unknown[0][:80]
            )
        if "input" not in fields:
            raise InvalidRequestError("input must be given", param="input")
        return json_response(await self._run(request, pipeline, fields["input"]))

    async def _run(self, request: Request, pipeline: Pipeline, value: Any) -> dict[str, Any]:
        from inferd.pipelines import steps  # numpy: loaded with the first use

        stages, labels = [], list[str]()
        for kind, settings in pipeline.steps:
            begin = time.perf_counter()
            if isinstance(settings, Infer):
                value, labels = await self._infer(request, settings, value)
            elif isinstance(settings, Embed):
                value = await self._embed(request, settings, value)
            else:
                async with self._step_slots:
                    value = await asyncio.to_thread(steps.apply, settings, value, labels)
            stages.append({"step": kind, "seconds": time.perf_counter() - begin})
        return {"pipeline": pipeline.name, "output": steps.to_json(value), "stages": stages}

    async def _infer(self, request: Request, settings: Infer, value: Any) -> tuple[Any, list[str]]:
        """The output's array, and the labels that the model names."""
        from inferd.pipelines import tensors

        model = self._gateway.router.find(settings.model, "predict").model
        async with model.lease("predict") as (_, ready):
            details = ready.details
        declared = tensors.declared(details, settings)
        tensor = await asyncio.to_thread(tensors.to_tensor, declared, value)

        def command(call_id: str) -> protocol.Infer:
            outputs = [settings.output] if settings.output else []
            return protocol.Infer(call_id=call_id, inputs=[tensor], outputs=outputs, version=settings.version)

        reply = await self._gateway.call(request, model, command, Inferred, "predict")
        found: Tensor = reply.outputs[0]
        return tensors.to_array(found), list(details.get("labels") or [])

    async def _embed(self, request: Request, settings: Settings, value: Any) -> Any:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise InvalidRequestError("input must be a text, or a list of texts", param="input")
        assert isinstance(settings, Embed)
        model = self._gateway.router.find(settings.model, "encode").model
        rows = (await encoding.embed(self._gateway, request, model, texts)).rows
        return [row.tolist() for row in rows]


def _check_served(gateway: Gateway, pipeline: Pipeline, name: str) -> None:
    try:
        gateway.router.find(name, "predict")
    except ModelNotFoundError:
        raise ConfigError(f"the pipeline {pipeline.name!r} names the model {name!r}, which is not served") from None
