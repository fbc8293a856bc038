"""Small random encoders of every family as model directories: the same bytes wherever they are made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

VOCAB_SIZE, HIDDEN, FFN, HEADS, LAYERS, POSITIONS = 96, 64, 96, 4, 2, 40
FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert")
CLASSES = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "distilbert": "DistilBert"}


def make(folder: Path, family: str, num_labels: int = 0) -> Path:
    """num_labels 0: an encoder alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(_config(family, num_labels)))
    rng = np.random.default_rng([FAMILIES.index(family), num_labels])
    shapes = _shapes(family, num_labels)
    save_file({name: _values(rng, name, shape) for name, shape in shapes.items()}, folder / "model.safetensors")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(VOCAB_SIZE - 5))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return folder


def _values(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.standard_normal(shape).astype(np.float32) * np.float32(0.12)
    return 1 + values if "norm" in name.lower() and name.endswith("weight") else values


def _config(family: str, num_labels: int) -> dict[str, object]:
    kind = "ForSequenceClassification" if num_labels else "Model"
    config: dict[str, object] = {
        "model_type": family,
        "architectures": [CLASSES[family] + kind],
        "vocab_size": VOCAB_SIZE,
    }
    if num_labels:
        config["id2label"] = {str(i): f"label {i}" for i in range(num_labels)}
    if family == "distilbert":
        sizes = {"dim": HIDDEN, "hidden_dim": FFN, "n_heads": HEADS, "n_layers": LAYERS, "activation": "gelu"}
        return config | sizes | {"max_position_embeddings": POSITIONS, "pad_token_id": 0}
    pad = 0 if family == "bert" else 1
    sizes = {"hidden_size": HIDDEN, "intermediate_size": FFN, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS}
    rest = {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "type_vocab_size": 2 if family == "bert" else 1}
    return config | sizes | rest | {"max_position_embeddings": POSITIONS, "pad_token_id": pad}


def _shapes(family: str, num_labels: int) -> dict[str, tuple[int, ...]]:
    inner = {"bert": "bert.", "distilbert": "distilbert."}.get(family, "roberta.") if num_labels else ""
    shapes: dict[str, tuple[int, ...]] = {}

    def dense(name: str, out: int, width: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, width), (out,)

    def norm(name: str) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (HIDDEN,), (HIDDEN,)

    tables = {"word": VOCAB_SIZE, "position": POSITIONS, "token_type": 2 if family == "bert" else 1}
    for table, size in tables.items():
        if family != "distilbert" or table != "token_type":
            shapes[f"{inner}embeddings.{table}_embeddings.weight"] = (size, HIDDEN)
    norm(f"{inner}embeddings.LayerNorm")
    for i in range(LAYERS):
        if family == "distilbert":
            at = f"{inner}transformer.layer.{i}."
            for name in ("q_lin", "k_lin", "v_lin", "out_lin"):
                dense(f"{at}attention.{name}", HIDDEN, HIDDEN)
            names = ("sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm")
        else:
            at = f"{inner}encoder.layer.{i}."
            for name in ("self.query", "self.key", "self.value", "output.dense"):
                dense(f"{at}attention.{name}", HIDDEN, HIDDEN)
            names = ("attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm")
        norm(at + names[0])
        dense(at + names[1], FFN, HIDDEN)
        dense(at + names[2], HIDDEN, FFN)
        norm(at + names[3])
    if num_labels:
        heads = {"bert": ("bert.pooler.dense", "classifier"), "distilbert": ("pre_classifier", "classifier")}
        first, last = heads.get(family, ("classifier.dense", "classifier.out_proj"))
        dense(first, HIDDEN, HIDDEN)
        dense(last, num_labels, HIDDEN)
    return shapes


def inputs() -> list[list[int]]:
    """Token ids of inputs of different lengths, one of them as long as the model reads."""
    rng = np.random.default_rng(7)
    return [rng.integers(5, VOCAB_SIZE, length).tolist() for length in (1, 2, 3, 7, 16, 17, 31, POSITIONS - 2)]
