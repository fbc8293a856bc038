"""The native executor against the reference: every family, weight type and ISA; and its bits against itself."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import inferd._native as _native
from inferd.errors import UnsupportedModelError
from inferd.executors.native import NativeExecutor
from inferd.executors.reference import ReferenceExecutor
from inferd.quantization.types import TensorType
from support.batches import batch
from support.tiny_models import FAMILIES, tiny_checkpoint

BLOCK = 16
LIMITS = {"num_blocks": 64, "block_size": BLOCK, "max_num_batched_tokens": 256}


def native(checkpoint, **changes):
    options = LIMITS | {"max_num_seqs": 16, "max_model_len": 256, "num_threads": 2} | changes
    return NativeExecutor(checkpoint, **options)


def tokens(length, vocab, seed=0):
    return np.random.default_rng(seed).integers(0, vocab, length).tolist()


def log_softmax(x):
    shifted = x.astype(np.float64) - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def prefill(prompt, table, **options):
    return batch([(prompt, 0, table)], logit_rows=range(len(prompt)), **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_float_weights_match_the_reference(family):
    checkpoint = tiny_checkpoint(family)
    step = prefill(tokens(100, checkpoint.spec.vocab_size), [5, 3, 9, 1, 0, 2, 7])
    want = ReferenceExecutor(checkpoint, **LIMITS).logits(step)
    got = native(checkpoint).logits(step)
    # the KV cache holds bf16: 8 bits of mantissa
    assert np.abs(got - want).max() < 0.05
    p, q = log_softmax(want), log_softmax(got)
    divergence = (np.exp(p) * (p - q)).sum(-1)
    assert divergence.mean() < 1e-4


@pytest.mark.parametrize("kind", list(TensorType), ids=lambda kind: kind.name)
def test_every_weight_type_is_close_to_the_reference(kind):
    checkpoint = tiny_checkpoint("llama", kind=kind)
    step = prefill(tokens(64, checkpoint.spec.vocab_size), range(4))
    want = ReferenceExecutor(checkpoint, **LIMITS).logits(step)
    got = native(checkpoint).logits(step)
    spread = want.std()
    assert np.abs(got - want).mean() < 0.02 * spread  # int8 activations, one scale per 32


def assert_same(a, b):
    for name in ("token_ids", "logprobs", "ranks", "top_ids", "top_logprobs"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name


@pytest.mark.parametrize("family", FAMILIES)
def test_int8_kv_cache_is_close_to_the_reference(family):
    checkpoint = tiny_checkpoint(family)
    step = prefill(tokens(100, checkpoint.spec.vocab_size), [5, 3, 9, 1, 0, 2, 7])
    want = ReferenceExecutor(checkpoint, **LIMITS).logits(step)
    got = native(checkpoint, kv_cache_dtype="int8").logits(step)
    p, q = log_softmax(want), log_softmax(got)
    assert (np.exp(p) * (p - q)).sum(-1).mean() < 1e-4
    assert not np.array_equal(got, native(checkpoint).logits(step))


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
@pytest.mark.parametrize("kind", [TensorType.F32, TensorType.Q4_1, TensorType.Q8_0], ids=lambda kind: kind.name)
@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3"])
def test_bits_do_not_depend_on_batch_chunks_blocks_or_threads(family, kind, dtype):
    checkpoint = tiny_checkpoint(family, kind=kind)
    vocab = checkpoint.spec.vocab_size
    prompt, other = tokens(90, vocab, 1), tokens(41, vocab, 2)
    alone = native(checkpoint, num_threads=1, kv_cache_dtype=dtype).logits(prefill(prompt, range(6)))

    chunked = native(checkpoint, kv_cache_dtype=dtype)
    done, pieces = 0, []
    for size in (1, 7, 16, 33, 2, 31):
        table = [40, 11, 12, 13, 14, 15]
        pieces.append(chunked.logits(batch([(prompt[done : done + size], done, table)], logit_rows=range(size))))
        done += size
    assert np.array_equal(np.concatenate(pieces), alone)

    crowd = native(checkpoint, kv_cache_dtype=dtype)
    sequences = [(other, 0, range(20, 24)), (prompt, 0, range(6)), (other[:5], 0, range(30, 31))]
    rows = range(len(other), len(other) + len(prompt))
    assert np.array_equal(crowd.logits(batch(sequences, logit_rows=rows)), alone)


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
def test_decode_after_long_context_does_not_depend_on_how_work_is_split(dtype):
    """One sequence alone is cut into splits over the threads; in a crowd it is not. The bits are the same."""
    checkpoint = tiny_checkpoint("llama")
    vocab, length = checkpoint.spec.vocab_size, 700
    options = {"num_blocks": 512, "max_model_len": 1024, "max_num_batched_tokens": 1024, "max_num_seqs": 64}
    options["kv_cache_dtype"] = dtype
    prompt = tokens(length, vocab)
    alone, crowd = native(checkpoint, **options), native(checkpoint, **options)
    table = list(range(50))
    first = alone.logits(batch([(prompt, 0, table)]))
    assert np.array_equal(first, crowd.logits(batch([(prompt, 0, table)])))
    neighbours = [([i], 0, [60 + i]) for i in range(40)]
    want = alone.logits(batch([([3], length, table)]))
    got = crowd.logits(batch([([3], length, table), *neighbours], logit_rows=[0]))
    assert np.array_equal(got, want)


def test_sampler_equals_the_reference():
    """Same logits on both sides (F32 weights, one token of context), so the draws must agree."""
    checkpoint = tiny_checkpoint("llama")
    vocab = checkpoint.spec.vocab_size
    rng = np.random.default_rng(7)
    num_rows = 200
    options = {
        "temperature": rng.choice([0, 0.3, 0.7, 1, 2], num_rows),
        "top_k": rng.choice([0, 0, 1, 3, 20, 1000], num_rows),
        "top_p": rng.choice([1, 1, 0.9, 0.5, 0.05, 0], num_rows),
        "min_p": rng.choice([0, 0, 0.05, 0.5], num_rows),
        "typical_p": rng.choice([1, 1, 0.9, 0.3], num_rows),
        "seed": rng.integers(0, 2**64, num_rows, np.uint64),
        "draw_index": rng.integers(0, 1000, num_rows),
        "repetition_penalty": rng.choice([1, 1.3], num_rows),
        "frequency_penalty": rng.choice([0, 0.5], num_rows),
        "presence_penalty": rng.choice([0, -0.5], num_rows),
        "num_logprobs": rng.choice([-1, 0, 5], num_rows),
        "target": rng.choice([-1, -1, 7], num_rows),
        "penalties": [{int(i): int(rng.integers(0, 4)) for i in rng.integers(0, vocab, 6)} for _ in range(num_rows)],
        "bias": [
            {int(i): float(rng.choice([5, -5, -np.inf])) for i in rng.integers(0, vocab, 3)} for _ in range(num_rows)
        ],
        "masks": [None if i % 3 else sorted({*rng.integers(0, vocab, 40).tolist()}) for i in range(num_rows)],
        "vocab_size": vocab,
    }
    step = batch([([11], 0, [0])], logit_rows=[0] * num_rows, **options)
    want = ReferenceExecutor(checkpoint, **LIMITS).step(step)
    got = native(checkpoint).step(step)
    assert (got.token_ids == want.token_ids).mean() >= 0.99  # a draw on the edge of two tokens may differ by rounding
    same = got.token_ids == want.token_ids
    assert np.allclose(got.logprobs[same], want.logprobs[same], atol=1e-2)
    assert np.array_equal(got.top_ids, want.top_ids)
    assert np.allclose(got.top_logprobs, want.top_logprobs, atol=1e-2)


def test_copied_blocks_continue_like_the_original():
    checkpoint = tiny_checkpoint("llama")
    prompt = tokens(20, checkpoint.spec.vocab_size)
    executor = native(checkpoint)
    executor.logits(batch([(prompt, 0, [0, 1])]))
    want = executor.logits(batch([([5], 20, [0, 1])]))
    got = executor.logits(batch([([5], 20, [0, 9])], copies=[(1, 9)]))
    assert np.array_equal(got, want)


def test_stale_blocks_of_others_are_never_read():
    checkpoint = tiny_checkpoint("llama")
    prompt = tokens(5, checkpoint.spec.vocab_size)
    clean, dirty = native(checkpoint), native(checkpoint)
    dirty.logits(batch([(tokens(32, checkpoint.spec.vocab_size, 9), 0, [0, 1])]))
    assert np.array_equal(clean.logits(prefill(prompt, [0])), dirty.logits(prefill(prompt, [0])))


BAD_CHANGES = {
    "token": {"token_ids": np.array([10**6], np.int32)},
    "negative token": {"token_ids": np.array([-1], np.int32)},
    "starts": {"query_starts": np.array([0, 2], np.int32)},
    "block": {"block_tables": np.array([[64]], np.int32)},
    "short table": {"context_lens": np.array([16], np.int32)},
    "negative context": {"context_lens": np.array([-1], np.int32)},
    "row": {"logit_rows": np.array([1], np.int32)},
    "copies": {"block_copies": np.array([[0, 64]], np.int32)},
}


@pytest.mark.parametrize("change", BAD_CHANGES.values(), ids=BAD_CHANGES.keys())
def test_a_broken_batch_is_refused_and_changes_nothing(change):
    executor = native(tiny_checkpoint("llama"))
    good = batch([([1], 0, [0])])
    want = executor.logits(good)
    with pytest.raises(ValueError, match="step:"):
        executor.step(replace(good, **change))
    assert np.array_equal(executor.logits(good), want)


_HOSTILE = {
    "i": [-(2**31), -2, -1, 0, 1, 7, 16, 63, 64, 319, 320, 2**30, 2**31 - 1],
    "u": [0, 1, 2**31, 2**32 - 1],
    "f": [0, 1, -1, 0.5, 1e-45, 1e30, np.inf, -np.inf, np.nan],
}


def mutate(rng, array):
    """A copy of the array with one hostile value, or another length, shape or dtype."""
    kind = rng.integers(0, 6)
    if kind <= 2 and array.size:
        changed = array.copy()
        value = np.array(rng.choice(_HOSTILE[array.dtype.kind]))
        changed.reshape(-1)[rng.integers(array.size)] = value.astype(array.dtype)
        return changed
    if kind == 3:
        return np.ascontiguousarray(array[: rng.integers(0, len(array) + 1)])
    if kind == 4:
        return np.resize(array, (len(array) + 2, *array.shape[1:]))
    return array.reshape(-1, 1, 1) if rng.integers(2) else array.astype(np.complex64)


def test_random_broken_batches_are_refused_by_name_and_change_nothing():
    checkpoint = tiny_checkpoint("llama")
    vocab = checkpoint.spec.vocab_size
    executor = native(checkpoint)
    probe = batch([(tokens(20, vocab, 3), 0, [60, 61])])
    executor.logits(batch([(tokens(30, vocab, 4), 0, [0, 1])]))
    extra = {"masks": [[1, 2], None], "penalties": [{3: 1}, {5: 0, 6: 2}], "bias": [{}, {4: -1.0}]}
    draws = {"temperature": [0.8, 0], "top_p": 0.9, "num_logprobs": [3, -1], "vocab_size": vocab}
    good = batch([([1, 2], 3, [2, 3]), ([5], 30, [0, 1])], **draws, **extra)
    fields = [(good, name) for name in good.__slots__ if name != "sampling"]
    fields += [(good.sampling, name) for name in good.sampling.__slots__]
    want, rng, refused = executor.logits(probe), np.random.default_rng(0), 0
    for trial in range(6000):
        changes = [fields[i] for i in rng.choice(len(fields), rng.integers(1, 3), replace=False)]
        of_batch = {name: mutate(rng, getattr(owner, name)) for owner, name in changes if owner is good}
        of_sampling = {name: mutate(rng, getattr(owner, name)) for owner, name in changes if owner is not good}
        broken = replace(good, sampling=replace(good.sampling, **of_sampling), **of_batch)
        try:
            result = executor.step(broken)
        except ValueError as error:
            refused += 1
            named = [name for _, name in fields if f"step: {name}:" in str(error)]
            assert named, error  # noqa: PT017
        else:
            assert ((result.token_ids >= 0) & (result.token_ids < vocab)).all()
        if trial % 500 == 0:
            assert np.array_equal(executor.logits(probe), want)
    assert refused > 3000


def test_a_refused_batch_leaves_the_cache_as_it_was():
    checkpoint = tiny_checkpoint("llama")
    executor, table = native(checkpoint), [0, 1]
    executor.logits(batch([(tokens(20, checkpoint.spec.vocab_size), 0, table)]))
    copy = replace(batch([([5], 20, table)], copies=[(9, 0)]), logit_rows=np.array([7], np.int32))
    want = executor.logits(batch([([5], 20, table)]))
    with pytest.raises(ValueError, match="logit_rows"):
        executor.step(copy)
    assert np.array_equal(executor.logits(batch([([5], 20, table)])), want)


def test_more_memory_than_the_machine_has_is_a_memory_error():
    with pytest.raises(MemoryError, match="KV blocks"):
        native(tiny_checkpoint("llama"), num_blocks=2**31 - 1, block_size=256)


LIMIT_CHANGES = {"block_size": 48, "num_threads": 0, "num_blocks": 0, "max_model_len": 0, "max_num_batched_tokens": -1}


@pytest.mark.parametrize("name", LIMIT_CHANGES)
def test_a_limit_out_of_range_is_refused_by_name(name):
    with pytest.raises(UnsupportedModelError, match=name):
        native(tiny_checkpoint("llama"), **{name: LIMIT_CHANGES[name]})


def test_not_a_number_in_one_sequence_touches_no_other():
    """Stale blocks full of NaN, and a neighbour that computes NaN."""
    checkpoint = tiny_checkpoint("llama")
    weight = checkpoint.weights["embed"]
    poisoned = weight.data.copy()
    poisoned.view(np.float32)[9] = np.nan
    checkpoint = replace(checkpoint, weights=checkpoint.weights | {"embed": replace(weight, data=poisoned)})
    clean, dirty = native(checkpoint), native(checkpoint)
    dirty.logits(batch([([9] * 32, 0, [0, 1])]))
    want = clean.logits(batch([([3, 4, 5], 0, [0])]))
    got = dirty.logits(batch([([9, 9], 0, [4]), ([3, 4, 5], 0, [0])], logit_rows=[4]))
    assert np.isfinite(want).all()
    assert np.array_equal(got, want)
    result = dirty.step(batch([([9], 0, [4])], temperature=1, num_logprobs=2))
    assert 0 <= result.token_ids[0] < checkpoint.spec.vocab_size


def test_other_isas_agree():
    """The same step in a process forced to each ISA: avx2 has the same bits as avx512, the baseline is close."""
    program = (
        "import sys, numpy as np; sys.path.insert(0, 'tests');"
        "from executor.test_native import isa_logits; np.save(sys.argv[1], isa_logits())"
    )
    results = {}
    for isa in _native.available_isas().split(","):
        path = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"inferd-isa-{os.getpid()}-{isa}.npy")
        subprocess.run([sys.executable, "-c", program, path], check=True, env=os.environ | {"INFERD_ISA": isa})
        results[isa] = np.load(path)
        os.unlink(path)
    if "avx512" in results:
        assert np.array_equal(results["avx512"], results["avx2"])
    for logits in results.values():
        assert np.abs(logits - results["baseline"]).max() < 0.05


def isa_logits():
    logits = []
    for kind in (TensorType.F32, TensorType.Q4_1, TensorType.Q8_0, TensorType.Q6_K):
        checkpoint = tiny_checkpoint("gemma3" if kind == TensorType.F32 else "llama", kind=kind)
        step = prefill(tokens(60, checkpoint.spec.vocab_size), range(4))
        logits.append(native(checkpoint).logits(step)[:, :32])
    return np.stack(logits)
