"""The bodies of the routes for vectors and scores."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from inferd.errors import InvalidRequestError
from inferd.gateway.dialects.fields import check_fields
from inferd.gateway.encoding import Input
from inferd.gateway.json_fields import convert, integral

_HARMLESS = frozenset({"user", "priority", "metadata", "late_chunking", "embedding_type", "max_chunks_per_doc"})
# what would change the answer, and is not done
_REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "images": (([],), "only texts are read"),
    "return_multivector": ((False,), "one vector for each input; POST /embed_all has one for each token"),
    "mm_processor_kwargs": (({},), "only texts are read"),
    "task": (("text-matching", "retrieval.passage", "retrieval.query"), "this model knows no tasks"),
}
Texts = str | list[Any]
T = TypeVar("T", bound="Body")


def _floats() -> list[Any]:
    return ["float"]


class Body(msgspec.Struct, kw_only=True):
    model: str | None = None


class Embeddings(Body, kw_only=True):
    """OpenAI's, and vLLM's /pooling."""

    input: Texts
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    truncate_prompt_tokens: int | None = None  # -1: cut what is too long
    add_special_tokens: bool = True


class Embed(Body, kw_only=True):
    """TEI's."""

    inputs: Texts
    normalize: bool = True
    truncate: bool = False
    truncation_direction: Literal["right", "left", "Right", "Left"] = "right"
    prompt_name: str | None = None
    dimensions: int | None = None


class Predict(Body, kw_only=True):
    inputs: Texts
    raw_scores: bool = False
    truncate: bool = False
    truncation_direction: Literal["right", "left", "Right", "Left"] = "right"


class SimilarityInputs(msgspec.Struct, kw_only=True):
    source_sentence: str
    sentences: list[str]


class Similarity(Body, kw_only=True):
    inputs: SimilarityInputs
    parameters: dict[str, Any] = {}


class Rerank(Body, kw_only=True):
    """`texts`: TEI's; `documents`: all others'."""

    query: str
    texts: list[str] | None = None
    documents: list[str | dict[str, Any]] | None = None
    top_n: int | None = None
    raw_scores: bool = False
    return_text: bool = False
    return_documents: bool | None = None
    truncate: bool = False
    truncate_prompt_tokens: int | None = None
    truncation_direction: Literal["right", "left", "Right", "Left"] = "right"
    max_tokens_per_doc: int | None = None


class Score(Body, kw_only=True):
    text_1: str | list[str]
    text_2: str | list[str]
    truncate_prompt_tokens: int | None = None


class Classify(Body, kw_only=True):
    input: str | list[str]
    truncate_prompt_tokens: int | None = None


class CohereEmbed(Body, kw_only=True):
    texts: list[str] | None = None
    inputs: list[dict[str, Any]] | None = None
    input_type: str | None = None
    embedding_types: list[Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]] = msgspec.field(
        default_factory=_floats
    )
    output_dimension: int | None = None
    truncate: Literal["NONE", "START", "END"] = "END"


class LlamaEmbedding(Body, kw_only=True):
    content: Texts | None = None
    input: Texts | None = None
    embd_normalize: int = 2


def body_of(fields: dict[str, Any], kind: type[T]) -> tuple[T, list[str]]:
    """The body, and warnings of fields that nobody knows. Raises InvalidRequestError naming a field."""
    warnings = check_fields(fields, honoured=frozenset(kind.__struct_fields__), harmless=_HARMLESS, refused=_REFUSED)
    return convert(integral(fields), kind), list(warnings)


def inputs_of(value: Texts, param: str) -> list[Input]:
    """A text, texts, ids of one input, or of several."""
    if isinstance(value, str):
        return [value]
    if not value:
        raise InvalidRequestError(f"{param} must not be empty", param=param)
    if all(map(_is_id, value)):
        return [value]
    if all(isinstance(one, str) for one in value):
        return list(value)
    if all(isinstance(one, list) and one and all(map(_is_id, one)) for one in value):
        return list(value)
    raise InvalidRequestError(f"{param} must be a text, texts, token ids, or lists of token ids", param=param)


def pairs_of(value: Texts, param: str) -> list[Input]:
    """TEI's inputs of /predict: a text, [text, text] for a pair, or a list of [text] and [text, text]."""
    if isinstance(value, str):
        return [value]
    if value and all(isinstance(one, str) for one in value):
        return [_text_or_pair(value, param)]
    if not value or not all(isinstance(one, list) for one in value):
        raise InvalidRequestError(f"{param} must be a text, a pair of texts, or a list of lists of them", param=param)
    return [_text_or_pair(one, param) for one in value]


def _text_or_pair(value: list[Any], param: str) -> Input:
    if not 1 <= len(value) <= 2 or not all(isinstance(one, str) for one in value):
        raise InvalidRequestError(f"{param}: an input is one text or a pair of texts", param=param)
    return value[0] if len(value) == 1 else (value[0], value[1])


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def cuts(truncate_prompt_tokens: int | None) -> bool:
    """Whether vLLM's field asks for a cut; only the model's own length is offered."""
    if truncate_prompt_tokens not in (None, -1):
        message = f"truncate_prompt_tokens must be -1, the length of the model, got {truncate_prompt_tokens}"
        raise InvalidRequestError(message, param="truncate_prompt_tokens")
    return truncate_prompt_tokens == -1


def document_text(document: str | dict[str, Any]) -> str:
    text = document if isinstance(document, str) else document.get("text")
    if not isinstance(text, str):
        raise InvalidRequestError("documents: each is a text, or an object with a text", param="documents")
    return text
