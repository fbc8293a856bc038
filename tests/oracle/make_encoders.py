"""Golden outputs of encoders by transformers, fp32: small random ones of every family, and MiniLM where it is stored.

make_encoders.py [MINILM_DIR]: writes tests/golden/encoders.npz
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.tiny_encoders import FAMILIES, inputs, make

GOLDEN = Path(__file__).parents[1] / "golden" / "encoders.npz"
TEXTS = (
    "The cat sits on the mat.",
    "A feline rests on a rug.",
    "Stock markets fell sharply on Monday after the report.",
    "Wo ist der Bahnhof? 東京駅はどこですか。 Où est la gare ?",
    "def add(a, b):\n    return a + b",
    "x",
    "Inference is the part of machine learning in which a trained model answers. " * 12,
)


def tiny_outputs(folder: Path) -> dict[str, np.ndarray]:
    """states: the mean over tokens; scores: raw values of three labels."""
    found = {}
    for family in FAMILIES:
        vectors = transformers.AutoModel.from_pretrained(make(folder / family, family)).eval()
        scores = transformers.AutoModelForSequenceClassification.from_pretrained(
            make(folder / f"{family}-3", family, 3)
        ).eval()
        with torch.inference_mode():
            rows = [torch.tensor([ids]) for ids in inputs()]
            means = [vectors(input_ids=row).last_hidden_state[0].mean(dim=0).numpy() for row in rows]
            firsts = [vectors(input_ids=row).last_hidden_state[0, 0].numpy() for row in rows]
            logits = [scores(input_ids=row).logits[0].numpy() for row in rows]
        found[f"{family}.mean"], found[f"{family}.cls"] = np.stack(means), np.stack(firsts)
        found[f"{family}.scores"] = np.stack(logits)
    return found


def minilm_outputs(folder: str) -> dict[str, np.ndarray]:
    """The vectors of TEXTS, mean of at most 256 tokens, length one."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    rows, ids = [], []
    for text in TEXTS:
        encoded = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            row = model(**encoded).last_hidden_state[0].mean(dim=0)
        rows.append((row / row.norm()).numpy())
        ids.append(encoded["input_ids"][0].numpy().astype(np.int32))
    starts = np.cumsum([0, *map(len, ids)]).astype(np.int32)
    return {"minilm.vectors": np.stack(rows), "minilm.ids": np.concatenate(ids), "minilm.starts": starts}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = tiny_outputs(Path(folder))
    if len(sys.argv) > 1:
        found |= minilm_outputs(sys.argv[1])
    np.savez_compressed(GOLDEN, texts=np.array(TEXTS), **found)
    print({name: array.shape for name, array in found.items()})


if __name__ == "__main__":
    main()
