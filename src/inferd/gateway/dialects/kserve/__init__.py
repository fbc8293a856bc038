"""KServe's inference protocol, version 2, with Triton's extensions: tensors as JSON or binary, and text generation."""

from inferd.gateway.dialects.kserve.openapi import paths
from inferd.gateway.dialects.kserve.routes import routes

__all__ = ["paths", "routes"]
