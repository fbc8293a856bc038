"""OpenVINO GenAI on a GGUF file, with the load of peers.py: peer_openvino.py MODEL.gguf 1,8,32 (own environment)"""

from __future__ import annotations

import random
import sys
import time
from typing import Any

import numpy as np
import openvino
import openvino_genai
from peer_load import measure


def open_pipeline(model: str) -> Any:
    config = openvino_genai.SchedulerConfig()
    config.cache_size, config.max_num_batched_tokens, config.max_num_seqs = 4, 2048, 64
    config.enable_prefix_caching, config.dynamic_split_fuse = False, True
    return openvino_genai.ContinuousBatchingPipeline(model, config, "CPU")


def prompts(count: int, length: int) -> list[Any]:
    rows = [[[random.randrange(100, 40000) for _ in range(length)]] for _ in range(count)]
    return [openvino.Tensor(np.array(row, np.int64)) for row in rows]


def seconds(pipeline: Any, batch: list[Any], count: int) -> float:
    options = openvino_genai.GenerationConfig()
    options.max_new_tokens = options.min_new_tokens = count
    options.ignore_eos, options.do_sample = True, False
    begin = time.perf_counter()
    pipeline.generate(batch, [options] * len(batch))
    return time.perf_counter() - begin


def main() -> None:
    random.seed(0)
    pipeline = open_pipeline(sys.argv[1])
    measure(lambda batch, count: seconds(pipeline, batch, count), prompts, sys.argv[2])


if __name__ == "__main__":
    main()
