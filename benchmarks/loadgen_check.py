"""`inferd bench serve` against an independent load generator, aiperf, on the same prompts and loads: on inferd and on
a server of which is known that it sends a token every 10 ms. loadgen_check.py --aiperf VENV/bin/aiperf [--repeat 3]

The tools take turns. A figure agrees when the means of the tools differ by less than the spread of the repeats of
either tool or by 5 %, whichever is more. Results: benchmarks/results/loadgen_check.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import RESULTS, free_port, report, server

NUM_TOKENS = 64
INTERVAL = 0.010  # seconds between two tokens of the paced server
BENCH = [sys.executable, "-m", "inferd", "bench", "serve"]
WORDS = "river stone light garden number window paper morning system train cloud silver bridge story market".split()
NAMES = {  # ours: theirs
    "request_throughput": ("request_throughput", "avg"),
    "output_throughput": ("output_token_throughput", "avg"),
    "median_ttft_ms": ("time_to_first_token", "p50"),
    "mean_ttft_ms": ("time_to_first_token", "avg"),
    "mean_tpot_ms": ("inter_token_latency", "avg"),  # aiperf's is a mean over each request, as our tpot
    "median_icl_ms": ("inter_chunk_latency", "p50"),
    "median_e2el_ms": ("request_latency", "p50"),
    "p99_e2el_ms": ("request_latency", "p99"),
}
LOADS: list[tuple[str, list[str], list[str], int]] = [  # name, ours, theirs, requests
    ("1 client", ["--max-concurrency", "1"], ["--concurrency", "1"], 8),
    ("8 clients", ["--max-concurrency", "8"], ["--concurrency", "8"], 48),
    ("5 req/s", ["--request-rate", "5", "--arrival", "constant"],
     ["--request-rate", "5", "--arrival-pattern", "constant"], 30),
]  # fmt: skip


def event(facts: dict[str, Any]) -> bytes:
    data = b"data: " + json.dumps(facts).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


async def paced(port: int) -> None:
    """Answers every request with NUM_TOKENS chunks, one every INTERVAL from the arrival on."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "paced"}
    token = event({**head, "choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]})
    usage = {"prompt_tokens": 100, "completion_tokens": NUM_TOKENS, "total_tokens": 100 + NUM_TOKENS}
    end = event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
    end += event({**head, "choices": [], "usage": usage}) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
            length = sum(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            if lines[0].startswith(b"get"):
                body = b'{"data": [{"id": "paced"}]}'
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                continue
            begin = loop.time()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for number in range(1, NUM_TOKENS + 1):
                await asyncio.sleep(begin + number * INTERVAL - loop.time())
                if writer.is_closing():
                    return
                writer.write(token)
            writer.write(end)

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, RuntimeError):
            await answer(reader, writer)

    async with await asyncio.start_server(connection, "127.0.0.1", port) as listening:
        await listening.serve_forever()


def run_paced(port: int) -> None:
    asyncio.run(paced(port))


@contextlib.contextmanager
def paced_server() -> Iterator[str]:
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=run_paced, args=(port,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()


def write_inputs(folder: Path) -> None:
    """The same prompts for both, and a tokenizer for aiperf, which wants one even where the server counts."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    rng = random.Random(1)
    texts = [" ".join(rng.choices(WORDS, k=100)) for _ in range(200)]
    ours = [{"conversations": [{"from": "human", "value": t}, {"from": "gpt", "value": "x"}]} for t in texts]
    (folder / "ours.json").write_text(json.dumps(ours))
    lines = (json.dumps({"text": text, "output_length": NUM_TOKENS}) for text in texts)
    (folder / "theirs.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "tokenizer").mkdir()
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(["[UNK]", *WORDS])}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.save(str(folder / "tokenizer" / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(config))


def ours(url: str, load: list[str], count: int, folder: Path) -> dict[str, float]:
    arguments = ["--dataset", "sharegpt", "--dataset-path", str(folder / "ours.json"), "--output-len", str(NUM_TOKENS)]
    arguments += ["--num-prompts", str(count), "--num-warmups", "8", "--output", str(folder / "ours.out.json")]
    subprocess.run([*BENCH, "--url", url, *arguments, *load], check=True, capture_output=True)
    figures = json.loads((folder / "ours.out.json").read_text())
    if figures["failed"]:
        raise RuntimeError(f"{figures['failures']}")
    seconds = figures["client_cpu_share"] * figures["duration"]
    return {name: figures[name] for name in NAMES} | {"cpu_us": 1e6 * seconds / figures["total_output_tokens"]}


def theirs(aiperf: str, url: str, model: str, load: list[str], count: int, folder: Path) -> dict[str, float]:
    out = tempfile.mkdtemp(dir=folder)
    command = [
        aiperf,
        "profile",
        "-m",
        model,
        "-u",
        url,
        "--endpoint-type",
        "chat",
        "--streaming",
        "--artifact-dir",
        out,
    ]
    command += [
        "--input-file",
        str(folder / "theirs.jsonl"),
        "--custom-dataset-type",
        "single_turn",
        "--ui-type",
        "none",
    ]
    command += ["--tokenizer", str(folder / "tokenizer"), "--use-server-token-count", "--use-legacy-max-tokens"]
    command += ["--extra-inputs", '{"temperature": 0, "ignore_eos": true}', "--request-count", str(count)]
    command += ["--warmup-request-count", "8", "--workers-max", "1", *load]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    found = json.loads(next(Path(out).glob("*aiperf.json")).read_text())
    return {name: found[key][statistic] for name, (key, statistic) in NAMES.items()}


def compare(args: argparse.Namespace, url: str, model: str, folder: Path) -> dict[str, Any]:
    figures = {}
    for name, load, other_load, count in LOADS:
        if args.load in (None, name):
            pairs = [
                (ours(url, load, count, folder), theirs(args.aiperf, url, model, other_load, count, folder))
                for _ in range(args.repeat)
            ]
            figures[name] = {
                key: row([one[key] for one, _ in pairs], [other[key] for _, other in pairs]) for key in NAMES
            }
    return figures


async def httpx_cpu_us(url: str, num_clients: int = 8, num_requests: int = 6) -> float:
    """What reading the same streams with httpx costs this process, in microseconds for each token."""
    import httpx

    async def one() -> None:
        for _ in range(num_requests):
            async with client.stream("POST", "/v1/chat/completions", json={"messages": []}) as answer:
                chunks = [json.loads(line[6:]) async for line in answer.aiter_lines() if line.startswith("data: {")]
            assert len(chunks) == NUM_TOKENS + 2

    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        before = time.process_time()
        await asyncio.gather(*(one() for _ in range(num_clients)))
        return 1e6 * (time.process_time() - before) / (num_clients * num_requests * NUM_TOKENS)


def cost(url: str, repeat: int, folder: Path) -> dict[str, float]:
    mine = [ours(url, ["--max-concurrency", "8"], 48, folder)["cpu_us"] for _ in range(repeat)]
    other = [asyncio.run(httpx_cpu_us(url)) for _ in range(repeat)]
    return {"inferd_cpu_us_per_token": round(min(mine), 1), "httpx_cpu_us_per_token": round(min(other), 1)}


def row(mine: list[float], others: list[float]) -> dict[str, Any]:
    mean, other = statistics.mean(mine), statistics.mean(others)
    spread = max(max(mine) - min(mine), max(others) - min(others), 0.05 * other)
    difference = 100 * (mean / other - 1)
    agrees = abs(mean - other) <= spread
    return {
        "inferd": round(mean, 2),
        "aiperf": round(other, 2),
        "difference_percent": round(difference, 1),
        "agrees": agrees,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aiperf", required=True, help="the executable")
    parser.add_argument("--model", default="smollm2", help="an alias or a file")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=("cost", "paced", "served"), help="one part; the others keep their figures")
    parser.add_argument("--load", choices=[name for name, *_ in LOADS], help="one load; the others keep their figures")
    args = parser.parse_args()
    path = RESULTS / "loadgen_check.json"
    figures: dict[str, Any] = json.loads(path.read_text())["figures"] if path.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        if args.only in (None, "cost"):
            with paced_server() as url:
                figures["cost"] = cost(url, args.repeat, folder)
        if args.only in (None, "paced"):
            with paced_server() as url:
                figures["paced"] = figures.get("paced", {}) | compare(args, url, "paced", folder)
        if args.only in (None, "served"):
            options = ("--no-enable-prefix-caching", "--speculative", "off", "--served-model-name", "served")
            # each its cores: processes of the generators must not slow the server down
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, cores[: len(cores) // 2])
            with server(args.model, *options) as (url, _):
                os.sched_setaffinity(0, cores[len(cores) // 2 :])
                figures["served"] = figures.get("served", {}) | compare(args, url, "served", folder)
    report("loadgen_check", figures)


if __name__ == "__main__":
    main()
