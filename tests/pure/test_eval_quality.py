"""Perplexity, KL divergence and agreement against sums written out, and the baseline file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from inferd.errors import ConfigError
from inferd.eval.baseline import BaselineFile, is_baseline, write_baseline
from inferd.eval.data import DataError
from inferd.eval.quality import ExecutorLogits, measure, score, windows_of
from support.tiny_engine import tiny_tokenizer
from support.tiny_models import VOCAB, tiny_checkpoint

TEXT = "The quick brown fox jumps over the lazy dog. " * 8


class Fixed:
    """Logits from a seed."""

    vocab_size = VOCAB

    def __init__(self, seed: int, spread: float = 3.0) -> None:
        self._seed, self._spread = seed, spread

    def logits(self, index: int, window: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng((self._seed, index))
        return rng.normal(0, self._spread, (len(window), VOCAB)).astype(np.float32)

    def close(self) -> None:
        pass


def windows(size: int = 64, limit: int | None = None) -> np.ndarray:
    return windows_of(tiny_tokenizer(), TEXT, size, limit)


def test_windows_cut_the_text() -> None:
    ids = list(TEXT.encode())
    assert windows().tolist() == [ids[i : i + 64] for i in range(0, len(ids) - 63, 64)]
    assert windows(32, 2).shape == (2, 32)
    with pytest.raises(ConfigError, match="window must be a multiple of 32, got 48"):
        windows(48)
    with pytest.raises(ConfigError, match="window must be at most the 360 tokens of the text, got 512"):
        windows(512)


def test_figures_are_the_sums_written_out() -> None:
    window = windows()[0]
    p, q = (Fixed(seed).logits(0, window).astype(np.float64) for seed in (1, 2))
    result = score(window, q.astype(np.float32), p.astype(np.float32))
    for row in range(63):
        chances_p, chances_q = (np.exp(x[row]) / np.exp(x[row]).sum() for x in (p, q))
        assert result.nll[row] == pytest.approx(-math.log(chances_q[window[row + 1]]))
        assert result.baseline_nll[row] == pytest.approx(-math.log(chances_p[window[row + 1]]))
        assert result.kl[row] == pytest.approx(float((chances_p * np.log(chances_p / chances_q)).sum()))
        assert result.same_top[row] == (chances_p.argmax() == chances_q.argmax())
    assert (result.nll.shape, result.kl.shape) == ((63,), (64,))


def test_measure_joins_windows() -> None:
    all_windows = windows()
    facts = measure(Fixed(2), all_windows, Fixed(1))
    scores = [score(w, Fixed(2).logits(i, w), Fixed(1).logits(i, w)) for i, w in enumerate(all_windows)]
    assert facts["tokens"] == all_windows.size
    assert facts["perplexity"]["value"] == pytest.approx(math.exp(np.concatenate([s.nll for s in scores]).mean()), 1e-4)
    assert facts["kl_nats_per_token"] == pytest.approx(np.mean([s.kl for s in scores]), 1e-4)
    assert facts["kl_of_second_halves"] == pytest.approx(np.mean([s.kl[32:] for s in scores]), 1e-4)


def test_equal_models_are_equal_and_even_ones_know_nothing() -> None:
    same = measure(Fixed(1), windows(), Fixed(1))
    assert (same["kl_nats_per_token"], same["same_top_token"]) == (0.0, 1.0)
    assert measure(Fixed(1, spread=0.0), windows())["perplexity"] == {"value": VOCAB, "standard_error": 0.0}
    assert "kl_nats_per_token" not in measure(Fixed(1), windows())


def test_an_executor_scores_each_window_alone() -> None:
    two, later = ExecutorLogits(tiny_checkpoint(), "reference", 64, 1), windows()[1]
    two.logits(0, windows()[0])
    fresh = ExecutorLogits(tiny_checkpoint(), "reference", 64, 1)
    np.testing.assert_array_equal(two.logits(1, later), fresh.logits(1, later))


def test_a_baseline_comes_back(tmp_path: Path) -> None:
    path, all_windows = tmp_path / "b", windows()
    write_baseline(path, Fixed(1), all_windows, {"model": "m"})
    assert is_baseline(path)
    file = BaselineFile(path, all_windows, VOCAB)
    assert file.facts == {"model": "m"}
    rounded = measure(Fixed(1), all_windows, file)
    assert (rounded["kl_nats_per_token"], rounded["same_top_token"]) == (0.0, 1.0)
    direct = np.mean([score(w, Fixed(1).logits(i, w), file.logits(i, w)).kl for i, w in enumerate(all_windows)])
    assert abs(direct) < 1e-6
    exact, stored = measure(Fixed(2), all_windows, Fixed(1)), measure(Fixed(2), all_windows, file)
    assert stored["kl_nats_per_token"] == pytest.approx(exact["kl_nats_per_token"], rel=1e-4)


def test_a_baseline_of_something_else(tmp_path: Path) -> None:
    path, all_windows = tmp_path / "b", windows()
    write_baseline(path, Fixed(1), all_windows, {})
    with pytest.raises(DataError, match="b:vocab_size: must be 999 as in this run, is 320"):
        BaselineFile(path, all_windows, 999)
    with pytest.raises(DataError, match="b:num_windows: must be 2 as in this run, is 5"):
        BaselineFile(path, all_windows[:2], VOCAB)
    with pytest.raises(DataError, match="b:token_ids: is of another text"):
        BaselineFile(path, all_windows + 1, VOCAB)


def test_a_damaged_baseline(tmp_path: Path) -> None:
    path, all_windows = tmp_path / "b", windows()
    write_baseline(path, Fixed(1), all_windows, {})
    whole = path.read_bytes()
    for damaged, what in (
        (whole[:-1], "it is cut off or damaged"),
        (whole[:10], "is no baseline file"),
        (b"x" + whole[1:], "is no baseline file"),
        (whole[:20] + b"[" + whole[21:], "header: not valid JSON"),
        (whole[:16] + b"\xff" * 4 + whole[20:], "header: must be at most"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=what):
            BaselineFile(path, all_windows, VOCAB)
