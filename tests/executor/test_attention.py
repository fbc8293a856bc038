"""Attention of the native executor against the reference."""

from __future__ import annotations

import numpy as np
import pytest

from inferd.executors.native import NativeExecutor
from inferd.executors.reference import ReferenceExecutor
from inferd.models.spec import LayerSpec
from support.batches import batch
from support.tiny_models import tiny_checkpoint


def executor(kind, checkpoint, block_size, **changes):
    options = {"num_blocks": 1024 // block_size, "block_size": block_size, "max_num_batched_tokens": 700}
    return kind(checkpoint, **options, **changes)


def native(checkpoint, block_size, num_threads=2):
    limits = {"max_num_seqs": 4, "max_model_len": 1024, "num_threads": num_threads}
    return executor(NativeExecutor, checkpoint, block_size, **limits)


def shuffled_table(block_size):
    return np.random.default_rng(1).permutation(1024 // block_size).tolist()


def prompt(length):
    return np.random.default_rng(0).integers(0, 320, length).tolist()


HEADS = {"one": (4, 4), "group of 3": (6, 2), "group of 12": (12, 1), "group of 16, two tiles of heads": (16, 1)}


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS.keys())
@pytest.mark.parametrize("window", [0, 37, 300])
def test_every_head_group_and_window_matches_the_reference(heads, window):
    layers = (LayerSpec(window=window),) * 2
    checkpoint = tiny_checkpoint("llama", num_heads=heads[0], num_kv_heads=heads[1], layers=layers)
    rows = [0, 1, 36, 37, 38, 255, 256, 257, 299, 300, 511, 512, 599]
    step = batch([(prompt(600), 0, shuffled_table(32))], logit_rows=rows)
    want = executor(ReferenceExecutor, checkpoint, 32).logits(step)
    got = native(checkpoint, 32).logits(step)
    assert np.abs(got - want).max() < 0.05  # K, V, q and the probabilities are bf16


def test_bits_do_not_depend_on_the_block_size_or_on_decoding_token_by_token():
    checkpoint = tiny_checkpoint("gemma3")
    ids, rows = prompt(560), list(range(500, 560))
    want = native(checkpoint, 16).logits(batch([(ids, 0, shuffled_table(16))], logit_rows=rows))
    for block_size in (32, 64, 128, 256):
        table = shuffled_table(block_size)
        got = native(checkpoint, block_size).logits(batch([(ids, 0, table)], logit_rows=rows))
        assert np.array_equal(got, want), block_size
    decoder, table = native(checkpoint, 32), shuffled_table(32)
    decoder.logits(batch([(ids[:500], 0, table)]))
    got = [decoder.logits(batch([([token], 500 + i, table)])) for i, token in enumerate(ids[500:])]
    assert np.array_equal(np.concatenate(got), want)


@pytest.mark.parametrize("num_threads", [1, 3, 8])
def test_bits_do_not_depend_on_the_number_of_threads(num_threads):
    """Also more threads than cores, whose pieces come late."""
    checkpoint, table = tiny_checkpoint("mistral"), shuffled_table(32)
    two, other = native(checkpoint, 32), native(checkpoint, 32, num_threads)
    for step in (batch([(prompt(600), 0, table)]), *(batch([([7], 600 + i, table)]) for i in range(50))):
        assert np.array_equal(two.logits(step), other.logits(step))
