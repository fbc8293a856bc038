"""From process start to the first token, page cache warm: coldstart.py [--models smollm2,...] [--repeat 5]

`inferd run MODEL PROMPT` (in one process), and `inferd serve MODEL` until a streamed completion brought its first
token; and the resident memory of a process that has loaded the model and answered once.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from common import MODELS, report

from inferd.bench import coldstart
from support.models import model_path

MEMORY = """
import os, sys, psutil
from inferd import LLM, SamplingParams
llm = LLM(sys.argv[1], max_model_len=512, max_num_seqs=1)
llm.generate("hello", SamplingParams(max_tokens=2), use_tqdm=False)
print(psutil.Process().memory_info().rss)
"""


def resident(model: str) -> int:
    return int(subprocess.run([sys.executable, "-c", MEMORY, model], check=True, capture_output=True).stdout)


def measure(name: str, repeat: int) -> dict[str, Any]:
    model = model_path(name)
    starts = coldstart.measure(coldstart.ColdStartConfig(model=model, repeat=repeat))
    size, rss = model.stat().st_size, resident(str(model))
    return {
        "run_to_first_token_s": round(starts["run_first_token_s"], 3),
        "serve_to_first_token_s": round(starts["serve_first_token_s"], 3),
        "file_mib": round(size / 2**20, 1),
        "resident_mib": round(rss / 2**20, 1),
        "resident_over_file": round(rss / size, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    report("coldstart", {name: measure(name, args.repeat) for name in args.models.split(",")})


if __name__ == "__main__":
    main()
