"""Types of the compiled module; native/bindings.cpp is the truth."""

from typing import Any

def isa() -> str: ...
def available_isas() -> str: ...
def uniform(seed: int, index: int) -> float: ...

class RopeSpec:
    def __init__(self, dims: int, magnitude: float, inv_freq: list[float]) -> None: ...

class LayerSpec:
    def __init__(self, window: int, rope: int) -> None: ...

class Encoder:
    @property
    def num_packed_bytes(self) -> int: ...
    def __init__(self, *sizes: Any) -> None: ...
    def set_table(self, name: str, kind: int, rows: Any) -> None: ...
    def add_matrix(self, name: str, kind: int, rows: Any, num_cols: int, in_pairs: bool) -> None: ...
    def add_vector(self, name: str, values: Any) -> None: ...
    def finish(self) -> None: ...
    def encode(
        self,
        token_ids: Any,
        type_ids: Any,
        starts: Any,
        pooling: int,
        out: Any,
    ) -> None: ...

class ModelSpec:
    vocab_size: int
    hidden_size: int
    ffn_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    layers: list[LayerSpec]
    ropes: list[RopeSpec]
    norm_eps: float
    attention_scale: float
    attention_soft_cap: float
    logit_soft_cap: float
    embedding_scale: float
    activation: int
    qkv_bias: bool
    qk_norm: bool
    post_norms: bool
    tied_head: bool

class Limits:
    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        max_num_batched_tokens: int,
        max_num_seqs: int,
        max_model_len: int,
        num_threads: int,
        kv_type: int,
    ) -> None: ...

class SentencePiece:
    def __init__(self, text: bytes, ends: Any, scores: Any, types: Any, unknown_id: int) -> None: ...
    def encode(self, text: str) -> list[int]: ...

class Model:
    def __init__(self, spec: ModelSpec, limits: Limits) -> None: ...
    def set_embedding(self, type: int, rows: Any) -> None: ...
    def add_matrix(self, name: str, type: int, rows: Any, num_cols: int) -> None: ...
    def add_vector(self, name: str, values: Any) -> None: ...
    def finish(self) -> None: ...
    def step(self, *arrays: Any) -> None: ...
    @property
    def num_packed_bytes(self) -> int: ...
