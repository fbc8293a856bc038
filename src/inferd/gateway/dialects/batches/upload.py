"""A file that a client sends as a form, to disk as it comes."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from inferd.errors import InvalidRequestError
from inferd.gateway.errors import HttpError

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a broken form is told to its sender, not to the log
MAX_FILE_SIZE = 200 * 2**20
_MAX_FORM_SIZE = MAX_FILE_SIZE + 2**16  # with the other fields
_FIELDS = {"file", "purpose"}


async def receive_file(request: Request, timeout: float, target: Path) -> tuple[str, str]:
    """Writes the form's file to target: (its name, the purpose). timeout: seconds between two pieces of the body.

    Raises HttpError or InvalidRequestError.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise HttpError(415, "A file is sent as multipart/form-data.", headers={"connection": "close"})
    try:
        parser = MultiPartParser(request.headers, _body(request, timeout), max_files=1, max_fields=8)
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidRequestError(f"the form cannot be read: {error.message}") from None
    try:
        return await _take(form, target)
    finally:
        await form.close()


async def _take(form: FormData, target: Path) -> tuple[str, str]:
    unknown = sorted(set(form) - _FIELDS)
    if unknown:
        raise InvalidRequestError(f"{unknown[0][:80]} is not supported", param=unknown[0][:80])
    file, purpose = form.get("file"), form.get("purpose")
    if not isinstance(file, UploadFile):
        raise InvalidRequestError("file must be a file", param="file")
    if purpose != "batch":
        raise InvalidRequestError(f'purpose must be "batch", got {str(purpose)[:80]!r}', param="purpose")
    if (file.size or 0) > MAX_FILE_SIZE:
        raise _too_large()
    await asyncio.to_thread(_write, file, target)
    return (file.filename or "file")[:255], purpose


def _write(file: UploadFile, target: Path) -> None:
    with target.open("xb") as out:
        target.chmod(0o600)
        shutil.copyfileobj(file.file, out)


async def _body(request: Request, timeout: float) -> AsyncGenerator[bytes, None]:
    size, parts = 0, request.stream()
    while True:
        try:
            async with asyncio.timeout(timeout):
                part = await anext(parts)
        except StopAsyncIteration:
            return
        except TimeoutError:
            message = f"Nothing of the body came within {timeout:g} s."
            raise HttpError(408, message, headers={"connection": "close"}) from None
        except ClientDisconnect:
            raise HttpError(499, "The client left.") from None
        size += len(part)
        if size > _MAX_FORM_SIZE:
            raise _too_large()
        yield part


def _too_large() -> HttpError:
    return HttpError(413, f"A file has at most {MAX_FILE_SIZE} bytes.", headers={"connection": "close"})
