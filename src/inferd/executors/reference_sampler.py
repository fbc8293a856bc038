"""The definition of sampling: one row of logits becomes one token. Order and meaning: types.SamplingParams."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inferd.executors.base import F32, SamplingBatch

F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

_MASK = 2**64 - 1


def uniform(seed: int, index: int) -> float:
    """In [0, 1), a function of its arguments alone: SplitMix64's finaliser, twice."""
    z = (seed * 0x9E3779B97F4A7C15 + (index + 1) * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & _MASK
    for _ in range(2):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        z ^= z >> 31
    return (z >> 11) * 2.0**-53


def log_softmax(logits: F32) -> F64:
    """(vocab,) natural logs."""
    wide = logits.astype(np.float64)
    shifted = wide - wide.max()
    result: F64 = shifted - np.log(np.exp(shifted).sum())
    return result


def sample_row(logits: F32, s: SamplingBatch, row: int) -> int:
    """The token of one row; logits (vocab,) are left as they are."""
    if s.target[row] >= 0:
        return int(s.target[row])
    x = constrain(logits.copy(), s, row)
    greedy = s.temperature[row] == 0 or s.top_k[row] == 1 or s.top_p[row] == 0
    if greedy or not np.isfinite(x.max()):
        return int(x.argmax())
    kept = keep(x, s, row)
    probs = relative_probs(x, float(s.temperature[row])) * kept
    cumulative = np.cumsum(probs.astype(np.float64))
    u = uniform(int(s.seed[row]), int(s.draw_index[row]))
    chosen = int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))
    return min(chosen, int(np.flatnonzero(probs)[-1]))


def constrain(x: F32, s: SamplingBatch, row: int) -> F32:
    """Allowed ids, bias, then repetition, frequency and presence penalties, in place."""
    if s.mask_index[row] >= 0:
        bits = np.unpackbits(s.allowed_masks[s.mask_index[row]].view(np.uint8), bitorder="little")
        x[bits[: len(x)] == 0] = -np.inf
    for i in range(s.bias_starts[row], s.bias_starts[row + 1]):
        x[s.bias_ids[i]] += s.bias_values[i]
    for i in range(s.penalty_starts[row], s.penalty_starts[row + 1]):
        token, count = s.penalty_ids[i], np.float32(s.penalty_counts[i])
        repetition = s.repetition_penalty[row]
        x[token] = x[token] / repetition if x[token] > 0 else x[token] * repetition
        x[token] -= s.frequency_penalty[row] * count
        x[token] -= s.presence_penalty[row] if count > 0 else np.float32(0)
    return x


def relative_probs(x: F32, temperature: float) -> F32:
    """Softmax up to a factor: the largest is exactly 1."""
    with np.errstate(invalid="ignore"):
        result: F32 = np.exp((x - x.max()) * np.float32(1.0 / np.float32(temperature))).astype(np.float32)
    return result


def keep(x: F32, s: SamplingBatch, row: int) -> Bool:
    """Which ids survive min_p, top_k, top_p and typical_p, applied in this order to what the ones before left."""
    probs = relative_probs(x, float(s.temperature[row]))
    kept: Bool = (probs > 0) & (probs >= s.min_p[row])
    order = np.lexsort((np.arange(len(probs)), -probs))  # most likely first, ties by id
    if 0 < s.top_k[row] < len(probs):
        candidates = order[kept[order]]
        kept = _only(candidates[: s.top_k[row]], len(probs))
    if s.top_p[row] < 1:
        candidates = order[kept[order]]
        kept = _only(_until(candidates, probs, float(s.top_p[row])), len(probs))
    if s.typical_p[row] < 1:
        ids = np.flatnonzero(kept)
        p = probs[ids].astype(np.float64) / probs[ids].astype(np.float64).sum()
        entropy = -(p * np.log(p)).sum()
        candidates = ids[np.lexsort((ids, np.abs(-np.log(p) - entropy)))]
        kept = _only(_until(candidates, probs, float(s.typical_p[row])), len(probs))
    return kept


def _until(candidates: npt.NDArray[np.int64], probs: F32, share: float) -> npt.NDArray[np.int64]:
    """The shortest head of candidates whose mass reaches `share` of their total; at least one."""
    mass = probs[candidates].astype(np.float64)
    before = np.cumsum(mass) - mass
    count = max(1, int((before < share * mass.sum()).sum()))
    return candidates[:count]


def _only(ids: npt.NDArray[np.int64], size: int) -> Bool:
    kept = np.zeros(size, bool)
    kept[ids] = True
    return kept
