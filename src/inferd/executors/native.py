"""The C++ executor: binds native/ to the contract of executors/base.py."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import numpy as np

import inferd._native as _native
from inferd.errors import ConfigError, UnsupportedModelError
from inferd.executors.base import F32, StepBatch, StepResult
from inferd.executors.reference import inverse_frequencies
from inferd.models.checkpoint import Checkpoint
from inferd.models.lora import TARGETS, Adapter
from inferd.models.spec import DecoderSpec
from inferd.quantization.formats import dequantize_weight

_ACTIVATIONS = {"silu": 0, "gelu_tanh": 1}
_KV_TYPES = {"bf16": 0, "int8": 1}
_MATRICES = ("q", "k", "v", "o", "gate", "up", "down", "head", "embed")

Progress = Callable[[int, int], None]


def cpu_info() -> dict[str, Any]:
    """The instruction set the kernels run with, and those they could: {"isa": str, "available": [str, ...]}.

    Raises ConfigError when INFERD_ISA names one that this CPU cannot run.
    """
    try:
        isa = _native.isa()
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return {"isa": isa, "available": _native.available_isas().split(",")}


class NativeExecutor:
    """Runs whole steps in C++ on this machine's CPU.

    Raises UnsupportedModelError when a size does not fit the kernels, MemoryError when weights, KV cache and scratch do
    not fit the machine. A batch that breaks the contract raises ValueError naming the field, and changes nothing.
    progress(done_bytes, total_bytes) is called while weights are packed. kv_cache_dtype: "bf16" or "int8", the latter
    with one scale per token and head.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        num_blocks: int,
        block_size: int,
        max_num_batched_tokens: int,
        max_num_seqs: int,
        max_model_len: int,
        num_threads: int,
        kv_cache_dtype: str = "bf16",
        progress: Progress | None = None,
    ) -> None:
        cpu_info()
        self._spec = checkpoint.spec
        self._num_blocks = num_blocks
        self._block_size = block_size
        self._max_num_batched_tokens = max_num_batched_tokens
        limits = _native.Limits(
            num_blocks,
            block_size,
            max_num_batched_tokens,
            max_num_seqs,
            max_model_len,
            num_threads,
            _KV_TYPES[kv_cache_dtype],
        )
        try:
            self._model: Any = _native.Model(_native_spec(checkpoint.spec), limits)
            self._load(checkpoint, progress)
        except ValueError as error:
            raise UnsupportedModelError(str(error)) from None
        except MemoryError:
            raise MemoryError(f"not enough memory for {checkpoint.name} with {num_blocks} KV blocks") from None

    def _load(self, checkpoint: Checkpoint, progress: Progress | None) -> None:
        total, done = checkpoint.num_weight_bytes, 0
        for name, weight in checkpoint.weights.items():
            last = name.rsplit(".", 1)[-1]
            if name == "embed":
                self._model.set_embedding(int(weight.kind), np.ascontiguousarray(weight.data))
            if last in _MATRICES and (name != "embed" or checkpoint.spec.tied_head):
                self._model.add_matrix(name, int(weight.kind), np.ascontiguousarray(weight.data), weight.num_cols)
            elif last not in _MATRICES:
                self._model.add_vector(name, np.ascontiguousarray(dequantize_weight(weight).reshape(-1)))
            done += weight.nbytes
            if progress:
                progress(done, total)
        self._model.finish()
        _release_pages(checkpoint)

    @property
    def spec(self) -> DecoderSpec:
        return self._spec

    @property
    def num_blocks(self) -> int:
        return self._num_blocks

    @property
    def block_size(self) -> int:
        return self._block_size

    @property
    def max_num_batched_tokens(self) -> int:
        return self._max_num_batched_tokens

    @property
    def num_packed_bytes(self) -> int:
        """Bytes of the packed weights in memory."""
        return int(self._model.num_packed_bytes)

    def step(self, batch: StepBatch) -> StepResult:
        return self._step(batch, np.empty((0, self._spec.vocab_size), np.float32))

    def logits(self, batch: StepBatch) -> F32:
        """One step that returns the raw logits of its rows, (R, vocab): for evaluation."""
        logits = np.empty((len(batch.logit_rows), self._spec.vocab_size), np.float32)
        self._step(batch, logits)
        return logits

    def _step(self, batch: StepBatch, logits: F32) -> StepResult:
        num_rows, vocab_size = len(batch.logit_rows), self._spec.vocab_size
        sampling = batch.sampling
        num_top = int(sampling.num_logprobs.max(initial=0))
        if num_top > vocab_size:
            raise ValueError(f"step: num_logprobs: must be -1 .. {vocab_size}, got {num_top}")
        result = StepResult(
            token_ids=np.empty(num_rows, np.int32),
            logprobs=np.empty(num_rows, np.float32),
            ranks=np.empty(num_rows, np.int32),
            top_ids=np.empty((num_rows, num_top), np.int32),
            top_logprobs=np.empty((num_rows, num_top), np.float32),
        )
        try:
            self._model.step(
                *_batch_arrays(batch),
                *_sampling_arrays(sampling),
                result.token_ids,
                result.logprobs,
                result.ranks,
                result.top_ids,
                result.top_logprobs,
                logits,
            )
        except TypeError:
            raise ValueError(_misfit(batch)) from None
        return result

    def load_adapter(self, adapter: Adapter) -> int:
        """A and B are kept as bf16, rounded to nearest even. Raises MemoryError when they do not fit the machine."""
        adapter_id = int(self._model.add_adapter())
        try:
            for name, weight in adapter.weights.items():
                _, layer, target = name.split(".")
                a, b = np.ascontiguousarray(weight.a), np.ascontiguousarray(weight.b)
                self._model.add_adapter_matrix(adapter_id, int(layer), TARGETS.index(target), a, b, weight.scale)
        except BaseException:
            self._model.remove_adapter(adapter_id)
            raise
        return adapter_id

    def unload_adapter(self, adapter_id: int) -> None:
        self._model.remove_adapter(adapter_id)

    def close(self) -> None:
        """Frees weights, KV cache and threads; the executor cannot be used afterwards."""
        self._model = None


# name and kind (dtype, dimensions) of each array, in the order of native/bindings.cpp
_BATCH_ARRAYS = {
    "token_ids": ("int32", 1),
    "query_starts": ("int32", 1),
    "context_lens": ("int32", 1),
    "adapter_ids": ("int32", 1),
    "block_tables": ("int32", 2),
    "block_copies": ("int32", 2),
    "logit_rows": ("int32", 1),
}
_SAMPLING_ARRAYS = {
    "temperature": ("float32", 1),
    "top_k": ("int32", 1),
    "top_p": ("float32", 1),
    "min_p": ("float32", 1),
    "typical_p": ("float32", 1),
    "seed": ("uint64", 1),
    "draw_index": ("int64", 1),
    "repetition_penalty": ("float32", 1),
    "frequency_penalty": ("float32", 1),
    "presence_penalty": ("float32", 1),
    "target": ("int32", 1),
    "num_logprobs": ("int32", 1),
    "penalty_starts": ("int32", 1),
    "penalty_ids": ("int32", 1),
    "penalty_counts": ("int32", 1),
    "bias_starts": ("int32", 1),
    "bias_ids": ("int32", 1),
    "bias_values": ("float32", 1),
    "mask_index": ("int32", 1),
    "allowed_masks": ("uint32", 2),
}
_batch_arrays = attrgetter(*_BATCH_ARRAYS)
_sampling_arrays = attrgetter(*_SAMPLING_ARRAYS)


def _misfit(batch: StepBatch) -> str:
    """Says which array the native code refused to take."""
    for owner, arrays in ((batch, _BATCH_ARRAYS), (batch.sampling, _SAMPLING_ARRAYS)):
        for name, kind in arrays.items():
            array = getattr(owner, name)
            got = (str(getattr(array, "dtype", type(array).__name__)), getattr(array, "ndim", 0))
            if got != kind or not array.flags.c_contiguous:
                return f"step: {name}: must be C-contiguous {kind[0]} of {kind[1]} dimensions, got {got[0]} of {got[1]}"
    return "step: an array does not fit"


def _release_pages(checkpoint: Checkpoint) -> None:
    """Takes the mapped file out of resident memory: its weights are packed now. What is read again comes back."""
    released: set[int] = set()
    for weight in checkpoint.weights.values():
        base: Any = weight.data
        while isinstance(base, np.ndarray):
            base = base.base
        mapped = base.obj if isinstance(base, memoryview) else base
        if isinstance(mapped, mmap.mmap) and id(mapped) not in released:
            released.add(id(mapped))
            mapped.madvise(mmap.MADV_DONTNEED)


def _native_spec(spec: DecoderSpec) -> Any:
    native = _native.ModelSpec()
    for name in ("vocab_size", "hidden_size", "ffn_size", "num_heads", "num_kv_heads", "head_dim", "norm_eps"):
        setattr(native, name, getattr(spec, name))
    for name in ("attention_scale", "embedding_scale", "qkv_bias", "qk_norm", "post_norms", "tied_head"):
        setattr(native, name, getattr(spec, name))
    native.attention_soft_cap = spec.attention_softcap
    native.logit_soft_cap = spec.logit_softcap
    native.activation = _ACTIVATIONS[spec.activation]
    native.layers = [_native.LayerSpec(layer.window, layer.rope) for layer in spec.layers]
    native.ropes = [
        _native.RopeSpec(rope.dims, rope.magnitude, inverse_frequencies(rope).tolist()) for rope in spec.ropes
    ]
    return native
