"""Seconds of one engine step: the roofline terms of a deployment, and the coefficients that make them real.

A step over B sequences costs  sum(coefficient x term).  The terms are seconds at data-sheet rates (weights read, cache
read, arithmetic) and counts (collectives, layers, sequences); coefficients come from a fit to measured runs, or are the
textbook's: 80 % of bandwidth, 50 % of arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

from inferd.errors import ConfigError
from inferd.planner.figure import Label
from inferd.planner.hardware import Device
from inferd.planner.memory import expert_bytes, kv_shards
from inferd.planner.precision import Precision
from inferd.planner.shapes import ModelShape


@dataclass(frozen=True, slots=True)
class Deployment:
    """One replica: a model in a format on a tensor-parallel group of `tp` devices."""

    shape: ModelShape
    precision: Precision
    kv_element_bytes: float
    device: Device
    tp: int = 1
    dp_attention: bool = False  # each device attends for its own sequences; feed-forward layers are shared out


@dataclass(frozen=True, slots=True)
class StepTerms:
    """What a step is made of: seconds at data-sheet rates, then counts."""

    weights: float
    kv: float
    compute: float
    collectives: float
    moe_layers: float
    layers: float
    sequences: float
    constant: float = 1.0

    def values(self) -> tuple[float, ...]:
        return tuple(getattr(self, f.name) for f in fields(self))


TERMS = tuple(f.name for f in fields(StepTerms))


@dataclass(frozen=True, slots=True)
class Coefficients:
    """One number for each term; `prefill` divides the arithmetic rate of a prompt, `error` is the hold-out error."""

    values: tuple[float, ...]  # (len(TERMS),) multiples of the seconds, then seconds for each count
    prefill: float
    label: Label
    source: str
    error: float | None = None  # median absolute relative error on runs that were left out

    def seconds(self, terms: StepTerms) -> float:
        return sum(c * x for c, x in zip(self.values, terms.values(), strict=True))


ALLREDUCE_S = 10e-6
# llama.cpp reads 56 % (Q4) to 65 % (Q8) of one EPYC 9554 socket's bandwidth; arithmetic as on GPUs.
CPU = Coefficients(
    (1 / 0.6, 1 / 0.6, 1 / 0.5, 0, 0, 0, 0, 0), 1 / 0.5, "assumed", "60 % of bandwidth, 50 % of arithmetic on a CPU"
)


def decode_terms(deployment: Deployment, batch: float, context: float) -> StepTerms:
    """One token for each of `batch` sequences that hold `context` tokens on average."""
    shape, device, tp = deployment.shape, deployment.device, deployment.tp
    elements = shape.kv_elements(context) * deployment.kv_element_bytes
    state = 2 * 2.0 * shape.state_elements  # 16 bits, read and written
    flops = batch * (2 * shape.active_params + shape.attention_flops(context))
    shards = kv_shards(shape, tp, dp_attention=deployment.dp_attention)
    return StepTerms(
        weights=(weight_bytes_read(deployment, batch) / tp + _copied_bytes(deployment)) / device.bandwidth,
        kv=batch * (elements / shards + state / tp) / device.bandwidth,
        compute=flops / (tp * peak(deployment)),
        collectives=2 * shape.layers if tp > 1 else 0,
        moe_layers=shape.moe_layers,
        layers=shape.layers,
        sequences=batch,
    )


def weight_bytes_read(deployment: Deployment, tokens: float) -> float:
    """Of a step over `tokens` tokens: dense matrices and the head once, and the experts that the tokens touch."""
    shape, precision = deployment.shape, deployment.precision
    dense = shape.dense_params * (16.0 if precision.experts_only else precision.linear_bits) / 8
    head = shape.vocab * shape.hidden * precision.embedding_bits / 8
    touched = shape.moe_layers * shape.experts_touched(tokens) * expert_bytes(shape, precision)
    return dense + head + touched


def _copied_bytes(deployment: Deployment) -> float:
    """Attention matrices that a device reads beyond its share, when attention is data-parallel."""
    if not deployment.dp_attention:
        return 0.0
    bits = 16.0 if deployment.precision.experts_only else deployment.precision.linear_bits
    return deployment.shape.attention_params * bits / 8 * (1 - 1 / deployment.tp)


def peak(deployment: Deployment) -> float:
    """FLOP/s of one device. Raises ConfigError where no rate is published: such a device needs `plan calibrate`."""
    figure = deployment.device.peak_flops(deployment.precision.rate)
    if not figure.is_known:
        raise ConfigError(f"hardware: {figure.note}; measure it with inferd plan calibrate and pass --calibration")
    return figure.value


def ridge_batch(deployment: Deployment) -> float:
    """Sequences from which a decode step's matrices are bound by arithmetic: (F / BW) x bytes per weight / 2."""
    return peak(deployment) / deployment.device.bandwidth * deployment.precision.linear_bits / 8 / 2


def textbook_seconds(deployment: Deployment, batch: float, context: float) -> float:
    """The plain roofline: the larger of memory at 80 % and arithmetic at 50 %, and 10 us for each all-reduce."""
    terms = decode_terms(deployment, batch, context)
    return max((terms.weights + terms.kv) / 0.8, terms.compute / 0.5) + ALLREDUCE_S * terms.collectives


class StepTimer(Protocol):
    """Seconds of steps: what the simulator and the planner ask. All counts may be fractions (means)."""

    def decode(self, batch: float, context: float) -> float: ...

    def prefill(self, tokens: float, cached: float) -> float:
        """What `tokens` prompt tokens after `cached` others add to a step."""
        ...

    @property
    def empty_step(self) -> float:
        """A step that decodes nothing: what a lone prompt chunk pays besides its own arithmetic."""
        ...


@dataclass(frozen=True, slots=True)
class RooflineTimer:
    """StepTimer of a deployment on catalogue hardware."""

    deployment: Deployment
    coefficients: Coefficients

    def decode(self, batch: float, context: float) -> float:
        terms = decode_terms(self.deployment, batch, context)
        return self.coefficients.seconds(terms)

    def prefill(self, tokens: float, cached: float) -> float:
        if tokens <= 0:
            return 0.0
        d = self.deployment
        flops = d.shape.prefill_flops(tokens, cached)
        return self.coefficients.prefill * flops / (d.tp * peak(d)) + self._prompt_traffic(tokens)

    def _prompt_traffic(self, tokens: float) -> float:
        """Ring all-reduces of a prompt's activations, 16 bits: 2 (n - 1) / n of them each way, two in a layer."""
        d = self.deployment
        link = d.device.scaleup_gbps_per_dir
        if d.tp == 1 or link is None:
            return 0.0
        return 2 * d.shape.layers * 2 * (d.tp - 1) / d.tp * tokens * d.shape.hidden * 2 / (link * 1e9)

    @property
    def empty_step(self) -> float:
        return self.coefficients.seconds(decode_terms(self.deployment, 0, 0)) + self._whole_weights

    @property
    def _whole_weights(self) -> float:
        """Routed experts, which a prompt chunk touches nearly all of; a step over nothing counts none."""
        shape, d = self.deployment.shape, self.deployment
        routed = shape.moe_layers * shape.experts * expert_bytes(shape, d.precision)
        return self.coefficients.values[0] * routed / (d.tp * d.device.bandwidth)
