"""KVCache owns block numbers: allocation, sharing, and the prefix cache. It never sees a tensor.

A block is free (no reference), or held by one or more sequences. A full block whose tokens are computed is published
under a hash of everything before it; it stays findable while free, until it is taken for something else, oldest first.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Sequence as ListLike
from dataclasses import dataclass

import numpy as np

BlockKey = bytes


def _tagged(*parts: bytes) -> bytes:
    """Length-prefixed, so that no two lists of parts look alike."""
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


@dataclass(frozen=True, slots=True)
class Published:
    """What a findable block holds: its own key, and the parent and tokens a hit is compared with."""

    key: BlockKey
    parent: BlockKey
    tokens: tuple[int, ...]


class KVCache:
    def __init__(self, num_blocks: int, block_size: int, *, enable_prefix_caching: bool) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._enabled = enable_prefix_caching
        self._secret = secrets.token_bytes(32)  # keys of one process say nothing to another
        self._ref_counts = [0] * num_blocks
        self._published: list[Published | None] = [None] * num_blocks
        self._block_by_key: dict[BlockKey, int] = {}
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))  # next to take first

    @property
    def num_free_blocks(self) -> int:
        return len(self._free)

    @property
    def num_used_blocks(self) -> int:
        return self.num_blocks - len(self._free)

    def block_states(self) -> tuple[list[bool], list[bool]]:
        """(held by a sequence, holds a prefix that can be found) of each block."""
        return [count > 0 for count in self._ref_counts], [known is not None for known in self._published]

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def root_key(self, tenant: str, cache_salt: str, adapter_id: int = -1) -> BlockKey:
        """The start of a hash chain: nothing is shared across tenants, salts or adapters (-1: the model alone)."""
        parts = (tenant.encode(), cache_salt.encode(), str(adapter_id).encode())
        return hashlib.sha256(_tagged(b"root", self._secret, *parts)).digest()

    def extend_keys(self, keys: list[BlockKey], root: BlockKey, tokens: ListLike[int], num_blocks: int) -> None:
        """Appends to a hash chain until it names the first num_blocks blocks of tokens."""
        size = self.block_size
        for done in range(len(keys), num_blocks):
            own = np.asarray(tokens[done * size : (done + 1) * size], np.int32)
            parent = keys[-1] if keys else root
            keys.append(hashlib.sha256(_tagged(b"block", parent, own.tobytes())).digest())

    def match_prefix(self, keys: list[BlockKey], root: BlockKey, tokens: ListLike[int], max_tokens: int) -> list[int]:
        """The blocks that already hold the first tokens, at most max_tokens of them, without taking them.

        keys: what is known of the hash chain of tokens; extended as far as this needs.
        """
        blocks: list[int] = []
        if not self._enabled:
            return blocks
        size = self.block_size
        for i in range(max_tokens // size):
            self.extend_keys(keys, root, tokens, i + 1)
            block = self._block_by_key.get(keys[i])
            known = None if block is None else self._published[block]
            parent = keys[i - 1] if i else root
            # equal hashes of different tokens are no hit
            if block is None or known != Published(keys[i], parent, tuple(tokens[i * size : (i + 1) * size])):
                break
            blocks.append(block)
        return blocks

    def is_free(self, block: int) -> bool:
        return self._ref_counts[block] == 0

    def take(self, blocks: ListLike[int]) -> None:
        """One more reference on each."""
        for block in blocks:
            if self._ref_counts[block] == 0:
                del self._free[block]
            self._ref_counts[block] += 1

    def allocate(self, count: int) -> list[int] | None:
        """Blocks with one reference each and no known content; None when there are not so many."""
        if count > len(self._free):
            return None
        blocks = []
        for _ in range(count):
            block, _ = self._free.popitem(last=False)
            self._forget(block)
            self._ref_counts[block] = 1
            blocks.append(block)
        return blocks

    def free(self, blocks: ListLike[int]) -> None:
        """One reference less on each, last block first, so that the tail of a prefix is taken before its head."""
        for block in reversed(blocks):
            self._ref_counts[block] -= 1
            if self._ref_counts[block] == 0:
                self._free[block] = None
                if self._published[block] is None:
                    self._free.move_to_end(block, last=False)

    def publish(self, block: int, content: Published) -> None:
        """Makes a full, computed block findable. A twin that is findable already stays the one."""
        if self._enabled and content.key not in self._block_by_key and self._published[block] is None:
            self._block_by_key[content.key] = block
            self._published[block] = content

    def _forget(self, block: int) -> None:
        known = self._published[block]
        if known is not None:
            del self._block_by_key[known.key]
            self._published[block] = None

    def check(self, held: ListLike[ListLike[int]]) -> None:
        """Raises AssertionError when the books do not balance. held: the blocks of every live sequence."""
        counts = [0] * self.num_blocks
        for blocks in held:
            assert len(set(blocks)) == len(blocks), "a sequence holds a block twice"
            for block in blocks:
                counts[block] += 1
        assert counts == self._ref_counts, "reference counts differ from what sequences hold"
        assert set(self._free) == {b for b, count in enumerate(counts) if count == 0}, "free list differs"
        keys = {known.key: b for b, known in enumerate(self._published) if known is not None}
        assert keys == self._block_by_key, "a findable block is not the one its key names"
