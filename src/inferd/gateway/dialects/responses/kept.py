"""The responses that this server keeps. Their file is opened when the first of them comes."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import Any

from inferd.errors import ConfigError, InvalidRequestError
from inferd.gateway.dialects.responses.answer import failed
from inferd.gateway.dialects.responses.items import Item
from inferd.gateway.error_styles import Failure
from inferd.ledger.responses import ResponseStore, StoredResponse, responses_path

log = logging.getLogger("inferd.gateway")
Response = dict[str, Any]
_LOST = Failure(status=500, message="The server ended before this response was done.", kind="server_error")


class Kept:
    def __init__(self, retention: float) -> None:
        """retention: seconds; 0: nothing is kept."""
        self._retention = retention
        self._store: ResponseStore | None = None
        self._has_warned = False

    def store(self) -> ResponseStore | None:
        """None when this server keeps nothing, or cannot: another one may write in the same folder."""
        if self._store is None and self._retention:
            try:
                self._store = ResponseStore(responses_path(), self._retention, lambda body: failed(body, _LOST))
            except (ConfigError, OSError, sqlite3.Error) as error:
                if not self._has_warned:
                    log.warning("responses cannot be kept: %s", error)
                self._has_warned = True
        return self._store

    def put(self, tenant: str, response: Response, items: list[Item]) -> None:
        """Returns at once; what is asked for later finds it."""
        store = self.store()
        assert store is not None  # whoever keeps a response has asked before
        store.put(
            StoredResponse(
                id=response["id"],
                tenant=tenant,
                previous_id=response["previous_response_id"],
                is_finished=response["status"] not in ("queued", "in_progress"),
                body=response,
                input=items,
            )
        )

    async def get(self, response_id: str, tenant: str) -> StoredResponse | None:
        store = self.store()
        return None if store is None else await asyncio.wrap_future(store.get(response_id, tenant))

    async def delete(self, response_id: str, tenant: str) -> bool:
        store = self.store()
        return store is not None and await asyncio.wrap_future(store.delete(response_id, tenant))

    async def context(self, response_id: str | None, tenant: str) -> list[Item]:
        """The items of a response and of all it goes on from, input and output. Raises InvalidRequestError."""
        if response_id is None:
            return []
        store = self.store()
        if store is None:
            raise InvalidRequestError(
                "previous_response_id: this server keeps no responses", param="previous_response_id"
            )
        chain = await asyncio.wrap_future(store.chain(response_id, tenant))
        if not chain[-1].is_finished:
            raise InvalidRequestError("previous_response_id: that response still runs", param="previous_response_id")
        return [item for stored in chain for item in (*stored.input, *stored.body["output"])]

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
