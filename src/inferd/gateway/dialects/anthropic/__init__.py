"""Anthropic's Messages: wire JSON to turns of a chat, and what a model writes to blocks of content."""

from inferd.gateway.dialects.anthropic.openapi import paths
from inferd.gateway.dialects.anthropic.routes import routes

__all__ = ["paths", "routes"]
