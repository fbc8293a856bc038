"""KL divergence and top-token agreement of `native` against `reference` on real text, in windows of 512 tokens; of all
positions, and of the second halves, which is what other tools report.

quality.py [--models smollm2,gemma3:270m,qwen2.5-coder:1.5b] [--windows 4] [--text /usr/share/common-licenses/GPL-3]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from common import report

from inferd.executors.native import NativeExecutor
from inferd.executors.reference import ReferenceExecutor
from inferd.models.loader import load_checkpoint
from inferd.tokenizer import load_tokenizer
from support.batches import batch
from support.models import model_path

WINDOW = 512
LLAMA_CPP = {  # measured on the same text against its fp32 dequantization: nats per token, same top token
    "smollm2": (0.0031, 0.963),
    "gemma3:270m": (0.0053, 0.957),
    "qwen2.5-coder:1.5b": (0.0046, 0.976),
}


def compare(want: np.ndarray, got: np.ndarray) -> tuple[float, float]:
    """Sum of KL(want || got) over rows, and how many rows agree on the top token. Rows are logits, fp32."""
    total, same = 0.0, 0
    for p, q in zip(want.astype(np.float64), got.astype(np.float64), strict=True):
        log_p = p - p.max() - np.log(np.exp(p - p.max()).sum())
        log_q = q - q.max() - np.log(np.exp(q - q.max()).sum())
        total += float((np.exp(log_p) * (log_p - log_q)).sum())
        same += int(p.argmax() == q.argmax())
    return total, same


def measure(name: str, text: str, num_windows: int) -> dict[str, Any]:
    checkpoint = load_checkpoint(model_path(name))
    tokenizer = load_tokenizer(checkpoint.tokenizer, checkpoint.spec.vocab_size)
    ids = tokenizer.encode(text, add_special_tokens=False)
    num_windows = min(num_windows, len(ids) // WINDOW)
    sizes = {"num_blocks": WINDOW // 32, "block_size": 32, "max_num_batched_tokens": WINDOW}
    native = NativeExecutor(checkpoint, **sizes, max_num_seqs=1, max_model_len=WINDOW, num_threads=2)
    reference = ReferenceExecutor(checkpoint, **sizes)
    late_total, total, same, begin = 0.0, 0.0, 0, time.perf_counter()
    table = list(range(WINDOW // 32))
    for i in range(num_windows):
        window = ids[i * WINDOW : (i + 1) * WINDOW]
        if tokenizer.add_bos and tokenizer.bos_token_id is not None:
            window = [tokenizer.bos_token_id, *window[:-1]]
        step = batch([(window, 0, table)], logit_rows=range(WINDOW))
        want, got = reference.logits(step), native.logits(step)
        for half in (slice(0, WINDOW // 2), slice(WINDOW // 2, WINDOW)):
            kl, agree = compare(want[half], got[half])
            total, same = total + kl, same + agree
        late_total += kl
        print(f"{name}: window {i + 1}/{num_windows}, KL {total / (i + 1) / WINDOW:.5f}", file=sys.stderr)
    tokens = num_windows * WINDOW
    peer_kl, peer_same = LLAMA_CPP.get(name, (None, None))
    return {
        "tokens": tokens,
        "kl_nats_per_token": round(total / tokens, 5),
        "kl_of_second_halves": round(2 * late_total / tokens, 5),
        "same_top_token": round(same / tokens, 4),
        "llama_cpp_kl": peer_kl,
        "llama_cpp_same_top_token": peer_same,
        "seconds": round(time.perf_counter() - begin, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(LLAMA_CPP))
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--text", default="/usr/share/common-licenses/GPL-3")
    args = parser.parse_args()
    text = Path(args.text).read_text()
    report("quality", {name: measure(name, text, args.windows) for name in args.models.split(",")})


if __name__ == "__main__":
    main()
