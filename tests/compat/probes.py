"""What each dialect can do, asked of a running server: the compatibility table is made of the answers.

A cell is a request and a check of its answer. "yes": it does what was asked. "refused": the server names the field and
says no. A dialect that has no word for a feature has no cell.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

Check = Callable[[Any], bool]
CHAT = [{"role": "user", "content": "Name a color."}]
SCHEMA = {
    "type": "object",
    "properties": {"color": {"enum": ["red", "blue"]}},
    "required": ["color"],
    "additionalProperties": False,
}
FUNCTION = {"name": "paint", "description": "Paints.", "parameters": SCHEMA}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@dataclass(frozen=True, slots=True)
class Cell:
    """events: the answer is a stream; check gets the list of its events then."""

    path: str
    body: dict[str, Any]
    check: Check
    events: bool = False


@dataclass(frozen=True, slots=True)
class Dialect:
    """text: of a whole answer."""

    path: str
    base: dict[str, Any]
    text: Callable[[Any], str]

    def cell(self, check: Check | None = None, path: str = "", *, events: bool = False, **fields: Any) -> Cell:
        return Cell(path or self.path, {**self.base, **fields}, check or (lambda a: bool(self.text(a))), events)


def is_schema_json(text: str) -> bool:
    value = json.loads(text)
    return set(value) == {"color"} and value["color"] in ("red", "blue")


OPENAI = Dialect(
    "/v1/chat/completions",
    {"messages": CHAT, "max_tokens": 12, "temperature": 0},
    lambda a: a["choices"][0]["message"]["content"] or "",
)
COMPLETIONS = Dialect(
    "/v1/completions", {"prompt": "A color:", "max_tokens": 12, "temperature": 0}, lambda a: a["choices"][0]["text"]
)
RESPONSES = Dialect(
    "/v1/responses",
    {"input": "Name a color.", "max_output_tokens": 24, "temperature": 0},
    lambda a: "".join(c["text"] for o in a["output"] if o["type"] == "message" for c in o["content"]),
)
ANTHROPIC = Dialect(
    "/v1/messages",
    {"messages": CHAT, "max_tokens": 12, "temperature": 0},
    lambda a: "".join(c["text"] for c in a["content"] if c["type"] == "text"),
)
OLLAMA = Dialect(
    "/api/chat",
    {"model": "smollm2", "messages": CHAT, "stream": False, "options": {"num_predict": 12, "temperature": 0}},
    lambda a: a["message"]["content"],
)
OLLAMA_TEXT = Dialect(
    "/api/generate",
    {"model": "smollm2", "prompt": "A color:", "stream": False, "options": {"num_predict": 12, "temperature": 0}},
    lambda a: a["response"],
)
TGI = Dialect("/generate", {"inputs": "A color:"}, lambda a: a["generated_text"])
LLAMA = Dialect("/completion", {"prompt": "A color:", "n_predict": 12, "temperature": 0}, lambda a: a["content"])
KSERVE = Dialect(
    "/v2/models/smollm2/generate",
    {"text_input": "A color:", "parameters": {"max_tokens": 12}},
    lambda a: a["text_output"],
)


def options(**more: Any) -> dict[str, Any]:
    return {"num_predict": 12, "temperature": 0, **more}


def parameters(**more: Any) -> dict[str, Any]:
    return {"max_new_tokens": 12, **more}


def is_stream(events: Any) -> bool:
    return len(events) > 3


# dialect -> feature -> cell
CELLS: dict[str, dict[str, Cell]] = {
    "OpenAI chat": {
        "text": OPENAI.cell(),
        "stream": OPENAI.cell(is_stream, events=True, stream=True),
        "stop strings": OPENAI.cell(lambda a: a["choices"][0]["finish_reason"] in ("stop", "length"), stop=["e"]),
        "seed": OPENAI.cell(seed=3, temperature=1),
        "several choices": OPENAI.cell(lambda a: len(a["choices"]) == 2, n=2, temperature=1),
        "logprobs": OPENAI.cell(lambda a: len(a["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 2,
                                logprobs=True, top_logprobs=2),
        "JSON schema": OPENAI.cell(
            lambda a: is_schema_json(OPENAI.text(a)), max_tokens=64,
            response_format={"type": "json_schema", "json_schema": {"name": "c", "schema": SCHEMA, "strict": True}}),
        "regex or grammar": OPENAI.cell(lambda a: OPENAI.text(a) in ("red", "blue"),
                                        structured_outputs={"regex": "red|blue"}),
        "tools": OPENAI.cell(
            lambda a: is_schema_json(a["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]),
            tools=[{"type": "function", "function": FUNCTION}], tool_choice="required", max_tokens=96),
        "images": OPENAI.cell(messages=[{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}]}]),
        "token ids of a text": Cell("/tokenize", {"prompt": "A color"}, lambda a: a["count"] > 0),
        "vectors": Cell("/v1/embeddings", {"model": "minilm", "input": "A"},
                        lambda a: len(a["data"][0]["embedding"]) == 384),
        "reranking": Cell("/v1/rerank", {"model": "minilm", "query": "a", "documents": ["b"]},
                          lambda a: bool(a["results"])),
    },
    "OpenAI completions": {
        "text": COMPLETIONS.cell(),
        "stream": COMPLETIONS.cell(is_stream, events=True, stream=True),
        "stop strings": COMPLETIONS.cell(lambda a: a["choices"][0]["finish_reason"] in ("stop", "length"), stop=["e"]),
        "seed": COMPLETIONS.cell(seed=3, temperature=1),
        "several choices": COMPLETIONS.cell(lambda a: len(a["choices"]) == 2, n=2, temperature=1),
        "logprobs": COMPLETIONS.cell(lambda a: len(a["choices"][0]["logprobs"]["token_logprobs"]) > 1, logprobs=1),
        "JSON schema": COMPLETIONS.cell(lambda a: is_schema_json(COMPLETIONS.text(a)), max_tokens=64,
                                        structured_outputs={"json": SCHEMA}),
        "regex or grammar": COMPLETIONS.cell(lambda a: COMPLETIONS.text(a) in ("red", "blue"),
                                             structured_outputs={"regex": "red|blue"}),
    },
    "Responses": {
        "text": RESPONSES.cell(),
        "stream": RESPONSES.cell(is_stream, events=True, stream=True),
        "JSON schema": RESPONSES.cell(lambda a: is_schema_json(RESPONSES.text(a)), max_output_tokens=64, text={
            "format": {"type": "json_schema", "name": "c", "schema": SCHEMA, "strict": True}}),
        "tools": RESPONSES.cell(
            lambda a: is_schema_json(next(o["arguments"] for o in a["output"] if o["type"] == "function_call")),
            tools=[{"type": "function", **FUNCTION}], tool_choice="required", max_output_tokens=96),
        "images": RESPONSES.cell(input=[{"role": "user", "content": [
            {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"}]}]),
        "token ids of a text": RESPONSES.cell(lambda a: a["input_tokens"] > 0, "/v1/responses/input_tokens"),
    },
    "Anthropic": {
        "text": ANTHROPIC.cell(),
        "stream": ANTHROPIC.cell(is_stream, events=True, stream=True),
        "stop strings": ANTHROPIC.cell(lambda a: a["stop_reason"] in ("stop_sequence", "max_tokens", "end_turn"),
                                       stop_sequences=["e"]),
        "tools": ANTHROPIC.cell(
            lambda a: set(next(c["input"] for c in a["content"] if c["type"] == "tool_use")) == {"color"},
            tools=[{"name": "paint", "input_schema": SCHEMA}], tool_choice={"type": "any"}, max_tokens=96),
        "images": ANTHROPIC.cell(messages=[{"role": "user", "content": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}]}]),
        "token ids of a text": Cell("/v1/messages/count_tokens", {"messages": CHAT, "model": "smollm2"},
                                    lambda a: a["input_tokens"] > 0),
    },
    "Ollama chat": {
        "text": OLLAMA.cell(),
        "stream": OLLAMA.cell(is_stream, events=True, stream=True),
        "stop strings": OLLAMA.cell(lambda a: a["done"], options=options(stop=["e"])),
        "seed": OLLAMA.cell(options=options(seed=3, temperature=1)),
        "logprobs": OLLAMA.cell(lambda a: bool(a["logprobs"]), logprobs=True, top_logprobs=2),
        "JSON schema": OLLAMA.cell(lambda a: is_schema_json(OLLAMA.text(a)), format=SCHEMA,
                                   options=options(num_predict=64)),
        "tools": OLLAMA.cell(lambda a: a["done"], tools=[{"type": "function", "function": FUNCTION}]),
        "images": OLLAMA.cell(messages=[{**CHAT[0], "images": [PIXEL]}]),
        "vectors": Cell("/api/embed", {"model": "minilm", "input": "A"}, lambda a: len(a["embeddings"][0]) == 384),
    },
    "Ollama generate": {
        "text": OLLAMA_TEXT.cell(),
        "stream": OLLAMA_TEXT.cell(is_stream, events=True, stream=True),
        "stop strings": OLLAMA_TEXT.cell(lambda a: a["done"], options=options(stop=["e"])),
        "seed": OLLAMA_TEXT.cell(options=options(seed=3, temperature=1)),
        "JSON schema": OLLAMA_TEXT.cell(lambda a: is_schema_json(OLLAMA_TEXT.text(a)), format=SCHEMA,
                                        options=options(num_predict=64)),
        "images": OLLAMA_TEXT.cell(images=[PIXEL]),
    },
    "TGI": {
        "text": TGI.cell(parameters=parameters()),
        "stream": TGI.cell(is_stream, "/generate_stream", events=True, parameters=parameters()),
        "stop strings": TGI.cell(parameters=parameters(stop=["e"])),
        "seed": TGI.cell(parameters=parameters(seed=3, do_sample=True)),
        "several choices": TGI.cell(parameters=parameters(best_of=2, do_sample=True)),
        "logprobs": TGI.cell(lambda a: a["details"]["tokens"][0]["logprob"] <= 0, parameters=parameters(details=True)),
        "JSON schema": TGI.cell(lambda a: is_schema_json(TGI.text(a)),
                                parameters=parameters(max_new_tokens=64, grammar={"type": "json", "value": SCHEMA})),
        "regex or grammar": TGI.cell(lambda a: TGI.text(a) in ("red", "blue"),
                                     parameters=parameters(grammar={"type": "regex", "value": "red|blue"})),
        "token ids of a text": Cell("/tokenize", {"inputs": "A color"}, lambda a: a[0]["start"] == 0),
        "vectors": Cell("/embed", {"model": "minilm", "inputs": "A"}, lambda a: len(a[0]) == 384),
        "reranking": Cell("/rerank", {"model": "minilm", "query": "a", "texts": ["b"]}, lambda a: a[0]["index"] == 0),
    },
    "llama-server": {
        "text": LLAMA.cell(),
        "stream": LLAMA.cell(is_stream, events=True, stream=True),
        "stop strings": LLAMA.cell(lambda a: a["stop"], stop=["e"]),
        "seed": LLAMA.cell(seed=3, temperature=1),
        "logprobs": LLAMA.cell(lambda a: bool(a["completion_probabilities"]), n_probs=2),
        "JSON schema": LLAMA.cell(lambda a: is_schema_json(LLAMA.text(a)), json_schema=SCHEMA, n_predict=64),
        "regex or grammar": LLAMA.cell(lambda a: LLAMA.text(a) in ("red", "blue"), grammar='root ::= "red" | "blue"'),
        "token ids of a text": Cell("/tokenize", {"content": "A color"}, lambda a: bool(a["tokens"])),
        "vectors": Cell("/embedding", {"model": "minilm", "content": "A"}, lambda a: len(a[0]["embedding"][0]) == 384),
        "reranking": Cell("/reranking", {"model": "minilm", "query": "a", "documents": ["b"]},
                          lambda a: bool(a["results"])),
    },
    "KServe v2": {
        "text": KSERVE.cell(),
        "stream": KSERVE.cell(is_stream, "/v2/models/smollm2/generate_stream", events=True),
    },
}  # fmt: skip


def ask(client: httpx.Client, cell: Cell) -> str:
    """The cell's word; raises AssertionError for an answer that is neither what was asked nor a clear no."""
    reply = client.post(cell.path, json=cell.body)
    if reply.status_code == 200:
        answer = events_of(reply.text) if cell.events else reply.json()
        assert cell.check(answer), f"{cell.path} {cell.body}: {str(answer)[:500]}"
        return "yes"
    assert 400 <= reply.status_code < 500 or reply.status_code == 501, (
        f"{cell.path}: {reply.status_code} {reply.text[:300]}"
    )
    return "refused"


def events_of(text: str) -> list[str]:
    """Of server-sent events, or lines of JSON."""
    return [line for line in text.splitlines() if line.startswith(("data:", "{"))]


def table(client: httpx.Client) -> dict[str, dict[str, str]]:
    """dialect -> feature -> "yes" or "refused"."""
    return {dialect: {name: ask(client, cell) for name, cell in cells.items()} for dialect, cells in CELLS.items()}
