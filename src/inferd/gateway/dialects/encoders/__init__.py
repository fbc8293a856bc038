"""Vectors and scores in the shapes of OpenAI, TEI, vLLM, Jina, Cohere and llama-server, over gateway/encoding.py."""

from inferd.gateway.dialects.encoders.openapi import paths
from inferd.gateway.dialects.encoders.routes import routes

__all__ = ["paths", "routes"]
