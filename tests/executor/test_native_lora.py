"""Adapters in the native executor: against the reference, against merged weights, and their bits against themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import inferd._native as _native
from executor.test_native import LIMITS, native, tokens
from inferd.executors.reference import ReferenceExecutor
from inferd.models.lora import Adapter, LoraWeight
from inferd.quantization.types import TensorType
from support.adapters import merged, random_adapter
from support.batches import batch
from support.tiny_models import FAMILIES, tiny_checkpoint

# ranks that fill no vector, and one target only
ADAPTERS = ((3, ("q", "k", "v", "o", "gate", "up", "down")), (8, ("q", "v")), (20, ("o", "gate", "down")), (1, ("up",)))
LENGTHS = (20, 5, 33, 40, 1, 7)  # more rows than one group holds, and fewer
USED = (1, -1, 0, 2, 3, 0)


def adapters_of(spec):
    return [random_adapter(spec, rank, seed, targets=targets) for seed, (rank, targets) in enumerate(ADAPTERS)]


def sequences(vocab):
    return [(tokens(n, vocab, i), 0, range(8 * i, 8 * i + 8)) for i, n in enumerate(LENGTHS)]


def logits(executor, seqs, used):
    """(all tokens, vocab)"""
    num_rows = sum(len(ids) for ids, _, _ in seqs)
    return executor.logits(batch(seqs, logit_rows=range(num_rows), adapter_ids=used))


def loaded(executor, adapters):
    """USED as ids of the executor."""
    ids = [executor.load_adapter(adapter) for adapter in adapters]
    return [ids[i] if i >= 0 else -1 for i in USED]


@pytest.mark.parametrize("family", FAMILIES)
def test_float_weights_match_the_reference(family):
    """As close as without adapters: A and B are exact in bf16 here, and the KV cache has 8 bits of mantissa."""
    checkpoint = tiny_checkpoint(family)
    seqs, adapters = sequences(checkpoint.spec.vocab_size), adapters_of(checkpoint.spec)
    reference, own = ReferenceExecutor(checkpoint, **LIMITS), native(checkpoint)
    want = logits(reference, seqs, loaded(reference, adapters))
    got = logits(own, seqs, loaded(own, adapters))
    assert np.abs(got - want).max() < 0.08
    plain = logits(own, seqs, None)
    assert np.abs(got - plain).max() > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_weights_give_the_same(family):
    checkpoint = tiny_checkpoint(family)
    adapter, prompt = random_adapter(checkpoint.spec, 16, seed=5), tokens(60, checkpoint.spec.vocab_size)
    own = native(checkpoint)
    got = logits(own, [(prompt, 0, range(4))], [own.load_adapter(adapter)])
    want = logits(native(merged(checkpoint, adapter)), [(prompt, 0, range(4))], None)
    # two orders of fp32 sums, apart by 1e-6, now and then round a K or V to neighbouring values of bf16
    assert np.abs(got - want).max() < 0.08
    assert np.abs(got - want).mean() < 0.005
    assert np.array_equal(got.argmax(-1)[got_is_clear(want)], want.argmax(-1)[got_is_clear(want)])


def got_is_clear(want):
    """Rows whose best token is further from the second than the two may differ."""
    best = np.sort(want, -1)[:, -2:]
    return best[:, 1] - best[:, 0] > 0.16


@pytest.mark.parametrize("kind", [TensorType.F32, TensorType.Q4_1, TensorType.Q6_K], ids=lambda kind: kind.name)
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3"])
def test_several_in_a_batch_have_the_bits_of_each_alone(family, kind):
    checkpoint = tiny_checkpoint(family, kind=kind)
    seqs = sequences(checkpoint.spec.vocab_size)
    crowd, single = native(checkpoint), native(checkpoint, num_threads=1)
    used, adapters = loaded(crowd, adapters_of(checkpoint.spec)), adapters_of(checkpoint.spec)
    together = logits(crowd, seqs, used)
    plain = logits(native(checkpoint), seqs, None)
    first = 0
    for seq, index in zip(seqs, USED, strict=True):
        rows = slice(first, first + len(seq[0]))
        first += len(seq[0])
        # its only adapter: no neighbour of another rank, another place in memory
        ids = [single.load_adapter(adapters[index])] if index >= 0 else None
        assert np.array_equal(together[rows], logits(single, [seq], ids))
        if index < 0:
            assert np.array_equal(together[rows], plain[rows])


@pytest.mark.parametrize("kind", [TensorType.F32, TensorType.Q4_1], ids=lambda kind: kind.name)
def test_bits_do_not_depend_on_chunks(kind):
    checkpoint = tiny_checkpoint("gemma3", kind=kind)
    prompt, adapter = tokens(90, checkpoint.spec.vocab_size), random_adapter(checkpoint.spec, 5, seed=2)
    whole, chunked = native(checkpoint, num_threads=1), native(checkpoint)
    want = logits(whole, [(prompt, 0, range(6))], [whole.load_adapter(adapter)])
    ids, done, pieces = [chunked.load_adapter(adapter)], 0, []
    for size in (1, 7, 16, 33, 2, 31):
        pieces.append(logits(chunked, [(prompt[done : done + size], done, range(6))], ids))
        done += size
    assert np.array_equal(np.concatenate(pieces), want)


def test_a_batch_that_names_no_adapter_is_refused_and_changes_nothing():
    checkpoint = tiny_checkpoint("llama")
    seqs = sequences(checkpoint.spec.vocab_size)[:1]
    for executor in (native(checkpoint), ReferenceExecutor(checkpoint, **LIMITS)):
        adapter_id = executor.load_adapter(random_adapter(checkpoint.spec, 4, seed=0))
        want = logits(executor, seqs, [adapter_id])
        for used in ([adapter_id + 1], [-2], [adapter_id, -1]):
            with pytest.raises(ValueError, match="adapter_ids"):
                logits(executor, seqs, used)
        assert np.array_equal(logits(executor, seqs, [adapter_id]), want)
        executor.unload_adapter(adapter_id)
        with pytest.raises(ValueError, match="adapter_ids"):
            logits(executor, seqs, [adapter_id])
        assert executor.load_adapter(random_adapter(checkpoint.spec, 4, seed=0)) != adapter_id


def test_an_adapter_of_another_model_leaves_nothing_behind():
    own = native(tiny_checkpoint("llama"))
    wrong = Adapter(
        Path("wrong"), {"layers.0.q": LoraWeight(np.zeros((4, 48), np.float32), np.zeros((64, 4), np.float32), 1)}
    )
    with pytest.raises(ValueError, match="layer 0, target 0 must be 4 x 64 and 64 x 4"):
        own.load_adapter(wrong)
    with pytest.raises(ValueError, match="no adapter"):
        logits(own, sequences(own.spec.vocab_size)[:1], [0])


def test_other_isas_agree():
    """avx2 has the bits of avx512, the baseline is close."""
    program = (
        "import sys, numpy as np; sys.path.insert(0, 'tests');"
        "from executor.test_native_lora import isa_logits; np.save(sys.argv[1], isa_logits())"
    )
    results = {}
    for isa in _native.available_isas().split(","):
        path = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"inferd-lora-{os.getpid()}-{isa}.npy")
        subprocess.run([sys.executable, "-c", program, path], check=True, env=os.environ | {"INFERD_ISA": isa})
        results[isa] = np.load(path)
        os.unlink(path)
    if "avx512" in results:
        assert np.array_equal(results["avx512"], results["avx2"])
    for values in results.values():
        assert np.abs(values - results["baseline"]).max() < 0.08


def isa_logits():
    own = native(tiny_checkpoint("gemma3"))
    return logits(own, sequences(own.spec.vocab_size), loaded(own, adapters_of(own.spec)))
