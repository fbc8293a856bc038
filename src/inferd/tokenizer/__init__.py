"""Text ends here: tokenizers, chat templates, incremental detokenization, stop strings."""

from inferd.tokenizer.build import load_tokenizer
from inferd.tokenizer.tokenizer import Tokenizer

__all__ = ["Tokenizer", "load_tokenizer"]
