"""CTranslate2 (int8) on a Hugging Face directory, with the load of peers.py: peer_ctranslate2.py HF_DIR 1,8,32 (own
environment). The converted model is kept beside HF_DIR."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from typing import Any

import ctranslate2
from peer_load import measure


def open_generator(model: str) -> tuple[Any, list[str]]:
    folder = model.rstrip("/") + ".ct2"
    if not os.path.exists(folder):
        ctranslate2.converters.TransformersConverter(model).convert(folder, quantization="int8")
    threads = len(os.sched_getaffinity(0))
    generator = ctranslate2.Generator(folder, device="cpu", intra_threads=threads, inter_threads=1, compute_type="int8")
    with open(os.path.join(folder, "vocabulary.json"), encoding="utf-8") as file:
        return generator, json.load(file)


def seconds(generator: Any, prompts: list[list[str]], count: int) -> float:
    options = {"max_length": count, "min_length": count, "include_prompt_in_result": False, "sampling_topk": 1}
    begin = time.perf_counter()
    generator.generate_batch(prompts, **options)
    return time.perf_counter() - begin


def main() -> None:
    rng = random.Random(0)
    generator, vocabulary = open_generator(sys.argv[1])

    def prompts(count: int, length: int) -> list[list[str]]:
        return [[vocabulary[rng.randrange(100, 40000)] for _ in range(length)] for _ in range(count)]

    measure(lambda batch, count: seconds(generator, batch, count), prompts, sys.argv[2])


if __name__ == "__main__":
    main()
