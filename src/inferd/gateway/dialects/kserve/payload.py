"""Bodies as bytes, which may be compressed; and the JSON of one with the binary tensors behind it."""

from __future__ import annotations

import zlib

from starlette.requests import Request
from starlette.responses import Response

from inferd.errors import InvalidRequestError
from inferd.gateway.body import read_bytes
from inferd.gateway.config import ServerConfig
from inferd.gateway.errors import HttpError

HEADER_LENGTH = "inference-header-content-length"
COMPRESS_FROM = 1024  # bytes; below, the time is worth more
_WINDOW_BITS = {"gzip": 31, "deflate": 15}  # zlib's: 31 reads and writes the gzip format
_LEVEL = 1  # the fastest: tensors of floats hardly shrink more at a higher one


async def read_payload(request: Request, config: ServerConfig) -> tuple[bytes, bytes]:
    """(JSON, binary tensors). Raises HttpError, also when the body is too large after decompression."""
    body = _decompressed(await read_bytes(request, config), request.headers.get("content-encoding", ""), config)
    length = request.headers.get(HEADER_LENGTH)
    if length is None:
        return body, b""
    if not length.isdecimal() or int(length[:20]) > len(body):
        raise InvalidRequestError(f"{HEADER_LENGTH} must be from 0 to the {len(body)} bytes of the body")
    return body[: int(length)], body[int(length) :]


def _decompressed(body: bytes, encoding: str, config: ServerConfig) -> bytes:
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOW_BITS:
        raise HttpError(415, "The content encoding must be gzip, deflate or identity.")
    stream = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        plain = stream.decompress(body, config.max_body_size + 1)
    except zlib.error:
        raise InvalidRequestError(f"the body is not valid {encoding}") from None
    if len(plain) > config.max_body_size:
        raise HttpError(413, f"The decompressed body is larger than {config.max_body_size} bytes.")
    if not stream.eof or stream.unused_data:
        raise InvalidRequestError(f"the body is not one complete {encoding} stream")
    return plain


def payload_response(request: Request, head: bytes, binary: list[bytes]) -> Response:
    """Compressed where the client takes that. head: JSON. binary: the tensors behind it."""
    headers = {HEADER_LENGTH: str(len(head))} if binary else {}
    body = b"".join([head, *binary])
    encoding = _wanted(request.headers.get("accept-encoding", ""))
    if encoding and len(body) >= COMPRESS_FROM:
        stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS[encoding])
        body = stream.compress(body) + stream.flush()
        headers |= {"content-encoding": encoding, "vary": "accept-encoding"}
    return Response(body, headers=headers, media_type="application/octet-stream" if binary else "application/json")


def _wanted(accepted: str) -> str:
    """The first encoding of Accept-Encoding that is known here and not ruled out; "" for none."""
    for part in accepted.split(","):
        name, _, weight = part.partition(";")
        if name.strip().lower() in _WINDOW_BITS and weight.replace(" ", "") not in ("q=0", "q=0.0"):
            return name.strip().lower()
    return ""
