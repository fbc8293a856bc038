"""The API of Hugging Face's text-generation-inference, with its routes for SageMaker and Vertex."""

from inferd.gateway.dialects.tgi.openapi import paths
from inferd.gateway.dialects.tgi.routes import routes

__all__ = ["paths", "routes"]
