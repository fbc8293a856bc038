"""From the records of a run to its figures, under vLLM's key names. docs/bench.md defines each of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from inferd.bench.config import LoadConfig
from inferd.bench.load import Run
from inferd.bench.stream import Record

PERCENTILES = (50, 90, 95, 99)
LATENCIES = ("ttft", "tpot", "itl", "icl", "e2el")
Floats = npt.NDArray[np.float64]


def summarize(run: Run, config: LoadConfig) -> dict[str, Any]:
    """The figures of one run; milliseconds, tokens, per second. None where there is no sample."""
    done = [record for record in run.records if record.is_ok]
    samples = latencies(done)
    good = [record for record in done if is_good(record, config.goodput)]
    seconds = max(run.end - run.begin, 1e-9)
    num_inputs = sum(_input_tokens(record) for record in done)
    num_outputs = sum(record.num_tokens for record in done)
    figures: dict[str, Any] = {
        "request_rate": _rate(run, config),
        "max_concurrency": run.max_concurrency,
        "loop": "closed" if run.is_closed_loop else "open",
        "duration": seconds,
        "completed": len(done),
        "failed": len(run.records) - len(done),
        "total_input_tokens": num_inputs,
        "total_output_tokens": num_outputs,
        "total_cached_tokens": sum(record.cached_tokens for record in done),
        "request_throughput": len(done) / seconds,
        "request_goodput": len(good) / seconds if config.goodput else None,
        "goodput_share": len(good) / len(run.records) if config.goodput and run.records else None,
        "output_throughput": num_outputs / seconds,
        "total_token_throughput": (num_inputs + num_outputs) / seconds,
        "max_concurrent_requests": run.most_in_flight,
    }
    for name, values in samples.items():
        figures |= statistics(name, values)
    return figures | _about_the_generator(run, seconds) | _about_the_counts(run, done, config)


def latencies(records: Iterable[Record]) -> dict[str, Floats]:
    """Samples in milliseconds. ttft, e2el: one for each request; tpot: one for each of two tokens and more;
    itl: one for each token after a request's first; icl: one for each arrival of chunks after a request's first."""
    samples: dict[str, list[float]] = {name: [] for name in ("ttft", "tpot", "e2el")}
    itl: list[Floats] = []
    icl: list[Floats] = []
    for record in records:
        for name, value in request_latencies(record).items():
            samples[name].append(value)
        gaps = 1000 * np.diff(np.asarray(record.arrivals, dtype=np.float64))  # (num_arrivals - 1,)
        icl.append(gaps)
        itl.append(spread(gaps, record.tokens_of_arrivals()))
    arrays = {name: np.array(values) for name, values in samples.items()}
    empty: list[Floats] = [np.empty(0)]
    arrays |= {"itl": np.concatenate(itl or empty), "icl": np.concatenate(icl or empty)}
    return {name: arrays[name] for name in LATENCIES}


def spread(gaps: Floats, tokens: list[int]) -> Floats:
    """(num_tokens - 1,) the time between tokens: the k tokens of an arrival share the gap before it, and those of the
    first came at once. gaps: (num_arrivals - 1,); tokens: (num_arrivals,)."""
    counts = np.asarray(tokens[1:], dtype=np.int64)
    with_first = np.zeros(max(0, tokens[0] - 1)) if tokens else np.empty(0)
    return np.concatenate([with_first, np.repeat(gaps / np.maximum(counts, 1), counts)])


def request_latencies(record: Record) -> dict[str, float]:
    """ttft, e2el and, from two tokens on, tpot in milliseconds, from the intended time of sending."""
    first, last, num_tokens = record.arrivals[0], record.arrivals[-1], record.num_tokens
    values = {"ttft": 1000 * (first - record.intended), "e2el": 1000 * (record.ended - record.intended)}
    if num_tokens > 1:
        values["tpot"] = 1000 * (last - first) / (num_tokens - 1)
    return values


def is_good(record: Record, limits: dict[str, float]) -> bool:
    """Within every limit, in milliseconds; one token has no tpot and meets its limit."""
    values = request_latencies(record)
    return all(values.get(name, 0.0) <= limit for name, limit in limits.items())


def statistics(name: str, values: Floats) -> dict[str, float | None]:
    """mean, median, std and percentiles with linear interpolation, as numpy and vLLM take them."""
    keys = [f"mean_{name}_ms", f"median_{name}_ms", f"std_{name}_ms", *(f"p{p}_{name}_ms" for p in PERCENTILES)]
    if not len(values):
        return dict.fromkeys(keys)
    percentiles = map(float, np.percentile(values, PERCENTILES))
    return dict(
        zip(keys, [float(values.mean()), float(np.median(values)), float(values.std()), *percentiles], strict=True)
    )


def _rate(run: Run, config: LoadConfig) -> float | str:
    if config.is_replay:
        return "trace"
    return "inf" if math.isinf(run.request_rate) else run.request_rate


def _input_tokens(record: Record) -> int:
    return record.input_len if record.prompt_tokens is None else record.prompt_tokens


def _about_the_generator(run: Run, seconds: float) -> dict[str, Any]:
    """Its lag behind the schedule, without the wait for a slot of max_concurrency, and its share of a core."""
    sent = [record for record in run.records if record.sent]
    lag = np.array([1000 * (record.sent - record.intended - record.slot_wait) for record in sent])
    wait = np.array([1000 * record.slot_wait for record in sent])
    return {
        **{f"{name}_{part}_ms": value for part, values in (("lag", lag), ("slot_wait", wait)) for name, value in (
            ("mean", float(values.mean()) if len(values) else None),
            ("p99", float(np.percentile(values, 99)) if len(values) else None),
            ("max", float(values.max()) if len(values) else None),
        )},
        "client_cpu_share": run.cpu_seconds / seconds,
    }  # fmt: skip


def _about_the_counts(run: Run, done: list[Record], config: LoadConfig) -> dict[str, Any]:
    by_usage = sum(record.counts_by_usage for record in done)
    by_chunk = sum(record.has_running_counts for record in done)
    short = sum(record.num_tokens < record.output_len for record in done) if config.ignore_eos else None
    return {
        "output_token_source": _source(by_usage, len(done), "usage", "chunks"),
        "chunk_token_source": _source(by_chunk, len(done), "usage", "spread evenly"),
        "short_outputs": short,  # ended before the length asked for, though ignore_eos was sent
        "failures": failures(run.records),
    }


def _source(count: int, total: int, yes: str, no: str) -> str | None:
    if not total:
        return None
    return yes if count == total else no if count == 0 else f"{yes} for {count} of {total}, else {no}"


def failures(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Causes with their counts, the most frequent first, each with the words of one request."""
    failed = [record for record in records if not record.is_ok]
    counts = Counter(record.cause for record in failed)
    examples = {record.cause: record.detail for record in reversed(failed)}
    return [{"cause": cause, "count": count, "example": examples[cause]} for cause, count in counts.most_common()]


def best_rate(runs: list[dict[str, Any]], share: float) -> float | str | None:
    """The highest rate of a sweep at which `share` of the requests met the goodput limits, and at every lower one."""
    best = None
    for figures in sorted(runs, key=lambda f: float(f["request_rate"])):
        if figures["goodput_share"] is None or figures["goodput_share"] < share:
            break
        best = figures["request_rate"]
    return best


def per_request(run: Run) -> dict[str, list[Any]]:
    """Lists in the order of sending, under vLLM's names; seconds."""
    records = run.records
    return {
        "start_times": [record.intended - run.begin for record in records],
        "lags": [record.sent - record.intended - record.slot_wait for record in records],
        "input_lens": [_input_tokens(record) for record in records],
        "output_lens": [record.num_tokens for record in records],
        "ttfts": [record.arrivals[0] - record.intended if record.arrivals else None for record in records],
        "itls": [np.diff(np.asarray(record.arrivals)).tolist() for record in records],
        "e2els": [record.ended - record.intended for record in records],
        "errors": [_error(record) for record in records],
    }


def _error(record: Record) -> str:
    return "" if record.cause is None else ": ".join(filter(None, (record.cause, record.detail)))
