"""Retrieval and generation in one call: documents in, answers with numbered sources out, each stage timed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inferd.config import home_dir
from inferd.errors import InvalidRequestError
from inferd.gateway import encoding
from inferd.gateway.calls import AnswerContext, Call, Caller, StreamWriter, WholeWriter
from inferd.gateway.context import Gateway
from inferd.gateway.dialects.openai.call import parse
from inferd.gateway.errors import json_response
from inferd.gateway.json_fields import convert, integral
from inferd.gateway.router import Model
from inferd.gateway.schemas import TEXT, Schema, bodiless, get, in_path, integer, listed, post
from inferd.metrics.requests import Targets
from inferd.rag.chunks import MAX_WORDS, Chunk, split
from inferd.rag.prompts import citations_in, messages_of
from inferd.rag.store import Hit, RagStore
from inferd.worker.client import Update
from inferd.worker.protocol import Generate, Ready

MAX_DOCUMENTS = 256  # of one POST
MAX_TOP_K = 100
MAX_NAME_LEN = 200
NUM_CANDIDATES = 4  # retrieved for each source wanted, where a reranker chooses


class Document(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    name: str
    text: str


class IndexBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    documents: list[Document]
    embed_model: str | None = None


class SearchBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    collection: str
    query: str
    top_k: int = 4
    rerank_model: str | None = None


# fields of an answer's body that are this route's; all others are those of a chat
_OWN = frozenset({"collection", "query", "top_k", "rerank_model", "system"})


@dataclass(frozen=True, slots=True)
class Found:
    """Sources for a question, best first, and the seconds of each stage."""

    sources: list[Hit]
    stages: dict[str, float]


_COLLECTION: Schema = {
    "type": "object",
    "required": ["name", "model", "width", "num_documents", "num_chunks", "created"],
}
_DELETED: Schema = {"type": "object", "required": ["collection", "document", "deleted"]}
_DOCUMENT: Schema = {
    "type": "object",
    "required": ["name", "text"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": MAX_NAME_LEN},
        "text": {"type": "string", "pattern": r"\S"},
    },
}
_INDEX: Schema = {
    "type": "object",
    "required": ["documents"],
    "additionalProperties": False,
    "properties": {
        "documents": {"type": "array", "items": _DOCUMENT, "minItems": 1, "maxItems": MAX_DOCUMENTS},
        "embed_model": TEXT,
    },
}
_INDEXED: Schema = {"type": "object", "required": ["collection", "embed_model", "indexed", "unchanged", "chunks"]}
_QUERY: dict[str, Schema] = {
    "collection": {"type": "string", "minLength": 1},
    "query": {"type": "string", "pattern": r"\S"},
    "top_k": integer(1, MAX_TOP_K),
    "rerank_model": TEXT,
}
_SEARCH: Schema = {
    "type": "object",
    "required": ["collection", "query"],
    "properties": _QUERY,
    "additionalProperties": False,
}
_ASK: Schema = {"type": "object", "required": ["collection", "query"], "properties": _QUERY}
_FOUND: Schema = {"type": "object", "required": ["sources", "stages"]}


def paths() -> dict[str, Any]:
    """For the OpenAPI document."""
    one = "/v1/rag/collections/{name}"
    remove = {"delete": bodiless("Deletes a document", _DELETED)}
    collection = {
        **get("A collection and its documents", _COLLECTION),
        "delete": bodiless("Deletes a collection with all its documents", _DELETED),
    }
    return {
        "/v1/rag/collections": get("The collections of this key", listed(_COLLECTION)),
        one: in_path(collection, "name"),
        one + "/documents": in_path(post("Puts documents into a collection", _INDEX, _INDEXED), "name"),
        one + "/documents/{document}": in_path(remove, "name", "document"),
        "/v1/rag/search": post("The chunks of documents that fit a query", _SEARCH, _FOUND),
        "/v1/rag/answer": post("An answer from documents, with its sources", _ASK, _FOUND, streams=True),
    }


def routes(gateway: Gateway) -> list[Route]:
    own = Rag(gateway)
    one = "/v1/rag/collections/{name}"
    return [
        Route("/v1/rag/collections", own.list_collections),
        Route(one, own.show),
        Route(one, own.remove, methods=["DELETE"]),
        Route(one + "/documents", own.index, methods=["POST"]),
        Route(one + "/documents/{document:path}", own.remove, methods=["DELETE"]),
        Route("/v1/rag/search", own.search, methods=["POST"]),
        Route("/v1/rag/answer", own.answer, methods=["POST"]),
    ]


class Rag:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._opened: RagStore | None = None

    @property
    def _store(self) -> RagStore:
        """Opened by the first request: a server that has no documents makes no file."""
        if self._opened is None:
            self._opened = RagStore(home_dir() / "rag.db")
        return self._opened

    async def list_collections(self, request: Request) -> Response:
        found = await asyncio.to_thread(self._store.collections, _tenant(request))
        return json_response({"object": "list", "data": [_without_id(asdict(one)) for one in found]})

    async def show(self, request: Request) -> Response:
        collection = await asyncio.to_thread(self._store.collection, _tenant(request), request.path_params["name"])
        documents = await asyncio.to_thread(self._store.documents, collection)
        return json_response({**_without_id(asdict(collection)), "documents": documents})

    async def remove(self, request: Request) -> Response:
        name, document = request.path_params["name"], request.path_params.get("document")
        collection = await asyncio.to_thread(self._store.collection, _tenant(request), name)
        await asyncio.to_thread(self._store.delete, collection, document)
        return json_response({"collection": name, "document": document, "deleted": True})

    async def index(self, request: Request) -> Response:
        """Documents that are there with the same text are left as they are."""
        body = convert(await self._gateway.fields(request), IndexBody)
        name = request.path_params["name"]
        _check_index(name, body)
        model = self._gateway.router.find(body.embed_model, "encode").model
        tenant, counts = _tenant(request), {"indexed": 0, "unchanged": 0, "chunks": 0}
        for document in body.documents:
            if await asyncio.to_thread(self._store.has, tenant, name, document.name, document.text):
                counts["unchanged"] += 1
                continue
            chunks, vectors = await self._vectors(request, model, document)
            await asyncio.to_thread(
                self._store.put, tenant, name, model.name, document.name, document.text, chunks, vectors
            )
            counts["indexed"] += 1
            counts["chunks"] += len(chunks)
        return json_response({"collection": name, "embed_model": model.name, **counts})

    async def search(self, request: Request) -> Response:
        body = convert(integral(await self._gateway.fields(request)), SearchBody)
        found = await self._find(request, body)
        return json_response({"sources": [_source(n, hit) for n, hit in enumerate(found.sources, 1)],
                              "stages": found.stages})  # fmt: skip

    async def answer(self, request: Request) -> Response:
        fields = await self._gateway.fields(request)
        own = {name: value for name, value in integral(fields).items() if name in _OWN - {"system"}}
        system = fields.get("system")
        if "messages" in fields:
            raise InvalidRequestError("messages: this route makes them of the query and its sources", param="messages")
        if system is not None and not isinstance(system, str):
            raise InvalidRequestError("system must be a text", param="system")
        body = convert(own, SearchBody)
        served = self._gateway.router.find(fields.get("model"))
        chat = {name: value for name, value in fields.items() if name not in _OWN}
        parse({**chat, "messages": [{"role": "user", "content": ""}]}, is_chat=True)  # mistakes first
        found = await self._find(request, body)
        call = parse({**chat, "messages": messages_of(body.query, found.sources, system)}, is_chat=True)
        return self._gateway.complete(request, served, RagCall(call, found))

    async def _find(self, request: Request, body: SearchBody) -> Found:
        if not 1 <= body.top_k <= MAX_TOP_K:
            raise InvalidRequestError(f"top_k must be from 1 to {MAX_TOP_K}, got {body.top_k}", param="top_k")
        if not body.query.strip():
            raise InvalidRequestError("query must not be empty", param="query")
        collection = await asyncio.to_thread(self._store.collection, _tenant(request), body.collection)
        begin = time.perf_counter()
        model = self._gateway.router.find(collection.model, "encode").model
        vector = (await encoding.embed(self._gateway, request, model, [body.query], param="query")).rows[0]
        embedded = time.perf_counter()
        count = body.top_k * (NUM_CANDIDATES if body.rerank_model else 1)
        hits = await asyncio.to_thread(self._store.search, collection, vector, count)
        retrieved = time.perf_counter()
        stages = {"embed": embedded - begin, "retrieve": retrieved - embedded}
        if body.rerank_model is not None:
            hits = await self._rerank(request, body.rerank_model, body.query, hits)
            stages["rerank"] = time.perf_counter() - retrieved
        return Found(hits[: body.top_k], stages)

    async def _rerank(self, request: Request, name: str, query: str, hits: list[Hit]) -> list[Hit]:
        if not hits:
            return []
        model = self._gateway.router.find(name, "encode").model
        texts = [hit.text for hit in hits]
        scores, _ = await encoding.score(
            self._gateway, request, model, query, texts, params=("query", "documents"), truncate=True
        )
        best = sorted(zip(scores, range(len(hits)), strict=True), key=lambda pair: (-pair[0], pair[1]))
        return [replace(hits[at], score=score) for score, at in best]

    async def _vectors(
        self, request: Request, model: Model, document: Document
    ) -> tuple[list[Chunk], Sequence[encoding.Vector]]:
        """Chunks as long as the model reads whole: smaller ones where words have many tokens."""
        max_words = MAX_WORDS
        while True:
            chunks = split(document.text, max_words, max_words // 5)
            if not chunks:
                raise InvalidRequestError(f"documents: '{document.name[:80]}' has no words", param="documents")
            texts = [chunk.text for chunk in chunks]
            try:
                return chunks, (await self._embed_all(request, model, texts))
            except InvalidRequestError as error:
                if error.code != "context_length_exceeded" or max_words == 1:
                    raise
                max_words = max(1, max_words // 2)

    async def _embed_all(self, request: Request, model: Model, texts: list[str]) -> list[encoding.Vector]:
        rows: list[encoding.Vector] = []
        for first in range(0, len(texts), encoding.MAX_INPUTS):
            part = texts[first : first + encoding.MAX_INPUTS]
            rows += (await encoding.embed(self._gateway, request, model, part, param="documents")).rows
        return rows


class RagCall:
    """A chat whose answer carries its sources: the Call of the route."""

    num_prompts = 1
    operation = "chat"

    def __init__(self, chat: Call, found: Found) -> None:
        self._chat, self._found = chat, found
        self._begin = time.perf_counter()

    @property
    def is_streamed(self) -> bool:
        return self._chat.is_streamed

    def commands(self, ready: Ready, caller: Caller) -> Sequence[Generate]:
        return self._chat.commands(ready, caller)

    def targets(self, usual: Targets) -> Targets:
        return self._chat.targets(usual)

    def whole_writer(self, context: AnswerContext) -> WholeWriter:
        return _Whole(self._chat.whole_writer(context), self)

    def stream_writer(self, context: AnswerContext) -> StreamWriter:
        return _Stream(self._chat.stream_writer(context), self)

    def sources(self) -> list[dict[str, Any]]:
        return [_source(number, hit) for number, hit in enumerate(self._found.sources, 1)]

    def result(self, text: str) -> dict[str, Any]:
        """What comes with the end of the answer's text."""
        stages = {**self._found.stages, "generate": time.perf_counter() - self._begin}
        return {"citations": citations_in(text, len(self._found.sources)), "stages": stages}


class _Whole:
    def __init__(self, chat: WholeWriter, call: RagCall) -> None:
        self._chat, self._call = chat, call
        self.add = chat.add

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = self._chat.to_json()
        text = body["choices"][0]["message"]["content"] or ""
        return {**body, "sources": self._call.sources(), **self._call.result(text)}


class _Stream:
    """The chunks of a chat between two events of our own: `rag.sources` first, `rag.result` last."""

    def __init__(self, chat: StreamWriter, call: RagCall) -> None:
        self._chat, self._call = chat, call
        self._texts: list[str] = []
        self._is_open = False
        self.content_type, self.keep_alive, self.fail = chat.content_type, chat.keep_alive, chat.fail

    def encode(self, updates: list[Update]) -> bytes:
        self._texts += (update.event.text for update in updates if update.event.index == 0)
        first = b"" if self._is_open else _event("rag.sources", {"sources": self._call.sources()})
        self._is_open = True
        return first + self._chat.encode(updates)

    def end(self) -> bytes:
        done = b"data: [DONE]\n\n"
        result = _event("rag.result", self._call.result("".join(self._texts)))
        return self._chat.end().removesuffix(done) + result + done


def _event(name: str, value: dict[str, Any]) -> bytes:
    body = {"object": name, "choices": [], **value}  # a chat client passes over a chunk without choices
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _source(number: int, hit: Hit) -> dict[str, Any]:
    return {"source": number, **asdict(hit)}


def _tenant(request: Request) -> str:
    return str(request.scope.get("tenant", ""))


def _without_id(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "id"}


def _check_index(name: str, body: IndexBody) -> None:
    if not 0 < len(name) <= MAX_NAME_LEN:
        raise InvalidRequestError(f"the name of a collection has from 1 to {MAX_NAME_LEN} characters", param="name")
    if not 1 <= len(body.documents) <= MAX_DOCUMENTS:
        allowed = f"from 1 to {MAX_DOCUMENTS} documents, got {len(body.documents)}"
        raise InvalidRequestError(f"documents must hold {allowed}", param="documents")
    for document in body.documents:
        if not 0 < len(document.name) <= MAX_NAME_LEN:
            raise InvalidRequestError(f"documents: a name has from 1 to {MAX_NAME_LEN} characters", param="documents")
