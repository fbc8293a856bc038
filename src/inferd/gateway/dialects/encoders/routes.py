"""The routes: OpenAI /v1/embeddings; TEI /embed, /embed_all, /predict, /similarity; vLLM /score, /classify, /pooling;
/rerank of five of them; Cohere /v2/embed; llama-server /embedding."""

from __future__ import annotations

import base64
import uuid
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inferd.errors import InvalidRequestError
from inferd.gateway import encoding
from inferd.gateway.context import Gateway
from inferd.gateway.dialects.encoders import bodies
from inferd.gateway.dialects.encoders.bodies import body_of, cuts, document_text, inputs_of, pairs_of
from inferd.gateway.encoding import Vector
from inferd.gateway.errors import json_response
from inferd.gateway.router import Model

_RERANK = ("/rerank", "/v1/rerank", "/v2/rerank", "/reranking", "/v1/reranking")


def routes(gateway: Gateway) -> list[Route]:
    own = Encoders(gateway)
    handlers = {
        "/v1/embeddings": own.embeddings,
        "/embeddings": own.embeddings,
        "/pooling": own.embeddings,
        "/embed": own.embed,
        "/embed_all": own.embed_all,
        "/embed_sparse": own.embed_sparse,
        "/predict": own.predict,
        "/similarity": own.similarity,
        "/score": own.score,
        "/v1/score": own.score,
        "/classify": own.classify,
        "/v1/classify": own.classify,
        "/v2/embed": own.cohere_embed,
        "/embedding": own.llama_embedding,
        **dict.fromkeys(_RERANK, own.rerank),
    }
    return [Route(path, handler, methods=["POST"]) for path, handler in handlers.items()]


class Encoders:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def _model(self, body: bodies.Body) -> Model:
        return self._gateway.router.find(body.model, "encode").model

    async def embeddings(self, request: Request) -> Response:
        body, warnings = body_of(await self._gateway.fields(request), bodies.Embeddings)
        model = self._model(body)
        rows = await encoding.embed(
            self._gateway,
            request,
            model,
            inputs_of(body.input, "input"),
            dimensions=body.dimensions,
            truncate=cuts(body.truncate_prompt_tokens),
        )
        as_base64 = body.encoding_format == "base64"
        data = [
            {"object": "embedding", "index": at, "embedding": _base64(row) if as_base64 else row.tolist()}
            for at, row in enumerate(rows.rows)
        ]
        answer = {"object": "list", "data": data, "model": model.name, "usage": _usage(rows.total_tokens)}
        return _answered(answer, warnings)

    async def embed(self, request: Request) -> Response:
        body, _ = body_of(await self._gateway.fields(request), bodies.Embed)
        model, texts = self._model(body), inputs_of(body.inputs, "inputs")
        if body.prompt_name is not None:
            prompts = (await encoding.ready_of(model)).details.get("prompts", {})
            if body.prompt_name not in prompts:
                known = ", ".join(sorted(prompts)) or "none"
                raise InvalidRequestError(f"prompt_name must be one of the model's: {known}", param="prompt_name")
            texts = [prompts[body.prompt_name] + text if isinstance(text, str) else text for text in texts]
        rows = await encoding.embed(
            self._gateway,
            request,
            model,
            texts,
            param="inputs",
            normalize=body.normalize,
            dimensions=body.dimensions,
            truncate=body.truncate,
            truncate_left=body.truncation_direction.lower() == "left",
        )
        return json_response([row.tolist() for row in rows.rows])

    async def embed_all(self, request: Request) -> Response:
        """The states of every token, not normalized."""
        body, _ = body_of(await self._gateway.fields(request), bodies.Embed)
        rows = await encoding.embed(
            self._gateway,
            request,
            self._model(body),
            inputs_of(body.inputs, "inputs"),
            param="inputs",
            pooling="none",
            normalize=False,
            truncate=body.truncate,
            truncate_left=body.truncation_direction.lower() == "left",
        )
        ends, parts = 0, []
        for count in rows.num_tokens:
            parts.append([row.tolist() for row in rows.rows[ends : ends + count]])
            ends += count
        return json_response(parts)

    async def embed_sparse(self, request: Request) -> Response:
        raise InvalidRequestError("sparse vectors are not made by any model that inferd runs", param="inputs")

    async def predict(self, request: Request) -> Response:
        body, _ = body_of(await self._gateway.fields(request), bodies.Predict)
        model = self._model(body)
        rows = await encoding.classify(
            self._gateway,
            request,
            model,
            pairs_of(body.inputs, "inputs"),
            param="inputs",
            raw_scores=body.raw_scores,
            truncate=body.truncate,
            truncate_left=body.truncation_direction.lower() == "left",
        )
        labels = (await encoding.ready_of(model)).details["labels"]
        scored = [_by_score(labels, row) for row in rows.rows]
        is_one = isinstance(body.inputs, str) or (bool(body.inputs) and isinstance(body.inputs[0], str))
        return json_response(scored[0] if is_one else scored)

    async def similarity(self, request: Request) -> Response:
        body, _ = body_of(await self._gateway.fields(request), bodies.Similarity)
        texts = [body.inputs.source_sentence, *body.inputs.sentences]
        if len(texts) == 1:
            raise InvalidRequestError("inputs: sentences must not be empty", param="inputs")
        truncate = bool(body.parameters.get("truncate", False))
        rows = await encoding.embed(self._gateway, request, self._model(body), texts, param="inputs", truncate=truncate)
        return json_response(encoding.cosines(rows.rows[0], rows.rows[1:]))

    async def rerank(self, request: Request) -> Response:
        body, warnings = body_of(await self._gateway.fields(request), bodies.Rerank)
        if (body.texts is None) == (body.documents is None):
            raise InvalidRequestError("give either documents or texts", param="documents")
        if body.max_tokens_per_doc is not None:
            message = "max_tokens_per_doc: documents are cut at the model's length only, with truncate_prompt_tokens -1"
            raise InvalidRequestError(message, param="max_tokens_per_doc")
        is_tei, model = body.texts is not None, self._model(body)
        texts = body.texts if body.texts is not None else [document_text(one) for one in body.documents or []]
        if body.top_n is not None and body.top_n < 1:
            raise InvalidRequestError(f"top_n must be at least 1, got {body.top_n}", param="top_n")
        scores, num_tokens = await encoding.score(
            self._gateway,
            request,
            model,
            body.query,
            texts,
            params=("query", "texts" if is_tei else "documents"),
            raw_scores=body.raw_scores,
            truncate=body.truncate or cuts(body.truncate_prompt_tokens),
            truncate_left=body.truncation_direction.lower() == "left",
        )
        best = sorted(range(len(texts)), key=lambda at: (-scores[at], at))[: body.top_n]
        if is_tei:
            return json_response([_tei_hit(at, scores[at], texts[at], body.return_text) for at in best])
        with_text = body.return_documents
        if with_text is None:  # as each of them does by itself
            with_text = request.url.path in ("/rerank", "/v1/rerank")
        results = [_hit(at, scores[at], texts[at], with_text) for at in best]
        usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
        answer = {"id": f"rerank-{uuid.uuid4().hex}", "object": "list", "model": model.name, "usage": usage}
        return _answered({**answer, "results": results}, warnings)

    async def score(self, request: Request) -> Response:
        body, warnings = body_of(await self._gateway.fields(request), bodies.Score)
        first = [body.text_1] if isinstance(body.text_1, str) else body.text_1
        second = [body.text_2] if isinstance(body.text_2, str) else body.text_2
        if len(first) not in (1, len(second)) or not second:
            message = f"text_1 must be one text, or as many as text_2, got {len(first)} and {len(second)}"
            raise InvalidRequestError(message, param="text_1")
        model, truncate = self._model(body), cuts(body.truncate_prompt_tokens)
        scores, num_tokens = [], 0
        groups = [(first[0], second)] if len(first) == 1 else [(a, [b]) for a, b in zip(first, second, strict=True)]
        for query, texts in groups:
            found, count = await encoding.score(
                self._gateway, request, model, query, texts, params=("text_1", "text_2"), truncate=truncate
            )
            scores += found
            num_tokens += count
        data = [{"index": at, "object": "score", "score": value} for at, value in enumerate(scores)]
        answer = {"id": f"score-{uuid.uuid4().hex}", "object": "list", "model": model.name, "data": data}
        return _answered(answer | {"usage": _usage(num_tokens)}, warnings)

    async def classify(self, request: Request) -> Response:
        body, warnings = body_of(await self._gateway.fields(request), bodies.Classify)
        model, texts = self._model(body), [body.input] if isinstance(body.input, str) else body.input
        rows = await encoding.classify(self._gateway, request, model, texts, truncate=cuts(body.truncate_prompt_tokens))
        labels = (await encoding.ready_of(model)).details["labels"]
        data = [_class(at, labels, row) for at, row in enumerate(rows.rows)]
        answer = {"id": f"classify-{uuid.uuid4().hex}", "object": "list", "model": model.name, "data": data}
        return json_response(
            answer | {"usage": _usage(rows.total_tokens)} | ({"warnings": warnings} if warnings else {})
        )

    async def cohere_embed(self, request: Request) -> Response:
        body, warnings = body_of(await self._gateway.fields(request), bodies.CohereEmbed)
        if body.texts is None:
            raise InvalidRequestError("texts must be given; inputs of other kinds are not read", param="texts")
        model = self._model(body)
        rows = await encoding.embed(
            self._gateway,
            request,
            model,
            body.texts,
            param="texts",
            dimensions=body.output_dimension,
            truncate=body.truncate != "NONE",
            truncate_left=body.truncate == "START",
        )
        made = {kind: [_packed(row, kind) for row in rows.rows] for kind in body.embedding_types}
        meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": rows.total_tokens}}
        meta |= {"warnings": warnings} if warnings else {}
        answer = {"id": uuid.uuid4().hex, "embeddings": made, "texts": body.texts, "meta": meta}
        return json_response(answer | {"response_type": "embeddings_by_type"})

    async def llama_embedding(self, request: Request) -> Response:
        body, _ = body_of(await self._gateway.fields(request), bodies.LlamaEmbedding)
        given = body.content if body.content is not None else body.input
        if given is None:
            raise InvalidRequestError("content must be given", param="content")
        if body.embd_normalize not in (-1, 2):
            raise InvalidRequestError("embd_normalize must be 2 (length one) or -1 (as it is)", param="embd_normalize")
        rows = await encoding.embed(
            self._gateway,
            request,
            self._model(body),
            inputs_of(given, "content"),
            param="content",
            normalize=body.embd_normalize == 2,
        )
        return json_response([{"index": at, "embedding": [row.tolist()]} for at, row in enumerate(rows.rows)])


def _answered(answer: dict[str, Any], warnings: list[str]) -> Response:
    return json_response({**answer, "warnings": warnings} if warnings else answer)


def _usage(num_tokens: int) -> dict[str, int]:
    return {"prompt_tokens": num_tokens, "total_tokens": num_tokens}


def _base64(row: Vector) -> str:
    return base64.b64encode(row.tobytes()).decode("ascii")


def _by_score(labels: list[str], row: Vector) -> list[dict[str, Any]]:
    scored = [{"label": label, "score": value} for label, value in zip(labels, row, strict=True)]
    return sorted(scored, key=lambda one: -float(one["score"]))


def _class(index: int, labels: list[str], row: Vector) -> dict[str, Any]:
    label = labels[max(range(len(row)), key=row.__getitem__)]
    return {"index": index, "label": label, "probs": row.tolist(), "num_classes": len(row)}


def _tei_hit(index: int, score: float, text: str, with_text: bool) -> dict[str, Any]:
    return {"index": index, "score": score} | ({"text": text} if with_text else {})


def _hit(index: int, score: float, text: str, with_text: bool) -> dict[str, Any]:
    return {"index": index, "relevance_score": score} | ({"document": {"text": text}} if with_text else {})


def _packed(row: Vector, kind: str) -> Any:
    """Cohere's types. int8: of values from -1 to 1 in steps of 1/127; binary: a bit for each value above 0."""
    if kind == "float":
        return row.tolist()
    if kind == "base64":
        return _base64(row)
    if kind in ("int8", "uint8"):
        steps = [round(max(-1.0, min(1.0, value)) * 127) for value in row]
        return steps if kind == "int8" else [step + 128 for step in steps]
    bits = [value > 0 for value in row]
    packed = [sum(bit << (7 - at) for at, bit in enumerate(bits[i : i + 8])) for i in range(0, len(bits), 8)]
    return packed if kind == "ubinary" else [value - 128 for value in packed]
