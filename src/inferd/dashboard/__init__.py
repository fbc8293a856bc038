"""The dashboard: one HTML file, built from web/ and served as it is. It holds no data; the browser asks for that."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_BUILT = Path(__file__).with_name("page.html")
_PLAIN = Path(__file__).with_name("plain.html")
_INLINE = re.compile(rb"<(script|style)\b[^>]*>(.*?)</\1>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Page:
    html: bytes
    policy: str  # its Content-Security-Policy
    etag: str
    is_built: bool


@cache
def page() -> Page:
    """The built page where there is one, else a plain one that says how to build it."""
    is_built = _BUILT.is_file()
    html = (_BUILT if is_built else _PLAIN).read_bytes()
    return Page(html, policy_of(html), f'"{hashlib.sha256(html).hexdigest()[:32]}"', is_built)


def policy_of(html: bytes) -> str:
    """Lets in the scripts and styles that html itself holds, by their hashes, and calls to the server it came from."""
    hashes: dict[bytes, list[str]] = {b"script": [], b"style": []}
    for kind, text in _INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(text).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    rules = {
        "default-src": "'none'",
        "script-src": " ".join(hashes[b"script"]) or "'none'",
        "style-src": " ".join(hashes[b"style"]) or "'none'",
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "svelte-trusted-html",  # the name of the framework's own policy
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())
