"""Requests under which the engine died: one that ran in two crashes is refused for a while, so that others go on."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable

import msgspec

from inferd.errors import InvalidRequestError
from inferd.worker.protocol import Generate

MAX_CRASHES = 2
REFUSED_SECONDS = 600.0
MAX_SUSPECTS = 4096


def _fingerprint(command: Generate) -> bytes:
    """Equal for requests that make the engine do the same: all but the id."""
    same = (command.prompt, command.sampling, command.tenant, command.cache_salt, command.adapter)
    body = msgspec.msgpack.encode(same)
    return hashlib.blake2b(body, digest_size=16).digest()


class Quarantine:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._crashes: dict[bytes, tuple[int, float]] = {}  # fingerprint -> (crashes it ran in, when the last was)

    def check(self, command: Generate) -> None:
        """Raises InvalidRequestError for a request that is refused."""
        if not self._crashes:
            return
        count, at = self._crashes.get(_fingerprint(command), (0, 0.0))
        if count >= MAX_CRASHES and self._clock() - at < REFUSED_SECONDS:
            raise InvalidRequestError(
                f"The engine stopped {count} times while this request was running. "
                f"It is refused for {REFUSED_SECONDS / 60:.0f} minutes.",
                code="quarantined",
            )

    def blame(self, suspects: Iterable[Generate]) -> None:
        """All that ran when the engine died; the innocent clear themselves by finishing."""
        now = self._clock()
        for suspect in set(map(_fingerprint, suspects)):
            count, at = self._crashes.pop(suspect, (0, now))
            self._crashes[suspect] = (count + 1 if now - at < REFUSED_SECONDS else 1, now)
        while len(self._crashes) > MAX_SUSPECTS:
            del self._crashes[next(iter(self._crashes))]

    def absolve(self, command: Generate) -> None:
        if self._crashes:
            self._crashes.pop(_fingerprint(command), None)
