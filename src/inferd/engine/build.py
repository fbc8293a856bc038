"""A model name becomes a running engine: checkpoint, tokenizer, template, executor, in this order."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from inferd.config import EngineConfig
from inferd.engine.engine import Engine
from inferd.engine.memory import size_kv_cache
from inferd.errors import TemplateError
from inferd.executors.base import Executor
from inferd.models.checkpoint import Checkpoint, TokenizerSource
from inferd.models.loader import load_checkpoint
from inferd.models.store import resolve
from inferd.tokenizer import Tokenizer, load_tokenizer
from inferd.tokenizer.chat_template import ChatTemplate, default_template

log = logging.getLogger("inferd.engine")

Progress = Callable[[int, int], None]  # bytes done, bytes in all


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """chat_template: None for a base model."""

    engine: Engine
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None
    checkpoint: Checkpoint


def build_engine(model: str, config: EngineConfig, progress: Progress | None = None) -> LoadedEngine:
    """model: an alias that is in the store, a .gguf file or a model directory (store.resolve).

    Raises ModelNotFoundError, ModelLoadError or ConfigError.
    """
    return engine_of(load_checkpoint(resolve(model)), config, progress)


def engine_of(checkpoint: Checkpoint, config: EngineConfig, progress: Progress | None = None) -> LoadedEngine:
    """The same for a checkpoint that is open already."""
    tokenizer = load_tokenizer(checkpoint.tokenizer, checkpoint.spec.vocab_size)
    executor, max_model_len = build_executor(checkpoint, config, progress)
    engine = Engine(executor, tokenizer, config, max_model_len)
    template = _template(checkpoint, tokenizer)
    # the file's own token lists are not needed any more: 250 MB of Python objects for 262,000 tokens
    lean = replace(checkpoint, tokenizer=TokenizerSource())
    return LoadedEngine(engine, tokenizer, template, lean)


def build_executor(
    checkpoint: Checkpoint, config: EngineConfig, progress: Progress | None = None
) -> tuple[Executor, int]:
    """The executor the configuration names, and the longest sequence it can hold."""
    num_blocks, max_model_len = size_kv_cache(checkpoint.spec, config)
    sizes = {
        "num_blocks": num_blocks,
        "block_size": config.block_size,
        "max_num_batched_tokens": config.resolved_token_budget,
    }
    if config.executor == "reference":
        from inferd.executors.reference import ReferenceExecutor

        return ReferenceExecutor(checkpoint, **sizes), max_model_len
    from inferd.executors.native import NativeExecutor

    native = NativeExecutor(
        checkpoint,
        **sizes,
        max_num_seqs=config.max_num_seqs,
        max_model_len=max_model_len,
        num_threads=config.resolved_num_threads,
        kv_cache_dtype=config.resolved_kv_cache_dtype,
        progress=progress,
    )
    return native, max_model_len


def _template(checkpoint: Checkpoint, tokenizer: Tokenizer) -> ChatTemplate | None:
    """The model's own, else ChatML where the vocabulary has its tokens. One that does not compile is left out."""
    source = checkpoint.chat_template or default_template(tokenizer.control)
    if source is None:
        return None
    try:
        return ChatTemplate(
            source,
            control=tokenizer.control,
            bos_token=_text(tokenizer, tokenizer.bos_token_id),
            eos_token=_text(tokenizer, min(tokenizer.eos_token_ids, default=None)),
        )
    except TemplateError as error:
        log.warning("%s; chat is not available for this model", error)
        return None


def _text(tokenizer: Tokenizer, token_id: int | None) -> str:
    return "" if token_id is None else tokenizer.token_text(token_id)
