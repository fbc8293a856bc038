"""OpenAI's Responses: items to turns of a chat, what a model writes to items, and what is kept of both."""

from inferd.gateway.dialects.responses.openapi import paths
from inferd.gateway.dialects.responses.routes import routes

__all__ = ["paths", "routes"]
