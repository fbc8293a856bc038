"""The document of a benchmark, and its figures as lines for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inferd.bench.config import SYNTHETIC, LoadConfig
from inferd.bench.load import Run
from inferd.bench.metrics import LATENCIES, best_rate, per_request, summarize
from inferd.bench.plots import load_name
from inferd.bench.target import Facts

NAMES = {"ttft": "time to first token", "tpot": "time per output token", "itl": "time between tokens",
         "icl": "time between chunks", "e2el": "end to end"}  # fmt: skip
LATENCY_HEADER = ("MILLISECONDS", "MEAN", "P50", "P90", "P95", "P99")
SWEEP_HEADER = ("LOAD", "DONE", "FAILED", "REQ/S", "TOK/S", "TTFT P50", "TTFT P99", "ITL P50", "ITL P99", "E2EL P99",
                "GOOD")  # fmt: skip
OFFLINE_HEADER = ("BATCH", "PREFILL TOK/S", "DECODE TOK/S", "OUTPUT TOK/S", "TTFT P50 MS", "TTFT P99 MS", "E2EL P50 MS")
LAG_WORTH_SAYING_MS = 5.0
CPU_WORTH_SAYING = 0.7
CACHED_WORTH_SAYING = 0.05


def document(
    origin: dict[str, Any], runs: list[Run], config: LoadConfig, facts: Facts, *, detailed: bool = False
) -> dict[str, Any]:
    """One run: its figures at the top, as vLLM writes them. A sweep: a list of such under "runs".

    origin: `provenance()` from before the run; detailed: with lists of every request.
    """
    parts = [summarize(run, config) | (per_request(run) if detailed else {}) for run in runs]
    head = {
        "benchmark": "serve",
        **origin,
        "url": config.url,
        "backend": "openai-chat" if config.api == "chat" else "openai",
        "model_id": facts.model,
        "server_version": facts.version,
        "tokens_per_word": facts.scale.per_word if facts.scale.is_measured else None,
        "stream_options": facts.stream_options,
        "arguments": arguments(config),
        "num_prompts": sum(len(run.records) for run in runs),
        "burstiness": config.burstiness,
    }
    if len(parts) == 1:
        return head | parts[0]
    best = best_rate(parts, config.goodput_share) if config.goodput and len(config.request_rates) > 1 else None
    return head | {"max_rate_within_goodput": best, "runs": parts}


def arguments(config: LoadConfig) -> dict[str, Any]:
    """Without the key, and without the values of headers."""
    values = asdict(config)
    values["api_key"] = "***" if config.api_key else None
    values["headers"] = dict.fromkeys(config.headers, "***")
    values["request_rates"] = ["inf" if rate == float("inf") else rate for rate in config.request_rates]
    return values


def write_json(path: Path, facts: dict[str, Any]) -> None:
    path.write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n", "utf-8")


def latency_rows(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for each latency: mean and percentiles in milliseconds."""
    keys = ("mean", "p50", "p90", "p95", "p99")
    return [(NAMES[name], *(_number(figures[f"{key}_{name}_ms"]) for key in keys)) for name in LATENCIES]


def sweep_rows(parts: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    keys = ("median_ttft_ms", "p99_ttft_ms", "median_itl_ms", "p99_itl_ms", "p99_e2el_ms")
    return [
        (
            load_name(part), str(part["completed"]), str(part["failed"]), f"{part['request_throughput']:.2f}",
            f"{part['output_throughput']:.1f}", *(_number(part[key]) for key in keys), _share(part["goodput_share"]),
        )
        for part in parts
    ]  # fmt: skip


def offline_rows(parts: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    rates = ("prefill_throughput", "decode_throughput", "output_throughput")
    keys = (*rates, "median_ttft_ms", "p99_ttft_ms", "median_e2el_ms")
    return [(str(part["batch_size"]), *(_number(part[key]) for key in keys)) for part in parts]


def fact_lines(figures: dict[str, Any]) -> list[tuple[str, str]]:
    source = figures["output_token_source"]
    rows = [
        ("load", load_name(figures)),
        ("requests", f"{figures['completed']} done, {figures['failed']} failed, in {figures['duration']:.1f} s"),
        ("tokens in", f"{figures['total_input_tokens']}, of which {figures['total_cached_tokens']} from a cache"),
        ("tokens out", f"{figures['total_output_tokens']}" + (f" (counted by {source})" if source else "")),
        ("requests/s", f"{figures['request_throughput']:.2f}"),
        ("output tokens/s", f"{figures['output_throughput']:.1f}"),
        ("all tokens/s", f"{figures['total_token_throughput']:.1f}"),
        ("most at once", str(figures["max_concurrent_requests"])),
    ]
    if figures["request_goodput"] is not None:
        share = _share(figures["goodput_share"])
        rows.append(("goodput", f"{figures['request_goodput']:.2f} requests/s ({share} of the requests)"))
    if figures["mean_slot_wait_ms"]:
        rows.append(("wait for a slot", f"mean {_number(figures['mean_slot_wait_ms'])} ms, in the latencies below"))
    lag = f"p99 {_number(figures['p99_lag_ms'])} ms, {100 * figures['client_cpu_share']:.0f} % of a core"
    return [*rows, ("generator's lag", lag)]


def warnings(figures: dict[str, Any], config: LoadConfig, facts: Facts) -> list[str]:
    """What makes the figures less than they seem."""
    said = [f"{row['count']} failed: {row['cause']}" + (f": {row['example']}" if row["example"] else "")
            for row in figures["failures"]]  # fmt: skip
    if figures["completed"] and figures["output_token_source"] != "usage":
        said.append("the server sends no usage: chunks were counted as tokens")
    if not facts.scale.is_measured and config.dataset in SYNTHETIC:
        said.append("the server does not count prompt tokens: one word was taken as one token")
    if figures["short_outputs"]:
        said.append(f"{figures['short_outputs']} answers ended before the length asked for")
    if (figures["p99_lag_ms"] or 0) > LAG_WORTH_SAYING_MS or figures["client_cpu_share"] > CPU_WORTH_SAYING:
        said.append("the generator itself was late or busy: its lag is part of the latencies")
    template = facts.scale.overhead * figures["completed"]  # every prompt of a chat begins with it
    cached = (figures["total_cached_tokens"] - template) / max(1, figures["total_input_tokens"])
    if config.dataset == "random" and cached > CACHED_WORTH_SAYING:
        said.append(f"{100 * cached:.0f} % of the prompt tokens came from a cache: use another --seed for each run")
    return said


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
