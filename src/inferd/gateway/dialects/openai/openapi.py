"""The routes of OpenAI's models, chats and completions, and vLLM's for tokens, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from inferd.gateway.dialects.openai.bodies import MAX_TOKEN_ID, ROLES
from inferd.gateway.dialects.openai.call import EFFORTS, MAX_PROMPTS, MAX_SALT_LEN
from inferd.gateway.schemas import (
    FLAG,
    INT32,
    TEXT,
    Schema,
    array,
    get,
    in_path,
    integer,
    listed,
    number,
    one_of,
    optional,
    post,
)
from inferd.gateway.tools import MAX_TOOLS
from inferd.metrics.requests import MAX_TARGET, MIN_TARGET
from inferd.types import (
    MAX_BIAS_ENTRIES,
    MAX_LOGPROBS,
    MAX_N,
    MAX_SEED,
    MAX_STOP_STRING_LEN,
    MAX_STOP_STRINGS,
)

TOKEN_ID: Schema = {"type": "integer", "minimum": 0, "maximum": MAX_TOKEN_ID}
STOP: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_STRING_LEN}
STREAM_OPTIONS = optional(
    "object", properties={"include_usage": {"type": "boolean"}, "continuous_usage_stats": {"type": "boolean"}}
)

SAMPLING: dict[str, Schema] = {
    "n": integer(1, MAX_N),
    "temperature": number(0, 100),
    "top_p": number(0, 1),
    "top_k": integer(-1, INT32),
    "min_p": number(0, 1),
    "typical_p": number(0, 1),
    "seed": integer(-(2**63), MAX_SEED),
    "stop": {"anyOf": [STOP, {"type": "array", "items": STOP, "maxItems": MAX_STOP_STRINGS}, {"type": "null"}]},
    "stop_token_ids": array(TOKEN_ID, maxItems=128),
    "ignore_eos": FLAG,
    "min_tokens": integer(0, INT32),
    "presence_penalty": number(-2, 2),
    "frequency_penalty": number(-2, 2),
    "repetition_penalty": number(0.01, 100),
    "logit_bias": optional(
        "object",
        additionalProperties={"type": "number", "minimum": -100, "maximum": 100},
        propertyNames={"pattern": "^[0-9]{1,10}$"},
        maxProperties=MAX_BIAS_ENTRIES,
    ),
    "allowed_token_ids": array(TOKEN_ID, minItems=1),
    "bad_words": array({"type": "string", "minLength": 1, "maxLength": 256}, maxItems=128),
    "skip_special_tokens": FLAG,
    "include_stop_str_in_output": FLAG,
    "prompt_logprobs": integer(0, MAX_LOGPROBS),
}
FUNCTION: Schema = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-zA-Z0-9_.:/-]{1,128}$"},
        "description": TEXT,
        "parameters": optional("object"),
        "strict": FLAG,
    },
}
TOOL: Schema = {
    "type": "object",
    "required": ["type", "function"],
    "properties": {"type": {"const": "function"}, "function": FUNCTION},
}
TOOL_CHOICE: Schema = {"anyOf": [{"type": "object"}, {"type": ["string", "null"]}]}
JSON_SCHEMA: Schema = {"anyOf": [{"type": "object"}, {"type": ["string", "null"]}]}  # or its text
STRUCTURED_KINDS: dict[str, Schema] = {
    "json": JSON_SCHEMA,
    "regex": TEXT,
    "choice": array({"type": "string"}, minItems=1),
    "grammar": TEXT,
    "json_object": FLAG,
    "structural_tag": JSON_SCHEMA,
}
STRUCTURED: dict[str, Schema] = {
    "response_format": optional(
        "object",
        required=["type"],
        properties={"type": {"enum": ["text", "json_object", "json_schema", "structural_tag"]}},
    ),
    "structured_outputs": optional("object", properties=STRUCTURED_KINDS, additionalProperties=False),
    "guided_json": JSON_SCHEMA,
    "guided_regex": TEXT,
    "guided_choice": array({"type": "string"}, minItems=1),
    "guided_grammar": TEXT,
    "regex": TEXT,
    "ebnf": TEXT,
    "json_schema": JSON_SCHEMA,
    "grammar": TEXT,
}
COMMON: dict[str, Schema] = {
    "model": TEXT,
    "stream": FLAG,
    "stream_options": STREAM_OPTIONS,
    **SAMPLING,
    **STRUCTURED,
    "priority": integer(-(2**63) + 1, 2**63 - 1),
    "cache_salt": optional("string", maxLength=MAX_SALT_LEN),
    "truncate_prompt_tokens": integer(-1, INT32),
    "return_token_ids": FLAG,
    "return_tokens_as_token_ids": FLAG,
    "return_prompt_text": FLAG,
    "return_timings": FLAG,
    "ttft_target": number(MIN_TARGET, MAX_TARGET),
    "itl_target": number(MIN_TARGET, MAX_TARGET),
    "add_special_tokens": FLAG,
    "user": TEXT,
    "metadata": optional("object"),
}
TEXT_PART: Schema = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
}
MESSAGE: Schema = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"enum": list(ROLES)},
        "content": {"anyOf": [{"type": ["string", "null"]}, {"type": "array", "items": TEXT_PART}]},
    },
}
TEMPLATE_FIELDS: dict[str, Schema] = {
    "add_generation_prompt": FLAG,
    "continue_final_message": FLAG,
    "chat_template_kwargs": optional("object"),
}
CHAT: Schema = {
    "type": "object",
    "required": ["messages"],
    "properties": {
        **COMMON,
        "messages": {"type": "array", "items": MESSAGE, "minItems": 1},
        "max_tokens": integer(1, INT32),
        "max_completion_tokens": integer(1, INT32),
        "logprobs": FLAG,
        "top_logprobs": integer(0, MAX_LOGPROBS),
        **TEMPLATE_FIELDS,
        "tools": array(TOOL, maxItems=MAX_TOOLS),
        "tool_choice": TOOL_CHOICE,
        "parallel_tool_calls": FLAG,
        "functions": array(FUNCTION, maxItems=MAX_TOOLS),
        "function_call": TOOL_CHOICE,
        "reasoning_effort": one_of(*EFFORTS),
        "thinking_token_budget": integer(0, INT32),
        "include_reasoning": FLAG,
        "documents": array({"type": "object"}),
    },
}
PROMPT: Schema = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": TOKEN_ID, "minItems": 1},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_PROMPTS},
        {
            "type": "array",
            "items": {"type": "array", "items": TOKEN_ID, "minItems": 1},
            "minItems": 1,
            "maxItems": MAX_PROMPTS,
        },
    ]
}
COMPLETION: Schema = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        **COMMON,
        "prompt": PROMPT,
        "max_tokens": integer(0, INT32),
        "echo": FLAG,
        "logprobs": integer(0, MAX_LOGPROBS),
        "best_of": integer(1, MAX_N),
        "suffix": TEXT,
    },
}
_VLLM_TOKENIZE = {"model": TEXT, "content": {"type": "null"}, "inputs": {"type": "null"}, "add_special_tokens": FLAG}
_VLLM_TOKENIZE |= {"return_token_strs": FLAG, **TEMPLATE_FIELDS}
TOKENIZE: Schema = {  # of three dialects: the field that holds the text says which
    "type": "object",
    "oneOf": [
        {
            "required": ["prompt"],
            "properties": {**_VLLM_TOKENIZE, "prompt": {"type": "string"}, "messages": {"type": "null"}},
        },
        {
            "required": ["messages"],
            "properties": {
                **_VLLM_TOKENIZE,
                "prompt": {"type": "null"},
                "messages": {"type": "array", "items": MESSAGE, "minItems": 1},
                "tools": array(TOOL, maxItems=MAX_TOOLS),
            },
        },
        {
            "required": ["content"],
            "properties": {
                "model": TEXT,
                "content": {"type": "string"},
                **dict.fromkeys(("add_special", "parse_special", "with_pieces"), FLAG),
            },
        },
        {
            "required": ["inputs"],
            "properties": {
                "model": TEXT,
                "content": {"type": "null"},
                "inputs": {"type": "string"},
                "add_special_tokens": FLAG,
                "parameters": optional("object"),
            },
        },
    ],
}
DETOKENIZE: Schema = {
    "type": "object",
    "required": ["tokens"],
    "properties": {"model": TEXT, "tokens": {"type": "array", "items": TOKEN_ID}},
}

MODEL: Schema = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
        "root": {"type": "string"},
        "parent": {"type": "null"},
        "max_model_len": optional("integer"),
    },
}
ANSWER: Schema = {
    "type": "object",
    "required": ["id", "object", "created", "model", "choices", "usage"],
    "properties": {
        "id": {"type": "string"},
        "object": {"enum": ["chat.completion", "text_completion"]},
        "created": {"type": "integer"},
        "model": {"type": "string"},
        "choices": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "finish_reason", "logprobs"],
                "properties": {
                    "index": {"type": "integer"},
                    "finish_reason": {"enum": ["stop", "length", "tool_calls", "function_call"]},
                },
            },
        },
        "usage": {"type": "object", "required": ["prompt_tokens", "completion_tokens", "total_tokens"]},
        "timings": {"type": "object", "additionalProperties": optional("number")},
        "warnings": {"type": "array", "items": {"type": "string"}},
    },
}
_VLLM_TOKENS: Schema = {
    "type": "object",
    "required": ["count", "max_model_len", "tokens", "token_strs"],
    "properties": {
        "count": {"type": "integer"},
        "max_model_len": {"type": "integer"},
        "tokens": {"type": "array", "items": {"type": "integer"}},
        "token_strs": array({"type": "string"}),
    },
}
_LLAMA_TOKENS: Schema = {"type": "object", "required": ["tokens"], "properties": {"tokens": {"type": "array"}}}
_TGI_TOKEN: Schema = {"type": "object", "required": ["id", "text", "start", "stop"]}
TOKENS: Schema = {"anyOf": [_VLLM_TOKENS, _LLAMA_TOKENS, {"type": "array", "items": _TGI_TOKEN}]}
PROMPT_TEXT: Schema = {"type": "object", "required": ["prompt"], "properties": {"prompt": {"type": "string"}}}


def paths() -> dict[str, Any]:
    tokenize = post("Token ids of a text or a chat", TOKENIZE, TOKENS)
    detokenize = post("The text of token ids", DETOKENIZE, PROMPT_TEXT)
    return {
        "/v1/models": get("The models that are served", listed(MODEL)),
        "/v1/models/{id}": in_path(get("One of them", MODEL), "id"),
        "/v1/chat/completions": post("The next message of a chat", CHAT, ANSWER, streams=True),
        "/v1/completions": post("The continuation of a text", COMPLETION, ANSWER, streams=True),
        **dict.fromkeys(("/tokenize", "/v1/tokenize"), tokenize),
        **dict.fromkeys(("/detokenize", "/v1/detokenize"), detokenize),
    }
