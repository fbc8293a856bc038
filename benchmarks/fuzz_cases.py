"""What fuzz_http.py sends: bodies that are good for each kind of route, and the ways in which they are spoilt."""

from __future__ import annotations

import copy
import gzip
import json
import random
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

JSON_TYPE = {"content-type": "application/json"}
MESSAGES = [{"role": "user", "content": "hi"}]
TENSOR = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
TGI = {"inputs": "hi", "parameters": {"max_new_tokens": 1}}
# the first pattern that fits a route's path; others get {}
GOOD: tuple[tuple[str, Any], ...] = (
    ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 1}),
    ("/v1/completions|/completions|/completion", {"prompt": "hi", "max_tokens": 1, "n_predict": 1}),
    ("/v1/messages", {"model": "smollm2", "messages": MESSAGES, "max_tokens": 1}),
    ("/v1/messages/count_tokens", {"model": "smollm2", "messages": MESSAGES}),
    ("/v1/responses", {"input": "hi", "max_output_tokens": 16}),
    ("/v1/responses/input_tokens", {"input": "hi"}),
    ("/v1/batches", {"input_file_id": "file-none", "endpoint": "/v1/completions", "completion_window": "24h"}),
    ("/api/chat", {"model": "smollm2", "messages": MESSAGES, "stream": False, "options": {"num_predict": 1}}),
    ("/api/generate", {"model": "smollm2", "prompt": "hi", "stream": False, "options": {"num_predict": 1}}),
    ("/api/embed", {"model": "minilm", "input": "hi"}),
    ("/api/embeddings", {"model": "minilm", "prompt": "hi"}),
    ("/api/show", {"model": "smollm2"}),
    ("/api/pull", {"model": "nothing-known", "stream": True}),
    ("/generate|/generate_stream|/", TGI),
    ("/invocations", {**TGI, "model": "smollm2"}),
    ("/vertex", {"instances": [TGI]}),
    ("/chat_tokenize|/apply-template", {"messages": MESSAGES}),
    ("/infill", {"input_prefix": "a", "input_suffix": "b", "n_predict": 1}),
    (".*/detokenize", {"tokens": [1]}),
    (".*/tokenize", {"prompt": "hi"}),
    ("/models/(un)?load", {"model": "smollm2"}),
    (".*embeddings|/pooling|/embedding", {"model": "minilm", "input": "hi"}),
    ("/embed(_all|_sparse)?|/predict", {"inputs": "hi"}),
    ("/similarity", {"inputs": {"source_sentence": "hi", "sentences": ["ho"]}}),
    (".*/score", {"model": "minilm", "text_1": "hi", "text_2": "ho"}),
    (".*/classify", {"model": "minilm", "input": "hi"}),
    ("/v2/embed", {"model": "minilm", "texts": ["hi"], "input_type": "search_query"}),
    (".*rerank(ing)?", {"model": "minilm", "query": "hi", "documents": ["ho", "hi"], "texts": ["ho"]}),
    (".*/infer", {"inputs": [TENSOR]}),
    ("/v2/models/.*generate.*", {"text_input": "hi", "parameters": {"max_tokens": 1}}),
    ("/v1/pipelines/.*", {"input": [{"a": 1, "b": 2, "c": 3}]}),
    (".*/documents", {"documents": [{"name": "a", "text": "A cat sleeps."}]}),
    ("/v1/rag/search", {"collection": "docs", "query": "hi"}),
    ("/v1/rag/answer", {"collection": "docs", "query": "hi", "max_tokens": 1}),
    ("/v1/load_lora_adapter", {"lora_name": "a", "lora_path": "a"}),
    ("/v1/unload_lora_adapter", {"lora_name": "a"}),
    ("/inferd/plan", {"model": "smollm2"}),
)
NUMBERS = (
    -1, 0, 1, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, 10**30, 10**400, -(2**63), -(2**70), 1e308, -1e308, 1e-308,
    -0.0, 0.5,
)  # fmt: skip
OTHERS = (
    None, "", "a", [], {}, True, False, [[]], [{}], {"a": None}, "\x00", "\u202e\ufffe", "💥" * 100, [None], ["", 1],
)  # fmt: skip
FIELDS = """n temperature top_p top_k min_p typical_p seed stop stop_token_ids ignore_eos max_tokens min_tokens logprobs
    top_logprobs prompt_logprobs presence_penalty frequency_penalty repetition_penalty logit_bias allowed_token_ids
    bad_words skip_special_tokens include_stop_str_in_output stream stream_options priority cache_salt
    truncate_prompt_tokens return_token_ids return_tokens_as_token_ids add_special_tokens add_generation_prompt
    continue_final_message chat_template_kwargs echo best_of suffix tools tool_choice response_format model messages
    prompt tokens user metadata max_completion_tokens return_token_strs modalities unknown_field input inputs options
    parameters format think keep_alive raw images context system thinking stop_sequences previous_response_id include
    instructions store background text reasoning n_predict n_probs samplers grammar json_schema id_slot cache_prompt
    encoding_format dimensions truncate normalize pooling query documents top_n texts query_text return_documents
    collection top_k rerank_model embed_model outputs id lora_name lora_path lora raw_scores prompt_name""".split()
TEXTS = (
    "<|im_end|>" * 50, "{{ ''.__class__ }}", "{% for i in range(10**9) %}x{% endfor %}", "\ud83d", "\x00" * 99,
    "\u0301" * 999, "</s><s>[INST]", "%s%n%x" * 50, "../../etc/passwd", "A" * 100_000, " " * 50_000, "😀" * 5_000,
    "\r\nx-evil: 1\r\n\r\n", "'; DROP TABLE documents; --", "\x1b[2J\x07", "file:///etc/passwd",
)  # fmt: skip
NAMES = (
    "smollm2", "minilm", "linear", "docs", "choose", "1", "none", "..", "../../etc/passwd", "%2e%2e%2f%2e%2e", "%00",
    "%ff%fe", "a" * 5000, "'", "%0d%0ax-evil:1", "ü", "-1", "%", "😀", "a/b/c", "' OR 1=1 --", "con", "~root", ";id",
)  # fmt: skip
_DEEP: dict[str, Any] = {"type": "object"}
for _ in range(60):
    _DEEP = {"type": "object", "properties": {"a": _DEEP}, "required": ["a"]}
SCHEMAS: tuple[Any, ...] = (
    _DEEP,
    {"$ref": "#"},
    {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}}},
    {"$ref": "file:///etc/passwd"},
    {"type": "string", "pattern": "(a|a)*" * 30},
    {"type": "string", "pattern": "(" * 2000},
    {"type": "string", "minLength": 10**9, "maxLength": 10**9},
    {"type": "array", "items": {"type": "integer"}, "minItems": 10**7},
    {"enum": ["x" * 50] * 20_000},
    {"type": "object", "properties": {f"p{i}": {"type": "string", "maxLength": 99} for i in range(3000)}},
    {"allOf": [{"anyOf": [{"const": i} for i in range(200)]}] * 200},
    True, 7, [],
)  # fmt: skip
REGEXES = ("(a+)+$" * 20, "a{1,99999}", "((a{1,99}){1,99}){1,99}", "(?=a)b", "\\p{L}" * 500, "[" * 999, "(?R)", "\x00")
GRAMMARS = ('root ::= root root | "a"', "root ::= " + "(" * 5000, 'root ::= "a"{1,99999}', "start: start", "root ::= x")


@dataclass(frozen=True, slots=True)
class Case:
    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON_TYPE))
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Target:
    """A route: its path with {names}, and its method."""

    template: str
    method: str

    def path(self, rng: random.Random, *, is_odd: bool = False) -> str:
        """With names that mostly exist, or odd ones."""

        def name(found: re.Match[str]) -> str:
            if is_odd:
                return rng.choice(NAMES) if rng.random() < 0.5 else quote(rng.choice(NAMES), safe="")
            return _usual(self.template, found[1])

        return re.sub(r"{(\w+)(?::\w+)?}", name, self.template)

    def good(self) -> Any:
        body = next((body for pattern, body in GOOD if re.fullmatch(pattern, self.template)), {})
        return copy.deepcopy(body)


def _usual(template: str, name: str) -> str:
    if name == "version":
        return "1"
    if name == "model":
        return "smollm2" if "generate" in template or "load" in template else "linear"
    return {"/v1/models/{id:path}": "smollm2", "/v1/pipelines/{name}": "choose"}.get(template, "docs")


def with_fields(rng: random.Random, target: Target) -> Case:
    """One to three fields with a value from the edges of every type."""
    body = target.good()
    for name in rng.sample([*FIELDS, *body], rng.choice((1, 1, 2, 2, 3))):
        body[name] = rng.choice((*NUMBERS, *OTHERS))
    return _json(target.path(rng), body, target.method)


def with_a_place(rng: random.Random, target: Target) -> Case:
    """A value anywhere in a good body becomes another, or is doubled ten thousand times."""
    body = target.good()
    holder, key = rng.choice(list(_places(body)) or [(body, "x")])
    value = rng.choice((*NUMBERS, *OTHERS, *TEXTS, MESSAGES, TENSOR))
    holder[key] = [holder.get(key) if isinstance(holder, dict) else 1] * 10_000 if rng.random() < 0.1 else value
    return _json(target.path(rng), body, target.method)


def with_long_lists(rng: random.Random, target: Target) -> Case:
    body, size = target.good(), rng.choice((17, 129, 1025, 10_000, 200_000))
    lists = [key for key, value in body.items() if isinstance(value, list)] or ["stop", "input", "tools", "prompt"]
    name = rng.choice((*lists, "logit_bias", "stop"))
    item = body[name][0] if isinstance(body.get(name), list) else rng.choice(("a", 1, {}))
    body[name] = {str(i): 1 for i in range(size)} if name == "logit_bias" else [item] * size
    return _json(target.path(rng), body, target.method)


def with_texts(rng: random.Random, target: Target) -> Case:
    body = target.good()
    places = [(holder, key) for holder, key in _places(body) if isinstance(holder[key], str)]
    holder, key = rng.choice(places or [(body, rng.choice(FIELDS))])
    holder[key] = rng.choice(TEXTS)
    return _json(target.path(rng), body, target.method)


def with_structures(rng: random.Random, target: Target) -> Case:
    """Schemas, expressions and grammars that are made to cost, in every field that takes one."""
    body, schema = target.good(), rng.choice(SCHEMAS)
    text = rng.choice((*REGEXES, *GRAMMARS))
    named = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    body |= rng.choice((
        {"response_format": named}, {"format": schema}, {"json_schema": schema}, {"grammar": text},
        {"structured_outputs": {rng.choice(("regex", "grammar")): text}}, {"structured_outputs": {"json": schema}},
        {"tools": [tool], "tool_choice": "required"}, {"tools": [{"name": "f", "input_schema": schema}]},
        {"parameters": {"max_new_tokens": 1, "grammar": {"type": "regex", "value": text}}},
        {"parameters": {"max_new_tokens": 1, "grammar": {"type": "json", "value": schema}}},
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": schema}}},
        {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
    ))  # fmt: skip
    return _json(target.path(rng), body, target.method)


def with_broken_json(rng: random.Random, target: Target) -> Case:
    """Bytes of a good body cut, doubled, swapped or replaced."""
    body = bytearray(json.dumps({**target.good(), "stop": ["x", "é"]}, ensure_ascii=False).encode())
    for _ in range(rng.randint(1, 4)):
        at, change = rng.randrange(len(body)), rng.randrange(4)
        if change == 0:
            del body[at : at + rng.randint(1, 8)]
        elif change == 1:
            body[at:at] = body[at : at + 8] or b"{"
        elif change == 2:
            body[at : at + 1] = bytes([rng.randrange(256)])
        else:
            body[at:at] = rng.choice((b"[" * 5000, b'{"a":' * 2000, b"9" * 5000, b"\\ud800", b"\x00", b"1e999", b"NaN"))
        if not body:
            break
    return Case(target.path(rng), bytes(body), method=target.method)


def with_odd_http(rng: random.Random, target: Target) -> Case:
    method = rng.choice(("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "POST", "TRACE", "PROPFIND"))
    headers = {
        "content-type": rng.choice(("application/json", "text/plain", "", "application/json;charset=utf-16", "a/b;")),
        "content-encoding": rng.choice(("identity", "gzip", "br")),
    }
    name = rng.choice(("x-request-id", "authorization", "x-api-key", "accept", "x-a", "anthropic-version", "origin"))
    headers[name] = rng.choice(("a" * 5000, "Bearer", "é"))
    return Case(target.path(rng), rng.choice((b"", b"{}", json.dumps(target.good()).encode())), headers, method)


def with_odd_names(rng: random.Random, target: Target) -> Case:
    query = rng.choice(("", "?limit=-1", "?limit=" + "9" * 5000, "?after=%00", "?order=x&limit=1e3", "?model=%ff&a&&="))
    return _json(target.path(rng, is_odd=True) + query, target.good(), target.method)


def with_binary(rng: random.Random, target: Target) -> Case:
    """Tensors behind the JSON, with lengths that lie; bodies that unpack to far more than they are."""
    infer = "/v2/models/linear/infer"
    size = rng.choice((12, 0, 11, 2**31 - 1, 2**40, -1, "12", None))
    shape = rng.choice(([1, 3], [2**31 - 1, 2**31 - 1], [-1, 3], [0, 3], [], [1] * 99, [3, 2**30]))
    head = json.dumps({
        "inputs": [{"name": "x", "shape": shape, "datatype": rng.choice(("FP32", "BYTES", "BOOL", "FP16", "X")),
                    "parameters": {"binary_data_size": size}}],
        "parameters": {"binary_data_output": True},
    }).encode()  # fmt: skip
    length = rng.choice((len(head), 0, len(head) + 5, 10**30, "-1", "x"))
    headers = {"inference-header-content-length": str(length), "content-type": "application/octet-stream"}
    body = head + rng.choice((struct.pack("<3f", 1, 2, 3), b"", b"\xff" * 4096, struct.pack("<I", 2**32 - 1)))
    kind = rng.randrange(5)
    if kind == 0:
        headers["content-encoding"], body = "gzip", gzip.compress(body)
    elif kind == 1:
        headers["content-encoding"], body = "gzip", gzip.compress(b" " * 2**26)
    elif kind == 2:
        headers["content-encoding"], body = "deflate", zlib.compress(b"[" * 2**24) + b"tail"
    elif kind == 3:
        headers["content-encoding"], body = "gzip", gzip.compress(body)[:-4]
    return Case(infer, body, headers)


def with_forms(rng: random.Random, target: Target) -> Case:
    """Uploads of files: broken forms, odd names, lines that are no requests."""
    name = rng.choice(("a.jsonl", "../../x", "\x00", "a" * 9000, "", "é\u202e", 'a"b'))
    content = rng.choice((b"", b"{}\n" * 1000, b"\xff\xfe", b"\x00" * 10_000, json.dumps({"custom_id": "1"}).encode()))
    purpose = rng.choice((b"batch", b"batch", b"fine-tune", b"\xff", b"x" * 100_000))
    parts = [
        b'--B\r\ncontent-disposition: form-data; name="purpose"\r\n\r\n' + purpose,
        b'--B\r\ncontent-disposition: form-data; name="file"; filename="' + name.encode() + b'"\r\n\r\n' + content,
    ]
    rng.shuffle(parts)
    if rng.random() < 0.3:
        parts *= rng.choice((0, 2, 100))
    body = b"\r\n".join(parts) + rng.choice((b"\r\n--B--\r\n", b"", b"\r\n--B\r\n" * 1000))
    kind = rng.choice(("multipart/form-data; boundary=B", "multipart/form-data", "multipart/form-data; boundary="))
    return Case("/v1/files", body, {"content-type": kind})


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (dict or list, key) in a body."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield value, key
        yield from _places(inner)


def _json(path: str, body: Any, method: str) -> Case:
    return Case(path, json.dumps(body).encode(), method=method)


_KINDS: tuple[tuple[Callable[[random.Random, Target], Case], int], ...] = (
    (with_fields, 28), (with_a_place, 20), (with_broken_json, 12), (with_texts, 8), (with_odd_http, 8),
    (with_odd_names, 8), (with_binary, 6), (with_structures, 5), (with_long_lists, 3), (with_forms, 2),
)  # fmt: skip


def cases(num_requests: int, seed: int, targets: Sequence[Target]) -> Iterator[Case]:
    """One good request to every route, then spoilt ones; those with a body are drawn six times as often."""
    rng = random.Random(seed)
    for target in targets:
        yield _json(target.path(rng), target.good(), target.method)
    makers, weights = zip(*_KINDS, strict=True)
    for _ in range(num_requests - len(targets)):
        [target] = rng.choices(targets, [6 if target.method == "POST" else 1 for target in targets])
        yield rng.choices(makers, weights)[0](rng, target)
