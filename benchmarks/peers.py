"""inferd and other CPU engines on the same files, in turn, nothing else on the machine.

peers.py PEERS_DIR MODELS_DIR [--engines llamacpp,openvino,ctranslate2] [--models smollm2,...] [--rounds 2] [--keep]

PEERS_DIR holds `llamacpp/bin` (llama-bench, llama-batched-bench), the virtual environments `openvino` (openvino-genai)
and `ctranslate2`, and for the latter `hf/NAME`, each GGUF file's weights as a bf16 Hugging Face directory; MODELS_DIR
the GGUF files under the names of the model store. Writes results/peers.json, peers.md and
peers.svg. The same load for all: tokens/s of one 512-token prompt, and of B sequences that decode 32 tokens after
64-token prompts, prefix caches off, 2 threads (all cores), best of three; medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import MODELS, RESULTS, report
from peers_plot import roofline

from inferd.models.store import alias_file_name

HERE = Path(__file__).parent
BATCHES = (1, 8, 32)


def run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def parsed(text: str) -> dict[str, float]:
    """Lines `pp512 N t/s` and `B=8 tg N t/s`."""
    found = {f"decode_{size}": float(rate) for size, rate in re.findall(r"B=(\d+) tg ([\d.]+)", text)}
    return {"prefill_512": float(re.search(r"pp512\s+([\d.]+)", text)[1])} | found  # type: ignore[index]


def inferd(name: str, model: Path, peers: Path) -> dict[str, float]:
    command = [sys.executable, str(HERE / "engine.py"), "--models", name, "--print-only"]
    text = run([*command, "--batches", ",".join(map(str, BATCHES))])
    figures = json.loads(text)
    own = figures["models"][name]
    rates = {f"decode_{size}": own[f"decode_{size}_tok_s"] for size in BATCHES}
    limits = {f"limit_{key}": figures["limits"][key] for key in ("int8_tops", "read_gb_s")}
    shares = ("prefill_share_of_int8_peak", "decode_1_share_of_read_bandwidth")
    return {"prefill_512": own["prefill_512_tok_s"]} | rates | limits | {key: own[key] for key in shares}


def llamacpp(name: str, model: Path, peers: Path) -> dict[str, float]:
    """The better of flash attention on and off, for each figure."""
    bin_dir, threads = peers / "llamacpp" / "bin", str(len(os.sched_getaffinity(0)))
    best: dict[str, float] = {}
    for flash in ("0", "1"):
        common = ["-m", str(model), "-t", threads, "-fa", flash]
        text = run([str(bin_dir / "llama-bench"), *common, "-p", "512", "-n", "0", "-r", "3", "-o", "json"])
        rates = {"prefill_512": max(512e9 / ns for ns in json.loads(text)[0]["samples_ns"])}
        sizes = ["-c", "8192", "-npp", "64", "-ntg", "32", "-npl", ",".join(map(str, BATCHES))]
        for _ in range(2):
            table = run([str(bin_dir / "llama-batched-bench"), *common, *sizes])
            for row in re.findall(r"^\|\s*64 \|\s*32 \|(.*)\|$", table, re.MULTILINE):
                cells = [float(cell) for cell in row.split("|")]
                rates[f"decode_{int(cells[0])}"] = max(cells[5], rates.get(f"decode_{int(cells[0])}", 0))
        best = {key: max(rate, best.get(key, 0.0)) for key, rate in rates.items()}
    return best


def openvino(name: str, model: Path, peers: Path) -> dict[str, float]:
    python = str(peers / "openvino" / "bin" / "python")
    script = str(HERE / "peer_openvino.py")
    return parsed(run([python, script, str(model), ",".join(map(str, BATCHES))]))


def ctranslate2(name: str, model: Path, peers: Path) -> dict[str, float]:
    python = str(peers / "ctranslate2" / "bin" / "python")
    folder = str(peers / "hf" / model.stem)
    return parsed(run([python, str(HERE / "peer_ctranslate2.py"), folder, ",".join(map(str, BATCHES))]))


ENGINES: dict[str, Callable[[str, Path, Path], dict[str, float]]] = {
    "llamacpp": llamacpp,
    "openvino": openvino,
    "ctranslate2": ctranslate2,
}


def compare(name: str, engines: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """Medians per engine, and inferd's ratio to the best peer for each figure."""
    model = Path(args.models_dir) / alias_file_name(name)
    os.environ["INFERD_TEST_MODELS"] = args.models_dir
    rounds: dict[str, list[dict[str, float]]] = {}
    for _ in range(args.rounds):
        for engine in ("inferd", *engines):
            measure = inferd if engine == "inferd" else ENGINES[engine]
            try:
                figures = measure(name, model, Path(args.peers_dir))
            except subprocess.CalledProcessError as error:
                print(f"{engine} does not run {name}: {error.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
                continue
            print(name, engine, figures, file=sys.stderr)
            rounds.setdefault(engine, []).append(figures)
    medians = {
        engine: {key: round(statistics.median(r[key] for r in runs), 3) for key in runs[0]}
        for engine, runs in rounds.items()
    }
    ratios = {}
    for key in ("prefill_512", *(f"decode_{size}" for size in BATCHES)):
        best = max((medians[e][key], e) for e in medians if e != "inferd")
        ratios[key] = {"ratio": round(medians["inferd"][key] / best[0], 2), "best_peer": best[1]}
    return {"tok_s": medians, "inferd_over_best_peer": ratios}


def table(models: dict[str, Any]) -> str:
    keys = ["prefill_512", *(f"decode_{size}" for size in BATCHES)]
    lines = ["| model | engine | prefill 512 | " + " | ".join(f"decode {size}" for size in BATCHES) + " |"]
    lines.append("|---" * (3 + len(BATCHES)) + "|")
    for name, figures in models.items():
        for engine, rates in figures["tok_s"].items():
            lines.append(f"| {name} | {engine} | " + " | ".join(f"{rates[key]:.0f}" for key in keys) + " |")
        ratios = (f"{figures['inferd_over_best_peer'][key]['ratio']:.2f}x" for key in keys)
        lines.append(f"| {name} | inferd over the best peer | " + " | ".join(ratios) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers_dir")
    parser.add_argument("models_dir")
    parser.add_argument("--engines", default="llamacpp,openvino,ctranslate2")
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--name", default="peers", help="of the files in results")
    parser.add_argument("--keep", action="store_true", help="leave the models in the file that are not run now")
    args = parser.parse_args()
    file = RESULTS / f"{args.name}.json"
    models = json.loads(file.read_text())["figures"] if args.keep and file.exists() else {}
    models |= {name: compare(name, args.engines.split(","), args) for name in args.models.split(",")}
    report(args.name, models)
    (RESULTS / f"{args.name}.md").write_text(table(models))
    (RESULTS / f"{args.name}.svg").write_text(roofline(models))


if __name__ == "__main__":
    main()
