"""OpenAI's chat and text completions with vLLM's additions: wire JSON to commands, token events to wire JSON."""

from inferd.gateway.dialects.openai.openapi import paths
from inferd.gateway.dialects.openai.routes import routes

__all__ = ["paths", "routes"]
