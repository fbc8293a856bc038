"""The BERT family from Hugging Face directories: BERT and MiniLM, RoBERTa and XLM-RoBERTa, DistilBERT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inferd.errors import MalformedFileError, UnsupportedModelError
from inferd.models.encoder_spec import EncoderActivation, EncoderSpec, HeadActivation
from inferd.models.families import Hf

_ACTIVATIONS: dict[str, EncoderActivation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
_BERT_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "attn_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "ffn_norm": "output.LayerNorm",
}
_DISTILBERT_LAYER = {
    "q": "attention.q_lin",
    "k": "attention.k_lin",
    "v": "attention.v_lin",
    "o": "attention.out_lin",
    "attn_norm": "sa_layer_norm",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
    "ffn_norm": "output_layer_norm",
}


@dataclass(frozen=True, slots=True)
class Names:
    """How a family calls its tensors. classifier: (dense layer, activation) behind the first token's state."""

    prefix: str  # of everything but the classifier, in models that have more than the encoder
    layers: str
    inside: dict[str, str]
    classifier: tuple[tuple[str, HeadActivation], ...]
    first_position: int = 0  # row of the position table that the first token reads


_BERT = Names("bert.", "encoder.layer.", _BERT_LAYER, (("bert.pooler.dense", "tanh"), ("classifier", "none")))
_ROBERTA_HEAD: tuple[tuple[str, HeadActivation], ...] = (("classifier.dense", "tanh"), ("classifier.out_proj", "none"))
_DISTILBERT_HEAD: tuple[tuple[str, HeadActivation], ...] = (("pre_classifier", "relu"), ("classifier", "none"))


def names_of(config: Hf, family: str) -> Names:
    if family == "bert":
        return _BERT
    if family == "distilbert":
        return Names("distilbert.", "transformer.layer.", _DISTILBERT_LAYER, _DISTILBERT_HEAD)
    # RoBERTa counts positions from the one after padding
    return Names("roberta.", "encoder.layer.", _BERT_LAYER, _ROBERTA_HEAD, config.integer("pad_token_id", 1) + 1)


def spec_from_hf(config: Hf, family: str) -> EncoderSpec:
    """Without heads. Raises ModelLoadError naming the field."""
    config.refuse("is_decoder", "add_cross_attention")
    kind = config.get("position_embedding_type", "absolute")
    if kind != "absolute":
        message = f"config.json: position_embedding_type = {kind!r} is not supported (supported: absolute)"
        raise UnsupportedModelError(message)
    distil = family == "distilbert"
    field: dict[str, str] = (
        {"hidden": "dim", "ffn": "hidden_dim", "heads": "n_heads", "layers": "n_layers", "act": "activation"}
        if distil
        else {
            "hidden": "hidden_size",
            "ffn": "intermediate_size",
            "heads": "num_attention_heads",
            "layers": "num_hidden_layers",
            "act": "hidden_act",
        }
    )
    spec = EncoderSpec(
        family=family,
        vocab_size=config.integer("vocab_size"),
        hidden_size=config.integer(field["hidden"]),
        ffn_size=config.integer(field["ffn"]),
        num_heads=config.integer(field["heads"]),
        num_layers=config.num_layers(field["layers"]),
        max_position=config.integer("max_position_embeddings") - names_of(config, family).first_position,
        norm_eps=1e-12 if distil else float(config.number("layer_norm_eps", 1e-12)),
        num_types=0 if distil else config.integer("type_vocab_size", 2),
        activation=_activation(config.get(field["act"], "gelu"), field["act"]),
    )
    _check(spec)
    return spec


def tensor_names(config: Hf, family: str, num_layers: int) -> dict[str, tuple[str, ...]]:
    """Canonical name (encoder_spec.encoder_shapes) -> names in the file, without the family's prefix. Several are
    joined row by row. Heads are left out."""
    names = names_of(config, family)
    tables = {"word": "word_embeddings", "position": "position_embeddings", "type": "token_type_embeddings"}
    found: dict[str, tuple[str, ...]] = {key: (f"embeddings.{name}.weight",) for key, name in tables.items()}
    found |= _pair("embed_norm", "embeddings.LayerNorm")
    for i in range(num_layers):
        at, inside = f"{names.layers}{i}.", names.inside
        for key in ("o", "attn_norm", "up", "down", "ffn_norm"):
            found |= _pair(f"layers.{i}.{key}", at + inside[key])
        found |= _pair(f"layers.{i}.qkv", *(at + inside[key] for key in "qkv"))
    return found


def _pair(key: str, *names: str) -> dict[str, tuple[str, ...]]:
    return {key: tuple(f"{n}.weight" for n in names), key + "_bias": tuple(f"{n}.bias" for n in names)}


def _activation(name: Any, field: str) -> EncoderActivation:
    if name not in _ACTIVATIONS:
        supported = ", ".join(_ACTIVATIONS)
        raise UnsupportedModelError(f"config.json: {field} = {name!r} is not supported (supported: {supported})")
    return _ACTIVATIONS[name]


def _check(spec: EncoderSpec) -> None:
    def require(ok: bool, what: str) -> None:
        if not ok:
            raise MalformedFileError(f"the model's configuration is not sane: {what}")

    require(1 <= spec.num_heads <= 1024, f"{spec.num_heads} heads")
    require(1 <= spec.hidden_size <= 1 << 16, f"hidden size {spec.hidden_size}")
    require(spec.hidden_size % spec.num_heads == 0, f"hidden size {spec.hidden_size} for {spec.num_heads} heads")
    require(1 <= spec.ffn_size <= 1 << 20, f"feed-forward size {spec.ffn_size}")
    require(spec.num_layers >= 1, "no layers")
    require(1 <= spec.vocab_size <= 1 << 24, f"vocabulary of {spec.vocab_size}")
    require(1 <= spec.max_position <= 1 << 20, f"{spec.max_position} positions")
    require(0 <= spec.norm_eps < 1, f"norm epsilon {spec.norm_eps}")
    require(spec.num_types <= 1024, f"{spec.num_types} token types")
