"""Number formats: bits that a weight takes, and the arithmetic rate of a device that serves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from inferd.planner.tables import choose

Rate = Literal["bf16", "fp8", "fp4", "int8"]


@dataclass(frozen=True, slots=True)
class Precision:
    """bits of a weight with its scales; embeddings and head apart, since most formats leave them in 16 bits."""

    name: str
    linear_bits: float
    embedding_bits: float
    rate: Rate
    experts_only: bool = False  # attention stays in 16 bits
    expert_row_multiple: int = 1  # rows of experts are padded to it
    note: str = ""


_WEIGHT_ONLY = "4 bits and, per 128 weights, a 16-bit scale and a 4-bit zero; products run in BF16"
PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("bf16", 16, 16, "bf16"),
        Precision("fp16", 16, 16, "bf16"),
        Precision("fp8", 8, 16, "fp8"),
        Precision("int8", 8, 16, "int8"),
        Precision("int4", 4 + (16 + 4) / 128, 16, "bf16", note=_WEIGHT_ONLY),
        Precision("nvfp4", 4 + 8 / 16, 16, "fp4", note="4 bits and an 8-bit scale per 16"),
        Precision(
            # Padding 2,880 to 3,072 gives both published gpt-oss sizes within 0.3 %.
            "mxfp4", 4 + 8 / 32, 16, "bf16", experts_only=True, expert_row_multiple=256,
            note="4 bits and an 8-bit scale per 32, experts only; products run in BF16",
        ),
        Precision("q4_0", 4.5, 6.5625, "int8"),
        Precision("q4_1", 5.0, 5.0, "int8"),
        Precision("q4_k_m", 4.85, 4.85, "int8", note="mean over a file, embeddings included"),
        Precision("q5_k_m", 5.69, 5.69, "int8", note="mean over a file, embeddings included"),
        Precision("q6_k", 6.5625, 6.5625, "int8"),
        Precision("q8_0", 8.5, 8.5, "int8"),
    )
}  # fmt: skip
KV_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "q8_0": 34 / 32}  # of one K or V element
_ALIASES = {"fp4": "nvfp4", "gptq": "int4", "awq": "int4", "w4a16": "int4", "float16": "fp16", "bfloat16": "bf16"}


def precision_named(name: str) -> Precision:
    """Raises ConfigError with the known names."""
    return choose("precision", _ALIASES.get(name.lower(), name.lower()), PRECISIONS)


def kv_bytes_named(name: str) -> float:
    return choose("kv_precision", name.lower(), KV_BYTES)
