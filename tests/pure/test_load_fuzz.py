"""Whole models with mutated metadata or config: they load, or fail with a ModelLoadError that can be printed."""

from __future__ import annotations

import json
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inferd.errors import ModelLoadError, ModelNotFoundError
from inferd.models.loader import load_checkpoint
from inferd.quantization.types import TensorType
from inferd.tokenizer import load_tokenizer
from model.test_families import DESCRIBED, tensors_of, write_directory
from model.test_families_gguf import ARCHITECTURES, gguf_tensors, metadata_of
from support.gguf_writer import Typed, gguf_bytes
from support.quantize import quantize

MAX_GROWTH_KB = 64 << 10
NAMES = ("llama3", "qwen2", "gemma3", "phi3_longrope")
NUMBERS: list[Any] = [0, 1, 2, 3, 7, -1, 2**31 - 1, 2**31, 2**32 - 1, 2**53 + 1, 0.5, -0.0, 1e-300, 1e38]
VALUES = [*NUMBERS, True, False, "", "x", "llama", "longrope", "\ud800", [], [1], [0.5, "a"], ["a"] * 3]
GGUF_VALUES = [*NUMBERS[:-2], Typed("f", float("inf")), Typed("f", float("nan")), Typed("q", -(2**63)),
               Typed("Q", 2**64 - 1), True, False, "", "x", "llama", "longrope", [], [1, 2], [0.5],
               ["a"] * 3]  # fmt: skip
JSON_VALUES = [*VALUES, None, {}, {"rope_type": "llama3"}, float("nan"), float("inf"), 10**400, [[]], [{"a": 1}]]
TOKENS = ["<unk>", "<s>", "</s>", "\u2581", "a", "b", "ab", "\u2581a", *(f"<0x{byte:02X}>" for byte in range(56))]
TOKENIZER = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.pre": "default",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.scores": [-float(i) for i in range(64)],
    "tokenizer.ggml.token_type": [2, 3, 3, 1, 1, 1, 1, 1, *[6] * 56],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.add_space_prefix": False,
    "tokenizer.chat_template": "{{ messages }}",
    "general.sampling.temp": 0.7,
    "general.sampling.top_k": 40,
}


def loads(path: Path) -> bool:
    try:
        checkpoint = load_checkpoint(path)
        if path.is_file():
            load_tokenizer(checkpoint.tokenizer, checkpoint.spec.vocab_size).decode([0, 5, 70])
    except (ModelLoadError, ModelNotFoundError) as error:
        str(error).encode("utf-8")
        return False
    return True


def run(count: int, mutant: Callable[[random.Random], Path], good: Path) -> None:
    """Every mutant within a second, the process no more than 64 MiB larger in the end."""
    assert loads(good)
    rng = random.Random(11)
    before, num_loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for _ in range(count):
        path = mutant(rng)
        begin = time.process_time()
        num_loaded += loads(path)
        assert time.process_time() - begin < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH_KB
    assert 0.02 * count < num_loaded < 0.9 * count  # mutations neither too wild nor too tame


def gguf_parts(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    config = DESCRIBED[name]["config"]
    architecture = ARCHITECTURES.get(config["model_type"], config["model_type"])
    tensors = {}
    for key, values in gguf_tensors(name, architecture).items():
        kind = TensorType.F16 if values.ndim == 2 else TensorType.F32
        raw = quantize(kind, values.reshape(-1, values.shape[-1]))
        tensors[key] = (kind, values.shape if values.ndim == 2 else len(values), raw.tobytes())
    return metadata_of(config, architecture) | TOKENIZER, tensors


def gguf_mutants(name: str, folder: Path) -> tuple[Callable[[random.Random], Path], Path]:
    metadata, tensors = gguf_parts(name)
    path, good = folder / "mutant.gguf", folder / "good.gguf"
    good.write_bytes(gguf_bytes(metadata, tensors))

    def mutant(rng: random.Random) -> Path:
        keys, parts = dict(metadata), dict(tensors)
        for _ in range(rng.choice((1, 1, 2))):
            mutate_gguf(rng, keys, parts)
        raw = bytearray(gguf_bytes(keys, parts))
        if rng.random() < 0.3:
            raw[rng.randrange(min(len(raw), 4000))] = rng.randrange(256)
        path.write_bytes(raw)
        return path

    return mutant, good


def mutate_gguf(rng: random.Random, keys: dict[str, Any], tensors: dict[str, Any]) -> None:
    key, name = rng.choice(list(keys)), rng.choice(list(tensors))
    action = rng.randrange(8)
    if action <= 3:
        keys[key] = rng.choice(GGUF_VALUES)
    elif action == 4:
        del keys[key]
    elif action == 5 and isinstance(keys[key], list) and keys[key]:
        items = list(keys[key])
        items[rng.randrange(len(items))] = rng.choice(items) if rng.random() < 0.5 else type(items[0])(7)
        keys[key] = items if rng.random() < 0.7 else items[:-1]
    elif action == 6:
        del tensors[name]
    elif len(tensors) > 1:
        kind, shape, data = tensors[name]
        other = (shape[1], shape[0]) if isinstance(shape, tuple) else (1, shape)
        tensors[name] = (kind, other, data)


def directory_mutants(name: str, folder: Path) -> tuple[Callable[[random.Random], Path], Path]:
    config = DESCRIBED[name]["config"] | {"eos_token_id": [2, 3]}
    good = write_directory(folder / "good", config, tensors_of(name))
    path = write_directory(folder / "mutant", config, tensors_of(name))

    def mutant(rng: random.Random) -> Path:
        changed = json.loads(json.dumps(config))
        for _ in range(rng.choice((1, 1, 2))):
            mutate_json(rng, changed)
        (path / "config.json").write_text(json.dumps(changed))
        generation: dict[str, Any] = {"temperature": 0.5, "top_k": 5, "repetition_penalty": 1.1, "eos_token_id": 2}
        mutate_json(rng, generation)
        (path / "generation_config.json").write_text(json.dumps(generation))
        return path

    return mutant, good


def mutate_json(rng: random.Random, value: dict[str, Any]) -> None:
    key = rng.choice(list(value))
    inner = value[key]
    if isinstance(inner, dict) and inner and rng.random() < 0.7:
        mutate_json(rng, inner)
    elif isinstance(inner, list) and inner and rng.random() < 0.5:
        inner[rng.randrange(len(inner))] = rng.choice(JSON_VALUES)
    elif rng.random() < 0.15:
        del value[key]
    else:
        value[key] = rng.choice(JSON_VALUES)


@pytest.mark.parametrize("name", NAMES)
def test_gguf(name: str, tmp_path: Path) -> None:
    run(300, *gguf_mutants(name, tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_directories(name: str, tmp_path: Path) -> None:
    run(300, *directory_mutants(name, tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("make", [gguf_mutants, directory_mutants])
@pytest.mark.parametrize("name", NAMES)
def test_many(name: str, make: Any, tmp_path: Path) -> None:
    run(5000, *make(name, tmp_path))
