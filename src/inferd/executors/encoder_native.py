"""The C++ encoder: binds native/encoder.h to the contract of executors/encoder_base.py."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

import inferd._native as _native
from inferd.errors import UnsupportedModelError
from inferd.executors.base import F32
from inferd.executors.encoder_base import EncoderBatch
from inferd.executors.native import cpu_info
from inferd.models.encoder_loader import EncoderCheckpoint
from inferd.quantization.formats import dequantize_weight
from inferd.quantization.quantize import to_bf16, to_q8_0
from inferd.quantization.types import TensorType, Weight

EncoderDtype = Literal["auto", "f32", "bf16", "q8_0"]

_ACTIVATIONS = {"gelu": 1, "gelu_tanh": 2, "relu": 3}
_HEAD_ACTIVATIONS = {"none": 0, "tanh": 1, "relu": 2}
_POOLINGS = {"none": 0, "mean": 1, "cls": 2, "last": 3}
_TABLES = ("word", "position", "type")
_MATRICES = ("qkv", "o", "up", "down")


class NativeEncoder:
    """Runs whole batches in C++ on this machine's CPU.

    dtype "bf16", which "auto" is: products of the layers multiply weights and states rounded to bf16 and add in fp32;
    "f32": both as they are; "q8_0": weights of 8 bits in blocks of 32, states of 8 bits. Heads are always fp32. Raises
    UnsupportedModelError when a size does not fit the kernels.
    """

    def __init__(
        self, checkpoint: EncoderCheckpoint, *, max_num_tokens: int, num_threads: int, dtype: EncoderDtype = "auto"
    ) -> None:
        cpu_info()
        spec = checkpoint.spec
        self._out_size, self._hidden_size = spec.out_size, spec.hidden_size
        self.max_num_tokens = max_num_tokens
        self.dtype = "bf16" if dtype == "auto" else dtype
        try:
            self._encoder: Any = _native.Encoder(
                spec.vocab_size,
                spec.hidden_size,
                spec.ffn_size,
                spec.num_heads,
                spec.num_layers,
                spec.max_position,
                spec.num_types,
                spec.norm_eps,
                _ACTIVATIONS[spec.activation],
                [(head.size, _HEAD_ACTIVATIONS[head.activation]) for head in spec.heads],
                max_num_tokens,
                num_threads,
            )
            for name, weight in checkpoint.weights.items():
                self._add(name, weight)
            self._encoder.finish()
        except ValueError as error:
            raise UnsupportedModelError(str(error)) from None

    def _add(self, name: str, weight: Weight) -> None:
        last = name.rsplit(".", 1)[-1]
        if name in _TABLES:
            self._encoder.set_table(name, int(weight.kind), np.ascontiguousarray(weight.data))
        elif last in _MATRICES:
            self._add_matrix(name, weight)
        elif name.startswith("heads.") and not name.endswith("_bias"):
            self._encoder.add_matrix(name, int(weight.kind), np.ascontiguousarray(weight.data), weight.num_cols, False)
        else:
            self._encoder.add_vector(name, np.ascontiguousarray(dequantize_weight(weight).reshape(-1)))

    def _add_matrix(self, name: str, weight: Weight) -> None:
        data = np.ascontiguousarray(weight.data)
        if self.dtype == "f32":
            self._encoder.add_matrix(name, int(weight.kind), data, weight.num_cols, False)
        elif self.dtype == "q8_0":
            rows = to_q8_0(dequantize_weight(weight))
            self._encoder.add_matrix(name, int(TensorType.Q8_0), rows, weight.num_cols, False)
        else:
            rows = data if weight.kind == TensorType.BF16 else to_bf16(dequantize_weight(weight))
            self._encoder.add_matrix(name, int(TensorType.BF16), rows, weight.num_cols, True)

    @property
    def num_packed_bytes(self) -> int:
        """Bytes of the packed weights in memory, the embedding tables left out."""
        return int(self._encoder.num_packed_bytes)

    def encode(self, batch: EncoderBatch) -> F32:
        per_token = batch.pooling == "none"
        shape = (len(batch.token_ids), self._hidden_size) if per_token else (len(batch.starts) - 1, self._out_size)
        out = np.empty(shape, np.float32)
        self._encoder.encode(batch.token_ids, batch.type_ids, batch.starts, _POOLINGS[batch.pooling], out)
        return out

    def close(self) -> None:
        """Frees weights and threads; the executor cannot be used afterwards."""
        self._encoder = None
