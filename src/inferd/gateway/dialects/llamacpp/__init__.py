"""llama-server's own API: completions with its sampling fields, infilling, templates, its properties and slots."""

from inferd.gateway.dialects.llamacpp.openapi import paths
from inferd.gateway.dialects.llamacpp.routes import routes

__all__ = ["paths", "routes"]
