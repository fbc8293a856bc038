"""KL divergence and top-token agreement of `native` against `reference` on real text, in windows of 512 tokens; of all
positions, and of the second halves, which is what other tools report. `inferd eval quality` for several models.

quality.py [--models smollm2,gemma3:270m,qwen2.5-coder:1.5b] [--windows 4] [--text /usr/share/common-licenses/GPL-3]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from common import report

from inferd.eval.compare import Scoring, compare
from support.models import model_path

LLAMA_CPP = {  # measured on the same text against its fp32 dequantization: nats per token, same top token
    "smollm2": (0.0031, 0.963),
    "gemma3:270m": (0.0053, 0.957),
    "qwen2.5-coder:1.5b": (0.0046, 0.976),
}


def measure(name: str, scoring: Scoring) -> dict[str, Any]:
    def show(done: int, total: int) -> None:
        print(f"{name}: window {done}/{total}", file=sys.stderr)

    results = compare(str(model_path(name)), scoring, "reference", progress=show)
    peer_kl, peer_same = LLAMA_CPP.get(name, (None, None))
    peers = {"llama_cpp_kl": peer_kl, "llama_cpp_same_top_token": peer_same}
    return {**results.summary, **peers, "seconds": round(results.seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(LLAMA_CPP))
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--text", default="/usr/share/common-licenses/GPL-3")
    args = parser.parse_args()
    scoring = Scoring(text=Path(args.text), num_windows=args.windows)
    report("quality", {name: measure(name, scoring) for name in args.models.split(",")})


if __name__ == "__main__":
    main()
