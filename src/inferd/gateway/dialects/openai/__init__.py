"""OpenAI's chat and text completions with vLLM's additions: wire JSON to commands, token events to wire JSON."""

from inferd.gateway.dialects.openai.answer import Answer, WholeAnswer
from inferd.gateway.dialects.openai.bodies import decode
from inferd.gateway.dialects.openai.call import Call, detokenize_ids, parse, tokenize_prompt
from inferd.gateway.dialects.openai.chunks import ChunkStream, to_sse

__all__ = [
    "Answer",
    "Call",
    "ChunkStream",
    "WholeAnswer",
    "decode",
    "detokenize_ids",
    "parse",
    "to_sse",
    "tokenize_prompt",
]
