"""The routes of vectors and scores for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from inferd.gateway.schemas import FLAG, INT32, TEXT, Schema, array, integer, one_of, post

_IDS: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": INT32}, "minItems": 1}
_STRINGS: Schema = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_TEXTS: Schema = {"anyOf": [{"type": "string"}, _STRINGS, _IDS, {"type": "array", "items": _IDS, "minItems": 1}]}
_TEXT_OR_TEXTS: Schema = {"anyOf": [{"type": "string"}, _STRINGS]}
_CUT: Schema = {"enum": [-1, None]}
_SIDE = one_of("left", "right", "Left", "Right")
_VECTORS: Schema = {"type": "array", "items": {"type": "array"}}
_LIST: Schema = {"type": "object", "required": ["data"], "properties": {"data": {"type": "array"}}}
_RESULTS: Schema = {
    "anyOf": [
        {"type": "object", "required": ["results"], "properties": {"results": {"type": "array"}}},
        {"type": "array", "items": {"type": "object", "required": ["index", "score"]}},
    ]
}
_TGI_ERROR: Schema = {
    "type": "object",
    "required": ["error", "error_type"],
    "properties": {"error": {"type": "string"}, "error_type": {"type": "string"}},
}


def _body(required: list[str], **properties: Schema) -> Schema:
    return {"type": "object", "required": required, "properties": {"model": TEXT, **properties}}


_EMBEDDINGS = _body(
    ["input"],
    input=_TEXTS,
    encoding_format=one_of("float", "base64"),
    dimensions=integer(1, INT32),
    truncate_prompt_tokens=_CUT,
)
_EMBED = _body(
    ["inputs"],
    inputs=_TEXTS,
    normalize=FLAG,
    truncate=FLAG,
    truncation_direction=_SIDE,
    prompt_name=TEXT,
    dimensions=integer(1, INT32),
)
_PREDICT = _body(["inputs"], inputs={}, raw_scores=FLAG, truncate=FLAG, truncation_direction=_SIDE)
_SENTENCES: Schema = {
    "type": "object",
    "required": ["source_sentence", "sentences"],
    "properties": {"source_sentence": {"type": "string"}, "sentences": _STRINGS},
}
_DOCUMENT: Schema = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
    ]
}
_RERANK = _body(
    ["query"],
    query={"type": "string"},
    texts=array({"type": "string"}, minItems=1),
    documents=array(_DOCUMENT, minItems=1),
    top_n=integer(1, INT32),
    raw_scores=FLAG,
    return_text=FLAG,
    return_documents=FLAG,
    truncate=FLAG,
    truncate_prompt_tokens=_CUT,
    truncation_direction=_SIDE,
)
_COHERE = _body(
    ["texts"],
    texts=_STRINGS,
    input_type=TEXT,
    embedding_types=array(one_of("float", "int8", "uint8", "binary", "ubinary", "base64"), minItems=1),
    output_dimension=integer(1, INT32),
    truncate=one_of("NONE", "START", "END"),
)


def paths() -> dict[str, Any]:
    embeddings = post("A vector for each input", _EMBEDDINGS, _LIST)
    rerank = post("Documents by how well they fit a query", _RERANK, _RESULTS)
    score = post(
        "How well texts fit each other",
        _body(["text_1", "text_2"], text_1=_TEXT_OR_TEXTS, text_2=_TEXT_OR_TEXTS, truncate_prompt_tokens=_CUT),
        _LIST,
    )
    classify = post("The labels of texts", _body(["input"], input=_TEXT_OR_TEXTS, truncate_prompt_tokens=_CUT), _LIST)
    llama = _body([], content=_TEXTS, input=_TEXTS, embd_normalize={"enum": [-1, 2, None]})
    similar = _body(["inputs"], inputs=_SENTENCES, parameters={"type": ["object", "null"]})
    return {
        **dict.fromkeys(("/v1/embeddings", "/embeddings", "/pooling"), embeddings),
        **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank", "/reranking", "/v1/reranking"), rerank),
        **dict.fromkeys(("/score", "/v1/score"), score),
        **dict.fromkeys(("/classify", "/v1/classify"), classify),
        "/embed": post("Vectors in TEI's shape", _EMBED, _VECTORS, _TGI_ERROR),
        "/embed_all": post("A vector for each token", _EMBED, _VECTORS, _TGI_ERROR),
        "/predict": post("The labels of texts in TEI's shape", _PREDICT, {"type": "array"}, _TGI_ERROR),
        "/similarity": post("Cosines of sentences to one", similar, {"type": "array"}, _TGI_ERROR),
        "/v2/embed": post("Vectors in Cohere's shape", _COHERE, {"type": "object", "required": ["embeddings"]}),
        "/embedding": post("Vectors in llama-server's shape", llama, {"type": "array"}),
    }
