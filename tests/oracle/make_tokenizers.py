"""Token ids of ten thousand texts by transformers, and by the sentencepiece library where transformers is not right.

    python tests/oracle/make_tokenizers.py MODEL_FOLDER      (transformers 5.24, sentencepiece; a minute)

Writes tests/golden/tokenizers.npz: for each model two arrays (10,000,) of 32-bit hashes of the ids, with control
strings recognised ("special") and left as text ("plain"). Where transformers' conversion of a GGUF tokenizer
departs from the tokenizer the model was published with, the published form is put back first:
- SmolLM2: the conversion does not know `pre = smollm`, which cuts every digit off by itself before the GPT-2 cut;
- Qwen2.5: it leaves out the NFC normaliser;
- Gemma: it finds runs of spaces by merging, while SentencePiece takes the longest user-defined piece first (33 spaces
  are 31 + 2, not 16 + 17): here the library sentencepiece itself is the oracle, its model rebuilt from the metadata.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import regex
import sentencepiece
import transformers
from gguf import GGUFReader
from make_greedy import GOLDEN, MODELS
from sentencepiece import sentencepiece_model_pb2 as proto
from texts import clean, hash_ids, texts
from tokenizers import normalizers, pre_tokenizers

Encode = Callable[[str, bool], list[int]]  # text, whether control strings are recognised
_CONTROL, _UNKNOWN = 3, 2


def metadata_of(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in GGUFReader(path).fields.items() if name.startswith("tokenizer.")}


def transformers_encoder(path: Path) -> Encode:
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    engine = tokenizer.backend_tokenizer
    if "SmolLM2" in path.name:
        digits = pre_tokenizers.Digits(individual_digits=True)
        engine.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    if "qwen" in path.name:
        engine.normalizer = normalizers.NFC()

    def encode(text: str, special: bool) -> list[int]:
        engine.encode_special_tokens = not special
        return list(engine.encode(text, add_special_tokens=False).ids)

    return encode


def sentencepiece_encoder(path: Path) -> Encode:
    metadata = metadata_of(path)
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    processor = sentencepiece.SentencePieceProcessor(model_proto=_model_proto(metadata))
    controls = {token: i for i, token in enumerate(tokens) if types[i] == _CONTROL}
    pattern = regex.compile("(" + "|".join(map(regex.escape, sorted(controls, key=len, reverse=True))) + ")")

    def encode(text: str, special: bool) -> list[int]:
        ids: list[int] = []
        for i, part in enumerate(pattern.split(text) if special else [text]):
            ids += [controls[part]] if i % 2 else processor.encode(part)
        return ids

    return encode


def _model_proto(metadata: dict[str, Any]) -> bytes:
    model = proto.ModelProto()
    unknown = metadata["tokenizer.ggml.unknown_token_id"]
    keys = ("tokens", "scores", "token_type")
    for i, (token, score, kind) in enumerate(zip(*(metadata[f"tokenizer.ggml.{key}"] for key in keys), strict=True)):
        piece = token.replace(" ", "\u2581")
        model.pieces.add(piece=piece, score=score, type=_UNKNOWN if i == unknown else kind)
    model.trainer_spec.model_type = proto.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.unk_id, model.trainer_spec.bos_id = unknown, metadata["tokenizer.ggml.bos_token_id"]
    model.trainer_spec.eos_id, model.trainer_spec.pad_id = metadata["tokenizer.ggml.eos_token_id"], 0
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    return bytes(model.SerializeToString())


def encoder(path: Path) -> Encode:
    return sentencepiece_encoder(path) if "gemma" in path.name else transformers_encoder(path)


def hashes(encode: Encode, special: bool, count: int) -> np.ndarray:
    """(count,) uint32"""
    return np.array([hash_ids(encode(clean(text), special)) for text in texts()[:count]], np.uint32)


def main(folder: str) -> None:
    arrays = {}
    for name, file_name in MODELS.items():
        encode = encoder(Path(folder) / file_name)
        for view in ("special", "plain"):
            arrays[f"{name}:{view}"] = hashes(encode, view == "special", len(texts()))
    np.savez_compressed(GOLDEN / "tokenizers.npz", **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
