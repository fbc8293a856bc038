"""Checkpoint: a model file opened, checked and mapped onto canonical names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inferd.models.spec import DecoderSpec
from inferd.quantization.types import Weight


@dataclass(frozen=True, slots=True)
class TokenizerSource:
    """What the tokenizer is built from: GGUF metadata (keys "tokenizer.*") or the files of a model directory."""

    gguf_metadata: Mapping[str, Any] | None = None
    directory: Path | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything a model file says.

    weights: canonical name (spec.tensor_names) -> Weight, zero-copy where the file allows.
    generation_defaults: keys of SamplingParams and eos_token_ids (list[int]) that the model asks for.
    """

    path: Path
    name: str
    spec: DecoderSpec
    weights: Mapping[str, Weight]
    tokenizer: TokenizerSource
    chat_template: str | None = None
    generation_defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_weight_bytes(self) -> int:
        return sum(weight.nbytes for weight in self.weights.values())
