"""vLLM's routes that load and unload LoRA adapters while the server runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from inferd.errors import InvalidRequestError, ModelNotFoundError
from inferd.gateway.context import Gateway
from inferd.gateway.errors import HttpError
from inferd.gateway.json_fields import convert
from inferd.gateway.router import Model
from inferd.gateway.schemas import TEXT, Schema, optional, post

MAX_NAME_LEN = 256


class _Load(msgspec.Struct, forbid_unknown_fields=True):
    lora_name: str
    lora_path: str
    model: str | None = None  # inferd's own: which of the served models; the first that generates text
    load_inplace: bool = False


class _Unload(msgspec.Struct, forbid_unknown_fields=True):
    lora_name: str
    lora_int_id: int | None = None  # of vLLM's own books; the name decides there too


def paths() -> dict[str, Any]:
    """For the OpenAPI document."""
    load: Schema = {
        "type": "object",
        "required": ["lora_name", "lora_path"],
        "additionalProperties": False,
        "properties": {
            "lora_name": {"type": "string", "minLength": 1, "maxLength": MAX_NAME_LEN},
            "lora_path": {"type": "string"},
            "model": TEXT,
            "load_inplace": {"enum": [False, None]},
        },
    }
    unload: Schema = {
        "type": "object",
        "required": ["lora_name"],
        "additionalProperties": False,
        "properties": {"lora_name": {"type": "string"}, "lora_int_id": optional("integer")},
    }
    return {
        "/v1/load_lora_adapter": _told("Loads a LoRA adapter from a directory that the operator allows", load),
        "/v1/unload_lora_adapter": _told("Unloads a LoRA adapter", unload),
    }


def _told(summary: str, request: Schema) -> dict[str, Any]:
    item = post(summary, request, {})
    item["post"]["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    return item


def routes(gateway: Gateway) -> list[Route]:
    own = Adapters(gateway)
    return [
        Route("/v1/load_lora_adapter", own.load, methods=["POST"]),
        Route("/v1/unload_lora_adapter", own.unload, methods=["POST"]),
    ]


class Adapters:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._changing = asyncio.Lock()  # a name is looked up and taken by one request at a time

    async def load(self, request: Request) -> Response:
        body = convert(await self._gateway.fields(request), _Load)
        if body.load_inplace:
            message = "load_inplace is not supported: unload the adapter, then load it"
            raise InvalidRequestError(message, param="load_inplace")
        if not 1 <= len(body.lora_name) <= MAX_NAME_LEN:
            raise InvalidRequestError(f"lora_name must have 1 to {MAX_NAME_LEN} characters", param="lora_name")
        path, router = allowed_path(body.lora_path, self._gateway.config.lora_dirs), self._gateway.router
        served = router.find(body.model)
        if served.adapter:
            raise InvalidRequestError(f"model must be a model, '{served.adapter}' is an adapter", param="model")
        with router.admitted(1, served.model):
            async with self._changing, served.model.lease("generate"):
                if router.knows(body.lora_name):
                    raise InvalidRequestError(f"The name '{body.lora_name}' is served already.", param="lora_name")
                await served.model.worker.load_adapter(body.lora_name, str(path))
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")

    async def unload(self, request: Request) -> Response:
        body = convert(await self._gateway.fields(request), _Unload)
        async with self._changing:
            model = self._owner(body.lora_name)
            with self._gateway.router.admitted(1, model):
                async with model.lease("generate"):
                    await model.worker.unload_adapter(body.lora_name)
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")

    def _owner(self, name: str) -> Model:
        for model in self._gateway.router.models:
            if name in model.worker.adapters:
                return model
        raise ModelNotFoundError(f"The LoRA adapter '{name[:MAX_NAME_LEN]}' does not exist.")


def allowed_path(text: str, allowed: tuple[str, ...]) -> Path:
    """An existing path below one of the allowed directories; a relative one is looked for in each of them.

    Raises HttpError when no directory is allowed, InvalidRequestError otherwise: the same for a path outside as for one
    that is not there, so that nobody can ask what the host has.
    """
    if not allowed:
        raise HttpError(403, "Loading adapters is off; the operator allows directories with --lora-dir.")
    refusal = InvalidRequestError("lora_path must lie below a directory that --lora-dir allows", param="lora_path")
    for directory in allowed:
        root = Path(directory).resolve()
        try:
            path = (root / text).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            continue
        if path.is_relative_to(root) and path != root:
            return path
    raise refusal
