"""From process start to the first token, page cache warm: coldstart.py [--models smollm2,...] [--repeat 5]

`inferd run MODEL PROMPT` (in one process), and `inferd serve MODEL` until a streamed chat brought its first token; and
the resident memory of a process that has loaded the model and answered once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from common import free_port, report

from support.models import model_path

MEMORY = """
import os, sys, psutil
from inferd import LLM, SamplingParams
llm = LLM(sys.argv[1], max_model_len=512, max_num_seqs=1)
llm.generate("hello", SamplingParams(max_tokens=2), use_tqdm=False)
print(psutil.Process().memory_info().rss)
"""


def run_first_token(model: str) -> float:
    command = [sys.executable, "-m", "inferd", "run", model, "hello", "--max-tokens", "8"]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        seconds = time.perf_counter() - begin
        process.stdout.read()
    if not first or process.returncode:
        raise RuntimeError(f"inferd run {model} ended with {process.returncode}")
    return seconds


def serve_first_token(model: str) -> float:
    port = free_port()
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": Path(model).stem, "messages": messages, "max_tokens": 4, "stream": True}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    command = [sys.executable, "-m", "inferd", "serve", model, "--port", str(port)]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            return _first_token(request, begin)
        finally:
            process.terminate()


def _first_token(request: urllib.request.Request, begin: float) -> float:
    while time.perf_counter() - begin < 60:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                for line in answer:
                    if b'"content":"' in line and b'"content":""' not in line:
                        return time.perf_counter() - begin
        except OSError:
            time.sleep(0.005)
    raise TimeoutError("no token within 60 s")


def resident(model: str) -> int:
    return int(subprocess.run([sys.executable, "-c", MEMORY, model], check=True, capture_output=True).stdout)


def measure(name: str, repeat: int) -> dict[str, Any]:
    model = str(model_path(name))
    run_first_token(model)
    runs = [run_first_token(model) for _ in range(repeat)]
    serves = [serve_first_token(model) for _ in range(repeat)]
    size, rss = os.path.getsize(model), resident(model)
    return {
        "run_to_first_token_s": round(statistics.median(runs), 3),
        "serve_to_first_token_s": round(statistics.median(serves), 3),
        "file_mib": round(size / 2**20, 1),
        "resident_mib": round(rss / 2**20, 1),
        "resident_over_file": round(rss / size, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="smollm2,gemma3:270m,qwen2.5-coder:1.5b")
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    report("coldstart", {name: measure(name, args.repeat) for name in args.models.split(",")})


if __name__ == "__main__":
    main()
