"""What fits: weights by component, KV bytes, the pool that is left, and how many requests it holds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from inferd.planner.figure import Figure, Label
from inferd.planner.hardware import Device
from inferd.planner.precision import Precision
from inferd.planner.shapes import ModelShape

GIB = 2**30
# FP32 copies of the logits of max_num_seqs sequences that an engine's warm-up holds at its peak: fitted to the eight
# published activation figures of vLLM on H100, six of which it gives within 3 %.
LOGIT_COPIES = 9.7
DEFAULT_MAX_SEQS = 1024
NON_TORCH_GIB, NON_TORCH_GROUP_GIB = 0.13, 0.42  # of a process, and more when it is one of a tensor-parallel group


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes of a whole model, by component."""

    linear: float
    experts: float
    embeddings: float
    norms: float
    other: float

    @property
    def total(self) -> float:
        return self.linear + self.experts + self.embeddings + self.norms + self.other


def weights_of(shape: ModelShape, precision: Precision) -> Weights:
    dense_bits = 16.0 if precision.experts_only else precision.linear_bits
    return Weights(
        linear=shape.dense_params * dense_bits / 8,
        experts=shape.moe_layers * shape.experts * expert_bytes(shape, precision),
        embeddings=shape.embedding_params * precision.embedding_bits / 8,
        norms=shape.norm_params * 2.0,
        other=shape.other_params * 2.0,
    )


def expert_bytes(shape: ModelShape, precision: Precision) -> float:
    """One routed expert of one layer, its rows padded as the format's kernels want them."""
    if not shape.expert_ffn:
        return 0.0
    multiple = precision.expert_row_multiple
    padding = math.ceil(shape.expert_ffn / multiple) * multiple / shape.expert_ffn
    return shape.expert_params * padding * precision.linear_bits / 8


def kv_bytes(shape: ModelShape, kv_element_bytes: float, context: float, block: int = 16) -> float:
    """Cache of one sequence in whole blocks, and its recurrent state (16 bits)."""
    rounded = math.ceil(context / block) * block
    return shape.kv_elements(rounded) * kv_element_bytes + shape.state_elements * 2.0


def kv_shards(shape: ModelShape, tp: int, *, dp_attention: bool = False) -> int:
    """How many devices' pools hold different cache: tensor parallelism copies what it cannot split by heads."""
    if dp_attention:
        return tp
    return 1 if shape.is_mla else min(tp, shape.kv_heads)


def weights_per_device(shape: ModelShape, precision: Precision, tp: int, *, dp_attention: bool = False) -> float:
    """Bytes; data-parallel attention keeps a whole copy of the attention matrices on each device."""
    total = weights_of(shape, precision).total
    if not dp_attention:
        return total / tp
    copied = shape.attention_params * (16.0 if precision.experts_only else precision.linear_bits) / 8
    return (total - copied) / tp + copied


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Bytes on one device of the group, and what its pool holds. A negative pool: the model does not fit."""

    usable: Figure
    utilization: float
    weights: Figure
    activation: Figure
    non_torch: Figure
    pool: Figure
    kv_per_token: Figure  # whole model, inside every window
    kv_per_request: Figure  # whole model, at the context planned for
    max_concurrency: Figure  # requests of that context that one replica holds

    @property
    def fits(self) -> bool:
        return self.max_concurrency.value >= 1


def plan_memory(
    shape: ModelShape,
    precision: Precision,
    kv_element_bytes: float,
    device: Device,
    *,
    tp: int,
    context: float,
    utilization: float = 0.9,
    activation_bytes: float | None = None,
    max_seqs: int = DEFAULT_MAX_SEQS,
    dp_attention: bool = False,
) -> MemoryPlan:
    """One replica of `tp` devices; context: tokens of a request, prompt and output together."""
    weights = weights_per_device(shape, precision, tp, dp_attention=dp_attention)
    activation = activation_of(shape, device, activation_bytes, max_seqs)
    non_torch = GIB * (NON_TORCH_GIB + (NON_TORCH_GROUP_GIB if tp > 1 else 0))
    pool = utilization * device.usable_bytes.value - weights - activation.value - non_torch
    request = kv_bytes(shape, kv_element_bytes, context)
    held = max(0, math.floor(pool * kv_shards(shape, tp, dp_attention=dp_attention) / request))
    label: Label = "derived" if activation.label == "calibrated" else activation.label
    return MemoryPlan(
        usable=device.usable_bytes,
        utilization=utilization,
        weights=Figure(weights, "B", "derived", "parameters x bits of each component"),
        activation=activation,
        non_torch=Figure(
            non_torch, "B", "assumed", "as vLLM on H100: 0.13 GiB, and 0.42 more in a tensor-parallel group"
        ),
        pool=Figure(pool, "B", label, "utilization x usable - weights - activation - non-torch"),
        kv_per_token=Figure(shape.kv_elements_per_token * kv_element_bytes, "B", "derived"),
        kv_per_request=Figure(request, "B", "derived", f"{context:,.0f} tokens in whole blocks"),
        max_concurrency=Figure(held, "requests", label, "of one replica"),
    )


def activation_of(shape: ModelShape, device: Device, given: float | None, max_seqs: int) -> Figure:
    if given is not None:
        return Figure(given, "B", "assumed", "given")
    if device.kind == "cpu":
        copies = Figure(2 * 64 * shape.vocab * 4, "B", "assumed", "logits of 64 sequences twice, FP32")
        return copies
    return Figure(
        LOGIT_COPIES * max_seqs * shape.vocab * 4, "B", "calibrated",
        f"{LOGIT_COPIES} FP32 copies of the logits of {max_seqs} sequences",
    )  # fmt: skip
