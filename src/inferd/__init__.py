"""inferd: on-premises AI inference with its own engine. The public door; everything loads on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from inferd.config import EngineConfig
    from inferd.encoder import Encoder
    from inferd.errors import InferdError
    from inferd.llm import LLM
    from inferd.types import SamplingParams, StructuredOutputs

__all__ = ["LLM", "Encoder", "EngineConfig", "InferdError", "SamplingParams", "StructuredOutputs"]

_HOMES = {
    "LLM": "llm",
    "Encoder": "encoder",
    "EngineConfig": "config",
    "InferdError": "errors",
    "SamplingParams": "types",
    "StructuredOutputs": "types",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'inferd' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"inferd.{_HOMES[name]}"), name)
