"""Mutated GGUF files either parse or raise ModelLoadError; never anything else, never much memory."""

from __future__ import annotations

import random
import struct
import tracemalloc
from pathlib import Path

from inferd.errors import ModelLoadError
from inferd.models.gguf import parse_gguf
from inferd.quantization.formats import dequantize_weight
from inferd.quantization.types import TensorType
from support.gguf_writer import Typed, gguf_pieces

NUM_MUTANTS = 50_000
EXTREMES = [0, 1, 2, 7, 8, 9, 12, 13, 31, 33, 127, 128, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
            2**32 + 8, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1]  # fmt: skip


def _pieces() -> list[bytes]:
    metadata = {
        "general.architecture": "llama",
        "general.alignment": 32,
        "a.wide": Typed("q", -1),
        "a.flag": True,
        "a.numbers": [1, 2, 3],
        "a.scores": [0.5, 1.5],
        "a.flags": [True, False],
        "a.tokens": ["x", "yz", "<s>", b"\xff"],
    }
    tensors = {
        "embed": (TensorType.F32, (2, 8), bytes(64)),
        "q": (TensorType.Q4_0, (2, 32), bytes(36)),
        "k": (TensorType.Q6_K, 256, bytes(210)),
        "norm": (TensorType.F16, 8, bytes(16)),
    }
    return gguf_pieces(metadata, tensors)


def _mutate(pieces: list[bytes], rng: random.Random) -> bytes:
    pieces = list(pieces)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        i = rng.randrange(len(pieces))
        piece = pieces[i]
        action = rng.randrange(7)
        if action <= 2 and len(piece) in (4, 8):  # a count, length, type, dim or offset
            value = rng.choice(EXTREMES) if rng.random() < 0.7 else int.from_bytes(piece, "little") + rng.randint(-3, 3)
            pieces[i] = struct.pack("<Q", value % 2**64)[: len(piece)]
        elif action == 3 and piece:
            at = rng.randrange(len(piece))
            pieces[i] = piece[:at] + bytes([rng.randrange(256)]) + piece[at + 1 :]
        elif action == 4:
            pieces.insert(i, pieces[rng.randrange(len(pieces))])
        elif action == 5:
            del pieces[i]
        else:
            pieces[i] = pieces[rng.randrange(len(pieces))]
    raw = b"".join(pieces)
    return raw[: rng.randrange(len(raw) + 1)] if rng.random() < 0.1 else raw


def _parses(raw: bytes) -> bool:
    try:
        file = parse_gguf(raw, Path("x.gguf"))
    except ModelLoadError as error:
        str(error).encode("utf-8")
        return False
    for weight in file.tensors.values():  # every view lies inside the file
        dequantize_weight(weight)
    return True


def test_mutants() -> None:
    pieces = _pieces()
    assert _parses(b"".join(pieces))
    rng = random.Random(8)
    num_parsed = sum(_parses(_mutate(pieces, rng)) for _ in range(NUM_MUTANTS))
    # both verdicts must be well covered, or the mutations are too wild or too tame
    assert NUM_MUTANTS * 0.02 < num_parsed < NUM_MUTANTS * 0.6


def test_mutants_take_little_memory() -> None:
    pieces = _pieces()
    rng = random.Random(9)
    tracemalloc.start()
    try:
        for _ in range(1500):
            _parses(_mutate(pieces, rng))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
