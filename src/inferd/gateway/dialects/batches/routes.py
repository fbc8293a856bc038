"""The routes of OpenAI's files and batches."""

from __future__ import annotations

from typing import NoReturn

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from inferd.errors import InvalidRequestError
from inferd.gateway.context import Gateway
from inferd.gateway.dialects.batches.bodies import (
    MAX_BATCHES_LISTED,
    MAX_FILES_LISTED,
    batch_json,
    file_json,
    new_batch,
    page,
)
from inferd.gateway.dialects.batches.jobs import Jobs
from inferd.gateway.dialects.batches.upload import receive_file
from inferd.gateway.errors import HttpError, json_response
from inferd.jobs.store import StoredFile

MAX_UNFINISHED = 100  # batches of one tenant


def routes(gateway: Gateway) -> list[Route]:
    own = Batches(gateway)
    return [
        Route("/v1/files", own.add_file, methods=["POST"]),
        Route("/v1/files", own.list_files),
        Route("/v1/files/{id}", own.one_file),
        Route("/v1/files/{id}", own.delete_file, methods=["DELETE"]),
        Route("/v1/files/{id}/content", own.content),
        Route("/v1/batches", own.create, methods=["POST"]),
        Route("/v1/batches", own.list_batches),
        Route("/v1/batches/{id}", own.one_batch),
        Route("/v1/batches/{id}/cancel", own.cancel, methods=["POST"]),
    ]


class Batches:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._jobs = Jobs(gateway)
        gateway.on_start.append(self._jobs.resume)
        gateway.on_close.append(self._jobs.close)

    async def add_file(self, request: Request) -> Response:
        store = self._jobs.open()
        upload = store.new_upload()
        try:
            filename, purpose = await receive_file(request, self._gateway.config.body_timeout, upload)
            file = await store.do(store.add_file, upload, _tenant(request), filename, purpose)
        finally:
            upload.unlink(missing_ok=True)
        return json_response(file_json(file))

    async def list_files(self, request: Request) -> Response:
        store, query = self._jobs.open(), request.query_params
        files = await store.do(store.files, _tenant(request))
        order, purpose = query.get("order", "desc"), query.get("purpose")
        if order not in ("asc", "desc"):
            raise InvalidRequestError("order must be asc or desc", param="order")
        data = [file_json(file) for file in files if purpose is None or file.purpose == purpose]
        ordered = data if order == "desc" else data[::-1]
        return json_response(page(ordered, query, usual=MAX_FILES_LISTED, most=MAX_FILES_LISTED))

    async def one_file(self, request: Request) -> Response:
        return json_response(file_json(await self._file(request, request.path_params["id"])))

    async def delete_file(self, request: Request) -> Response:
        store, file_id = self._jobs.open(), request.path_params["id"]
        if not await store.do(store.delete_file, file_id, _tenant(request)):
            _not_found("file", file_id)
        return json_response({"id": file_id, "object": "file", "deleted": True})

    async def content(self, request: Request) -> Response:
        file = await self._file(request, request.path_params["id"])
        return FileResponse(self._jobs.open().path_of(file.id), media_type="application/octet-stream")

    async def create(self, request: Request) -> Response:
        store, tenant = self._jobs.open(), _tenant(request)
        batch = new_batch(await self._gateway.fields(request), tenant)
        if (await self._file(request, batch.input_file_id)).purpose != "batch":
            raise InvalidRequestError('input_file_id must be a file of purpose "batch"', param="input_file_id")
        num_unfinished = sum(one.tenant == tenant for one in await store.do(store.unfinished))
        if num_unfinished >= MAX_UNFINISHED:
            raise HttpError(429, f"{MAX_UNFINISHED} batches have not ended yet.", code="too_many_batches")
        await store.do(store.put, batch)
        self._jobs.wake()
        return json_response(batch_json(batch))

    async def list_batches(self, request: Request) -> Response:
        store = self._jobs.open()
        batches = [batch_json(batch) for batch in await store.do(store.batches, _tenant(request))]
        return json_response(page(batches, request.query_params, usual=20, most=MAX_BATCHES_LISTED))

    async def one_batch(self, request: Request) -> Response:
        store, batch_id = self._jobs.open(), request.path_params["id"]
        batch = await store.do(store.batch, batch_id, _tenant(request))
        return json_response(batch_json(batch)) if batch is not None else _not_found("batch", batch_id)

    async def cancel(self, request: Request) -> Response:
        store, batch_id = self._jobs.open(), request.path_params["id"]
        batch = await store.do(store.batch, batch_id, _tenant(request))
        if batch is None:
            _not_found("batch", batch_id)
        if batch.status in ("validating", "in_progress"):
            await store.do(store.set_status, batch_id, "cancelling")
            self._jobs.wake()
            return await self.one_batch(request)
        if batch.status in ("cancelling", "cancelled"):
            return json_response(batch_json(batch))
        raise HttpError(409, f"This batch is {batch.status} and cannot be cancelled.")

    async def _file(self, request: Request, file_id: str) -> StoredFile:
        store = self._jobs.open()
        file = await store.do(store.file, file_id, _tenant(request))
        return file if file is not None else _not_found("file", file_id)


def _tenant(request: Request) -> str:
    tenant: str = request.scope.get("tenant", "")
    return tenant


def _not_found(kind: str, its_id: str) -> NoReturn:
    raise HttpError(404, f"There is no {kind} {its_id[:80]!r}.", code=f"{kind}_not_found")
