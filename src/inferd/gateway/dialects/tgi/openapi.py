"""The routes of TGI for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from inferd.gateway.dialects.tgi.bodies import MAX_STOPS
from inferd.gateway.schemas import FLAG, INT32, TEXT, Schema, array, get, integer, number, optional, post
from inferd.types import MAX_LOGPROBS, MAX_SEED, MAX_STOP_STRING_LEN

_ERROR: Schema = {
    "type": "object",
    "required": ["error", "error_type"],
    "properties": {"error": {"type": "string"}, "error_type": {"type": "string"}},
}
_STOP: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_STRING_LEN}
_PARAMETERS = optional(
    "object",
    properties={
        "temperature": number(0, 100),
        "repetition_penalty": number(0.01, 100),
        "frequency_penalty": number(-2, 2),
        "top_k": integer(-1, INT32),
        "top_p": number(0, 1),
        "typical_p": number(0, 1),
        "do_sample": FLAG,
        "max_new_tokens": integer(1, INT32),
        "return_full_text": FLAG,
        "stop": array(_STOP, maxItems=MAX_STOPS),
        "truncate": integer(1, INT32),
        "details": FLAG,
        "decoder_input_details": FLAG,
        "seed": integer(-(2**63), MAX_SEED),
        "top_n_tokens": integer(0, MAX_LOGPROBS),
        "best_of": {"enum": [1, None]},
        "watermark": {"enum": [False, None]},
        "grammar": optional("object"),
        "adapter_id": TEXT,
    },
)
_TEXT: Schema = {
    "type": "object",
    "required": ["inputs"],
    "properties": {"inputs": {"type": "string", "minLength": 1}, "parameters": _PARAMETERS, "model": TEXT},
}
_EITHER: Schema = {**_TEXT, "properties": {**_TEXT["properties"], "stream": FLAG}}
_INSTANCES: Schema = {
    "type": "object",
    "required": ["instances"],
    "properties": {
        "instances": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        "parameters": optional("object"),
    },
}
_GENERATED: Schema = {"type": "object", "required": ["generated_text"]}
_PREDICTED: Schema = {"type": "object", "required": ["predictions"]}
_CHAT: Schema = {
    "type": "object",
    "required": ["messages"],
    "properties": {"messages": {"type": "array", "minItems": 1, "items": {"type": "object"}}, "model": TEXT},
}
_INFO: Schema = {"type": "object", "required": ["model_id", "max_input_tokens", "max_total_tokens", "version"]}


def paths() -> dict[str, Any]:
    listed: Schema = {"type": "array", "items": _GENERATED, "minItems": 1, "maxItems": 1}
    tokens = {"type": "object", "required": ["tokenize_response", "templated_text"]}
    stream = post("The continuation of a text, token by token", _TEXT, _GENERATED, _ERROR, streams=True)
    root = post("The continuation of a text, whole or token by token", _EITHER, listed, _ERROR, streams=True)
    page = {"text/html": {}, "text/plain": {"schema": {"type": "string"}}}
    root["get"] = {
        "summary": "The dashboard for browsers; for others that this server speaks Ollama's API",
        "responses": {"200": {"description": "Done", "content": page}},
        "security": [],
    }
    return {
        "/": root,
        "/generate": post("The continuation of a text", _TEXT, _GENERATED, _ERROR),
        "/generate_stream": stream,
        "/info": get("What is served, and its limits", _INFO, _ERROR),
        "/chat_tokenize": post("A chat as its template renders it, and its tokens", _CHAT, tokens, _ERROR),
        "/invocations": post("SageMaker's: a text, a chat or instances", {"type": "object"}, {}, _ERROR, streams=True),
        "/vertex": post("Vertex's: a prediction for each instance", _INSTANCES, _PREDICTED, _ERROR),
    }
