"""Builds the Tokenizer a model file asks for. Byte-level BPE merges in the Rust library `tokenizers`; SentencePiece in
C++ of our own: that library needs a merge list first, which took 3.2 s for Gemma's vocabulary, and this 0.1 s."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers

import inferd._native as _native
from inferd.errors import MalformedFileError, UnsupportedModelError
from inferd.models.checkpoint import TokenizerSource
from inferd.models.safetensors_dir import read_json
from inferd.tokenizer.tokenizer import Encoder, Tokenizer, Vocabulary

_CONTROL, _USER_DEFINED, _BYTE = 3, 4, 6
_SPACE = "\u2581"
# control tokens that end a turn whatever the metadata says
_END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>")
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
# GGUF tokenizer.ggml.pre -> how text is cut before merging
_PRE_KINDS = {
    "default": "gpt2",
    "gpt-2": "gpt2",
    "smollm": "digits",
    "starcoder": "digits",
    "refact": "digits",
    "llama-bpe": "llama3",
    "llama3": "llama3",
    "llama-v3": "llama3",
    "qwen2": "qwen2",
    "deepseek-r1-qwen": "qwen2",
}


def load_tokenizer(source: TokenizerSource, vocab_size: int) -> Tokenizer:
    """vocab_size: the width of the logits. Raises ModelLoadError naming the key or kind that is wrong."""
    if source.gguf_metadata is not None:
        return _from_gguf(_Metadata(dict(source.gguf_metadata)), vocab_size)
    if source.directory is not None:
        return _from_directory(source.directory, vocab_size)
    raise MalformedFileError("the model has no tokenizer")


class _Metadata:
    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def text(self, key: str, default: str = "") -> str:
        return str(self.values.get(f"tokenizer.ggml.{key}", default))

    def list(self, key: str, kind: type, length: int | None = None) -> list[Any]:
        value = self.values.get(f"tokenizer.ggml.{key}")
        ok = isinstance(value, list) and (length is None or len(value) == length)
        if not ok or not all(isinstance(item, kind) for item in value or ()):
            raise MalformedFileError(f"tokenizer.ggml.{key} must be a list of {kind.__name__}, one per token")
        return list(value or ())

    def token_id(self, key: str, num_tokens: int) -> int | None:
        value = self.values.get(f"tokenizer.ggml.{key}_token_id")
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < num_tokens:
            raise MalformedFileError(f"tokenizer.ggml.{key}_token_id = {value} is not a token")
        return value

    def flag(self, key: str, default: bool) -> bool:
        return bool(self.values.get(f"tokenizer.ggml.{key}", default))


def _from_gguf(meta: _Metadata, vocab_size: int) -> Tokenizer:
    tokens = meta.list("tokens", str)
    types = meta.list("token_type", int, len(tokens))
    if len(tokens) > vocab_size:
        raise MalformedFileError(f"tokenizer.ggml.tokens has {len(tokens)} tokens, the model's vocabulary {vocab_size}")
    kind = meta.text("model")
    prefix = kind == "llama" and meta.flag("add_space_prefix", True)
    if kind == "gpt2":
        encoder, token_bytes = _byte_level(meta, tokens, types)
        add_bos, strips = meta.flag("add_bos_token", False), False
    elif kind == "llama":
        encoder, token_bytes = _sentencepiece(meta, tokens, types, prefix)
        add_bos, strips = meta.flag("add_bos_token", True), prefix
    else:
        raise UnsupportedModelError(f"tokenizer.ggml.model = {kind!r} is not supported (supported: gpt2, llama)")
    control = frozenset(i for i, token_type in enumerate(types) if token_type == _CONTROL)
    ends = {meta.token_id(key, len(tokens)) for key in ("eos", "eot", "eom")} - {None}
    ends |= {i for i in control if tokens[i] in _END_OF_TURN}
    vocabulary = Vocabulary(
        token_bytes=token_bytes,
        control_ids=control,
        bos_token_id=meta.token_id("bos", len(tokens)),
        eos_token_ids=frozenset(i for i in ends if i is not None),
        add_bos=add_bos,
        strips_leading_space=strips,
    )
    return Tokenizer(encoder, vocabulary, vocab_size)


def _encoder(engine: tokenizers.Tokenizer) -> Encoder:
    def encode(text: str) -> list[int]:
        ids: list[int] = engine.encode(text, add_special_tokens=False).ids
        return ids

    return encode


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in of each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


# a byte's stand-in -> the byte as a Latin-1 letter; a letter that stands for no byte -> one that Latin-1 lacks
_TO_LATIN1 = dict.fromkeys(range(256), "\uffff") | {ord(c): chr(b) for c, b in _byte_alphabet().items()}


def _byte_level(meta: _Metadata, tokens: list[str], types: list[int]) -> tuple[Encoder, tuple[bytes, ...]]:
    kind = meta.text("pre", "default")
    if kind not in _PRE_KINDS:
        supported = ", ".join(_PRE_KINDS)
        raise UnsupportedModelError(f"tokenizer.ggml.pre = {kind!r} is not supported (supported: {supported})")
    cut = _PRE_KINDS[kind]
    merges = [tuple(merge.split(" ", 1)) for merge in meta.list("merges", str)]
    if not all(len(merge) == 2 for merge in merges):
        raise MalformedFileError("tokenizer.ggml.merges must hold pairs separated by a space")
    engine = tokenizers.Tokenizer(_bpe(tokens, merges, ignore_merges=cut == "llama3"))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut in ("gpt2", "digits"))
    if cut == "digits":
        engine.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    elif cut == "gpt2":
        engine.pre_tokenizer = byte_level
    else:
        pattern = Regex(_LLAMA3 if cut == "llama3" else _QWEN2)
        split = pre_tokenizers.Split(pattern, behavior="isolated", invert=False)
        engine.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    if cut == "qwen2":
        engine.normalizer = normalizers.NFC()
    user_defined = [token for token, token_type in zip(tokens, types, strict=True) if token_type == _USER_DEFINED]
    engine.add_tokens([AddedToken(text, normalized=False) for text in user_defined if text])
    return _encoder(engine), tuple(map(_byte_level_bytes, tokens, types))


def _byte_level_bytes(token: str, token_type: int) -> bytes:
    if token_type not in (_CONTROL, _USER_DEFINED):
        try:
            return token.translate(_TO_LATIN1).encode("latin-1")
        except UnicodeEncodeError:  # not written in GPT-2's alphabet
            pass
    return token.encode("utf-8", "surrogateescape")


def _bpe(tokens: list[str], merges: list[Any], **options: Any) -> Any:
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise MalformedFileError("tokenizer.ggml.tokens has a token twice")
    try:
        return models.BPE(vocab, merges, **options)
    except Exception as error:  # the library raises bare Exception for a merge outside the vocabulary
        raise MalformedFileError(f"tokenizer.ggml.merges: {error}") from None


def _sentencepiece(
    meta: _Metadata, tokens: list[str], types: list[int], prefix: bool
) -> tuple[Encoder, tuple[bytes, ...]]:
    scores = meta.list("scores", float, len(tokens))
    if len(set(tokens)) != len(tokens):
        raise MalformedFileError("tokenizer.ggml.tokens has a token twice")
    unknown = meta.token_id("unknown", len(tokens))
    # user-defined tokens may be written with spaces; they are looked for in text that has none
    spaced = [t.replace(" ", _SPACE) if kind == _USER_DEFINED else t for t, kind in zip(tokens, types, strict=True)]
    raw = [token.encode("utf-8", "surrogateescape") for token in spaced]
    try:
        pieces = _native.SentencePiece(
            b"".join(raw),
            np.cumsum([len(piece) for piece in raw], dtype=np.int64),
            np.array(scores, np.float32),
            np.array(types, np.int32),
            -1 if unknown is None else unknown,
        )
    except (ValueError, OverflowError) as error:
        raise MalformedFileError(f"tokenizer.ggml.tokens: {error}") from None
    space = _SPACE.encode()
    token_bytes = [piece.replace(space, b" ") for piece in raw]
    for i, token_type in enumerate(types):
        if token_type == _BYTE:
            token_bytes[i] = bytes([int(tokens[i][3:5], 16)])

    def encode(text: str) -> list[int]:
        return pieces.encode((_SPACE if prefix and text else "") + text.replace(" ", _SPACE))

    return encode, tuple(token_bytes)


def _from_directory(path: Path, vocab_size: int) -> Tokenizer:
    file = path / "tokenizer.json"
    if not file.exists():
        raise UnsupportedModelError(f"{path.name} has no tokenizer.json")
    text = file.read_text("utf-8")
    try:
        engine = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise MalformedFileError(f"tokenizer.json: {error}") from None
    config_file = path / "tokenizer_config.json"
    config = read_json(config_file) if config_file.exists() else {}
    generation_file = path / "generation_config.json"
    generation = read_json(generation_file) if generation_file.exists() else {}
    added = engine.get_added_tokens_decoder()
    control = frozenset(i for i, token in added.items() if token.special)
    bos = _named_id(engine, config.get("bos_token"))
    eos = {_named_id(engine, config.get("eos_token"))}
    listed = generation.get("eos_token_id")
    eos |= set(listed if isinstance(listed, list) else [listed])
    eos |= {i for i in control if added[i].content in _END_OF_TURN}
    num_tokens = max(engine.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    if num_tokens > vocab_size:
        raise MalformedFileError(f"tokenizer.json has {num_tokens} tokens, the model's vocabulary {vocab_size}")
    vocabulary = Vocabulary(
        token_bytes=_directory_bytes(engine, text, num_tokens),
        control_ids=control,
        bos_token_id=bos,
        eos_token_ids=frozenset(i for i in eos if isinstance(i, int)),
        add_bos=bool(config.get("add_bos_token", bos is not None and engine.encode("").ids[:1] == [bos])),
        strips_leading_space='"Strip"' in text,
    )
    plain = tokenizers.Tokenizer.from_str(text)
    plain.encode_special_tokens = True
    return Tokenizer(_encoder(plain), vocabulary, vocab_size, recognising=_encoder(engine))


def _named_id(engine: tokenizers.Tokenizer, token: Any) -> int | None:
    content = token.get("content") if isinstance(token, dict) else token
    found: int | None = engine.token_to_id(content) if isinstance(content, str) else None
    return found


def _directory_bytes(engine: tokenizers.Tokenizer, text: str, num_tokens: int) -> tuple[bytes, ...]:
    alphabet = _byte_alphabet() if '"ByteLevel"' in text else None
    added = engine.get_added_tokens_decoder()
    result = []
    for i in range(num_tokens):
        token = engine.id_to_token(i) or ""
        if i in added:
            result.append(token.encode())
        elif alphabet is not None and all(c in alphabet for c in token):
            result.append(bytes(alphabet[c] for c in token))
        elif alphabet is None and len(token) == 6 and token.startswith("<0x"):
            result.append(bytes([int(token[3:5], 16)]))
        else:
            result.append(token.replace(_SPACE, " ").encode())
    return tuple(result)
