"""Vectors per second of MiniLM, inferd and ONNX Runtime on the same tokens: encoders.py MODEL.onnx [--seconds 2]

MODEL.onnx: the encoder with inputs input_ids, attention_mask and token_type_ids, and its last states as first output;
`torch.onnx.export` of transformers' model makes it. Both get token ids, 2 threads, and pool by the mean. Inputs of one
batch are equally long, which ONNX Runtime's padded batches need; a ragged batch is measured too. In turn, three rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
from common import report

from inferd.executors.encoder_base import EncoderBatch
from inferd.executors.encoder_native import NativeEncoder
from inferd.models.encoder_loader import load_encoder
from inferd.models.store import resolve

LENGTHS, BATCHES, ROUNDS = (16, 64, 256), (1, 32), 3
DTYPES = ("bf16", "q8_0", "f32")
NUM_THREADS = len(os.sched_getaffinity(0))


def native(dtype: Any) -> Callable[[list[np.ndarray]], np.ndarray]:
    encoder = NativeEncoder(load_encoder(resolve("minilm")), max_num_tokens=8192, num_threads=NUM_THREADS, dtype=dtype)

    def run(rows: list[np.ndarray]) -> np.ndarray:
        ids = np.concatenate(rows)  # (T,)
        starts = np.cumsum([0, *map(len, rows)], dtype=np.int32)  # (S + 1,)
        return encoder.encode(EncoderBatch(ids, np.zeros_like(ids), starts, "mean"))

    return run


def onnx(path: str) -> Callable[[list[np.ndarray]], np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = NUM_THREADS
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(rows: list[np.ndarray]) -> np.ndarray:
        longest = max(map(len, rows))
        ids = np.zeros((len(rows), longest), np.int64)
        mask = np.zeros_like(ids)
        for at, row in enumerate(rows):
            ids[at, : len(row)], mask[at, : len(row)] = row, 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        states = session.run(None, feed)[0]  # (S, longest, hidden)
        weights = mask[:, :, None].astype(np.float32)
        return (states * weights).sum(axis=1) / weights.sum(axis=1)

    return run


def rate(run: Callable[[list[np.ndarray]], Any], rows: list[np.ndarray], seconds: float) -> float:
    """Inputs per second, by the median run."""
    run(rows)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        begin = time.perf_counter()
        run(rows)
        times.append(time.perf_counter() - begin)
    return len(rows) / statistics.median(times)


def least_cosine(found: np.ndarray, expected: np.ndarray) -> float:
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    return float(((expected * found).sum(axis=1) / norms).min())


def workloads() -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(1)

    def row(length: int) -> np.ndarray:
        return rng.integers(1000, 30000, length).astype(np.int32)

    loads = {
        f"{length} tokens x {batch}": [row(length) for _ in range(batch)] for length in LENGTHS for batch in BATCHES
    }
    return loads | {"ragged, 8 to 256 tokens x 32": [row(int(n)) for n in rng.integers(8, 257, 32)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("onnx_file")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--print-only", action="store_true")
    args = parser.parse_args()
    engines = {f"inferd {dtype}": native(dtype) for dtype in DTYPES} | {"onnxruntime": onnx(args.onnx_file)}
    loads = workloads()
    rounds: dict[str, dict[str, list[float]]] = {name: {engine: [] for engine in engines} for name in loads}
    for _ in range(ROUNDS):
        for name, rows in loads.items():
            for engine, run in engines.items():
                rounds[name][engine].append(rate(run, rows, args.seconds))
    figures: dict[str, Any] = {}
    for name, rates in rounds.items():
        medians = {engine: round(statistics.median(values), 1) for engine, values in rates.items()}
        ratio = medians["inferd bf16"] / medians["onnxruntime"]
        figures[name] = medians | {"bf16_over_onnxruntime": round(ratio, 2)}
    rows = loads["64 tokens x 32"]
    expected = engines["onnxruntime"](rows)
    cosines = {dtype: round(least_cosine(engines[f"inferd {dtype}"](rows), expected), 6) for dtype in DTYPES}
    report("encoders", {"inputs_per_second": figures, "least_cosine": cosines, "num_threads": NUM_THREADS},
           print_only=args.print_only)  # fmt: skip


if __name__ == "__main__":
    main()
