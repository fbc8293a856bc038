"""OpenAI's files and batches: many requests from a file, answered in what the foreground leaves of the engine."""

from inferd.gateway.dialects.batches.openapi import paths
from inferd.gateway.dialects.batches.routes import routes

__all__ = ["paths", "routes"]
