"""Ollama's API: chats and texts as lines of JSON, models and what they can do, embeddings, pulls."""

from inferd.gateway.dialects.ollama.openapi import paths
from inferd.gateway.dialects.ollama.routes import routes

__all__ = ["paths", "routes"]
