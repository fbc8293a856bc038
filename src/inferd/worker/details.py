"""What the file of a model that generates says of it, as plain JSON values: Ready.details."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from inferd.models.checkpoint import Checkpoint
from inferd.parsing.detect import detect
from inferd.parsing.formats import OutputFormat
from inferd.quantization.types import TensorType, Weight
from inferd.tokenizer.chat_template import ChatTemplate
from inferd.tokenizer.control import ControlTexts


def details_of(checkpoint: Checkpoint, template: ChatTemplate | None, control: ControlTexts) -> dict[str, Any]:
    spec = checkpoint.spec
    special_texts = template.special_texts if template is not None else {}
    return {
        "name": checkpoint.name,
        "architecture": spec.family,
        "quantization": quantization_of(checkpoint.weights),
        "num_parameters": spec.num_parameters,
        "num_weight_bytes": checkpoint.num_weight_bytes,
        "context_length": spec.max_position,
        "embedding_length": spec.hidden_size,
        "num_layers": spec.num_layers,
        "chat_template": template.source if template is not None else "",
        "output_format": asdict(output_format(template, control)),
        **special_texts,
    }


def output_format(template: ChatTemplate | None, control: ControlTexts) -> OutputFormat:
    if template is None:
        return OutputFormat()

    def render(messages: Sequence[Any], **options: Any) -> str:
        rendered = template.render(messages, **options)
        return rendered.text.replace(rendered.guard, "")

    return detect(template.source, render, control.texts)


def quantization_of(weights: Mapping[str, Weight]) -> str:
    """The type of most of the bytes, as GGUF names it."""
    num_bytes: Counter[TensorType] = Counter()
    for weight in weights.values():
        num_bytes[weight.kind] += weight.nbytes
    return num_bytes.most_common(1)[0][0].name if num_bytes else ""

