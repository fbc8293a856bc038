"""Recomputes the goldens with transformers and compares; models that transformers itself saves are loaded too."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import make_families
import make_greedy
import make_templates
import transformers
from plain_tokenizers import PlainTokenizer
from texts import clean, hash_ids, texts

from inferd.models.checkpoint import TokenizerSource
from inferd.models.gguf import read_gguf
from inferd.models.loader import load_checkpoint
from inferd.tokenizer import load_tokenizer
from model.test_families import TOLERANCE, check, reference_logits
from support.models import local_model_path

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(3600)]

GOLDEN = Path(__file__).parent.parent / "golden"
ALIASES = {"smollm2": "smollm2", "gemma3-270m": "gemma3:270m", "qwen2.5-coder-1.5b": "qwen2.5-coder:1.5b"}


def test_greedy_ids() -> None:
    golden = np.load(GOLDEN / "greedy-smollm2.npz")
    again = make_greedy.greedy(local_model_path("smollm2"), num_prompts=2)
    np.testing.assert_array_equal(again["ids"], golden["ids"][:2])
    np.testing.assert_allclose(again["gaps"], golden["gaps"][:2], atol=1e-3)


@pytest.mark.parametrize("name", make_families.FAMILIES)
def test_families(name: str) -> None:
    logits = make_families.logits_of(make_families.build(name))
    np.testing.assert_allclose(logits, np.load(GOLDEN / "families.npz")[name], atol=TOLERANCE)


@pytest.mark.parametrize("max_shard_size", ["1GB", "40KB"])
@pytest.mark.parametrize("name", make_families.FAMILIES)
def test_models_saved_by_transformers(name: str, max_shard_size: str, tmp_path: Path) -> None:
    make_families.build(name).save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1 or max_shard_size == "1GB"
    check(name, load_checkpoint(tmp_path))


@pytest.mark.parametrize("name", ["llama3", "gemma3"])
def test_models_saved_in_bf16(name: str, tmp_path: Path) -> None:
    """The fp32 logits of the rounded weights."""
    make_families.build(name).bfloat16().save_pretrained(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="float32", attn_implementation="eager")
    want = make_families.logits_of(model.eval())
    assert np.abs(reference_logits(load_checkpoint(tmp_path)) - want).max() <= TOLERANCE


@pytest.mark.parametrize("view", ["special", "plain"])
@pytest.mark.parametrize("name", ALIASES)
def test_token_ids(name: str, view: str) -> None:
    """By the library, and by the plain algorithm (one in a thousand may differ: Unicode tables of other ages)."""
    make_tokenizers = pytest.importorskip("make_tokenizers")
    path = local_model_path(ALIASES[name])
    golden = np.load(GOLDEN / "tokenizers.npz")[f"{name}:{view}"]
    again = make_tokenizers.hashes(make_tokenizers.encoder(path), view == "special", len(golden))
    np.testing.assert_array_equal(again, golden)
    plain = PlainTokenizer(make_tokenizers.metadata_of(path))
    mine = [hash_ids(plain.encode(clean(text), parse_special=view == "special")) for text in texts()]
    assert (np.array(mine, np.uint32) != golden).mean() <= 1e-3


@pytest.mark.parametrize("name", ["smollm2", "qwen2.5-coder-1.5b"])
def test_decoded_text(name: str) -> None:
    """Random ids, so that most sequences are no valid UTF-8; byte-level tokenizers only (transformers' byte fallback
    replaces a whole run of bytes when one of them is wrong)."""
    path = local_model_path(ALIASES[name])
    engine = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).backend_tokenizer
    file = read_gguf(path)
    width = file.tensors["token_embd.weight"].num_rows
    tokenizer, rng = load_tokenizer(TokenizerSource(gguf_metadata=file.metadata), width), random.Random(3)
    for skip in (True, False):
        for _ in range(2000):
            ids = [rng.randrange(tokenizer.num_tokens) for _ in range(rng.randint(1, 20))]
            assert tokenizer.decode(ids, skip_special_tokens=skip) == engine.decode(ids, skip_special_tokens=skip)


def test_templates() -> None:
    golden: dict[str, Any] = json.loads((GOLDEN / "templates.json").read_text("utf-8"))
    folder = local_model_path("qwen2.5-coder:1.5b").parent
    if not all((folder / file).is_file() for file in make_greedy.MODELS.values()):
        pytest.skip("the three models do not lie in one folder (INFERD_TEST_MODELS)")
    assert make_templates.goldens(folder) == golden
