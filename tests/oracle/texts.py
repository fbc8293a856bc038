"""Ten thousand texts from a seed: the same on every machine, so that goldens hold a hash per text only."""

from __future__ import annotations

import hashlib
import random
import struct

NUM_TEXTS = 10_000
_WORDS = (
    "the quick brown fox jumps over it's we'll I'D don't THEY'VE naïve façade Straße ΑΒΓ αβγδ Привет мир "
    "日本語 東京タワー 中文字符 한국어 العربية עברית हिन्दी ไทย ქართული Ελλάδα İstanbul ıİ "
    "ﬁne ﬀ Ǆ x² H₂O ½ ⅷ ٣٤٥ १२३ ㊗ 𝒜𝓑 𝟘𝟙 𐍈 ꙮ "
    "foo_bar camelCase __init__ http://a.b/c?d=e&f=%20 user@example.com $100.00 1,000,000 3.14159e-10 0x1F 2024-02-29"
).split()
_CODE = (
    "def f(x):\n    return x\n", "\tif (a && b) {\n\t\tc++;\n\t}\n", "<div class=\"a\">\n  <p>&amp;</p>\n</div>",
    "#!/bin/sh\r\n", "{'a': [1, 2, {\"b\": null}]}", "x = y if z else w  # note", "/* c */ // d\n",
    "SELECT * FROM t WHERE a='b';",
    "```python\nprint('hi')\n```", "\\frac{a}{b}^{2}", "a\r\nb\r\n\r\nc", "\n\n\n", "\r\r", "<table><tr><td>",
)  # fmt: skip
_MARKS = (
    "e\u0301", "\u0301", "a\u0323\u0302", "n\u0303o\u0308", "\u1112\u1161\u11ab", "👩‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🇩🇪🇫🇷",
    "1️⃣", "\u200b", "\u200d", "\ufeff", "\u00ad", "\u202e", "\u2028", "\u0085", "\u3000", "\u00a0", "\u2581",
    "\u2581\u2581", "\x00", "\x1b[0m", "\x7f", "\ufffd", "\uffff", "\ufdd0", "\U0010ffff", "\ud800",
    "\udfff", "\ud83d\ude00",
)  # fmt: skip
_CONTROL = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<bos>", "<eos>", "<pad>", "<unk>", "<start_of_turn>",
    "<end_of_turn>", "<unused0>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<file_sep>", "<|eot_id|>", "<0x41>",
    "[multimodal]", "<s>", "</s>", "<|im_start", "im_end|>", "<|im_start|>user\n", "[PAD151665]", "<mask>",
    "<repo_name>",
)  # fmt: skip
_PLANES = ((0x20, 0x7F), (0x80, 0x500), (0x500, 0x3000), (0x3000, 0xD800), (0xE000, 0x10000), (0x10000, 0x20000),
           (0x20000, 0x40000), (0xE0000, 0xE0200), (0x40000, 0x110000), (0x0, 0x20), (0x1F300, 0x1FB00))  # fmt: skip


def texts(count: int = NUM_TEXTS, seed: int = 20) -> list[str]:
    """Some hold lone surrogates: an encoder must treat each as three bytes that are no UTF-8, so U+FFFD thrice."""
    rng = random.Random(seed)
    return [_text(rng) for _ in range(count)]


def clean(text: str) -> str:
    """What the text is once it is valid Unicode."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def hash_ids(ids: list[int]) -> int:
    """32 bits that stand for a list of token ids."""
    raw = struct.pack(f"<{len(ids)}i", *ids)
    return int.from_bytes(hashlib.blake2b(raw, digest_size=4).digest(), "little")


def _text(rng: random.Random) -> str:
    return "".join(_piece(rng) for _ in range(rng.choice((1, 1, 2, 3, 5, 8, 13, 21))))


def _piece(rng: random.Random) -> str:
    kind = rng.randrange(12)
    if kind <= 2:
        return rng.choice(("", " ", " ", " ")) + rng.choice(_WORDS)
    if kind == 3:
        return "".join(rng.choice(" \t\n\r \u00a0\u3000  ") for _ in range(rng.choice((1, 2, 3, 7, 20, 40))))
    if kind == 4:
        return rng.choice(" \n\t") * rng.choice((1, 2, 3, 4, 8, 16, 31, 32, 33, 70))
    if kind == 5:
        return "".join(rng.choice("0123456789") for _ in range(rng.choice((1, 2, 3, 4, 7, 12))))
    if kind == 6:
        return rng.choice(_CODE)
    if kind == 7:
        return rng.choice(_MARKS)
    if kind == 8:
        return rng.choice(_CONTROL)
    if kind == 9:
        return "".join(rng.choice("aAbB'.,;:!?-_()[]{}<>|/\\\"`~@#$%^&*+= \n") for _ in range(rng.randint(1, 12)))
    if kind == 10:
        return "".join(chr(rng.randrange(*rng.choice(_PLANES))) for _ in range(rng.randint(1, 6)))
    return rng.choice("aé漢😀 \n-=") * rng.choice((2, 3, 5, 9, 17))
