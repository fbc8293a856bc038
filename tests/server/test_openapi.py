"""The OpenAPI document lists what there is: every route, and every field that is honoured."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from inferd.gateway.app import Api
from inferd.gateway.config import ModelConfig, ServerConfig
from inferd.gateway.dialects.openai.bodies import ChatBody, CompletionBody
from inferd.gateway.dialects.openai.fields import SAMPLING
from inferd.gateway.dialects.openai.openapi import CHAT, COMPLETION

Operation = tuple[str, str]  # (method, path)
REFUSED = "refused whatever is sent"
UNLISTED = {  # path -> why the document leaves it out
    "/inferd/plan": "the dashboard's own, of its version",
    "/api/pull": "it fetches a model: whoever tries all routes must not",
    "/api/copy": REFUSED,
    "/api/create": REFUSED,
    "/api/delete": REFUSED,
    "/api/push": REFUSED,
    "/api/blobs/{digest}": REFUSED,
    "/embed_sparse": REFUSED,
    "/slots/{id}": REFUSED,
    "/v2/cudasharedmemory/{rest}": REFUSED,
    "/v2/systemsharedmemory/{rest}": REFUSED,
}


@pytest.fixture(scope="module")
def api() -> Api:
    api = Api(ServerConfig(models=(ModelConfig(model="mock/model"),), worker_factory="support.mock_engine:build"))
    api.build()
    return api


def served(api: Api) -> Iterator[Operation]:
    assert isinstance(api.gateway.app, Starlette)
    for route in api.gateway.app.routes:
        assert isinstance(route, Route)
        path = re.sub(r"{(\w+):path}", r"{\1}", route.path)
        yield from ((method, path) for method in (route.methods or set()) - {"HEAD"})


def listed(api: Api) -> set[Operation]:
    items = api.document["paths"].items()
    return {(method.upper(), path) for path, item in items for method in item if method != "parameters"}


def test_every_route_is_listed_or_has_a_reason(api):
    assert {(method, path) for method, path in served(api) if path not in UNLISTED} == listed(api)


def test_every_reason_has_its_route(api):
    assert {path for _, path in served(api)} >= UNLISTED.keys()


def test_every_honoured_field_is_listed():
    assert set(CHAT["properties"]) >= set(ChatBody.__struct_fields__) | SAMPLING
    assert set(COMPLETION["properties"]) >= set(CompletionBody.__struct_fields__) | SAMPLING
