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

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def root_key(self, tenant: str, cache_salt: str) -> BlockKey:
        """The start of a hash chain: nothing is shared across tenants or salts."""
        return hashlib.sha256(_tagged(b"root", self._secret, tenant.encode(), cache_salt.encode())).digest()

    def block_key(self, parent: BlockKey, tokens: ListLike[int]) -> BlockKey:
        return hashlib.sha256(_tagged(b"block", parent, np.asarray(tokens, np.int32).tobytes())).digest()

    def match_prefix(self, root: BlockKey, tokens: ListLike[int], max_tokens: int) -> list[int]:
        """The blocks that already hold the first tokens, at most max_tokens of them, without taking them."""
        blocks: list[int] = []
        if not self._enabled:
            return blocks
        parent, size = root, self.block_size
        for begin in range(0, max_tokens - size + 1, size):
            own = tuple(tokens[begin : begin + size])
            key = self.block_key(parent, own)
            block = self._block_by_key.get(key)
            if block is None:
                break
            known = self._published[block]
            if known is None or known.parent != parent or known.tokens != own:
                break  # equal hashes of different tokens
            blocks.append(block)
            parent = key
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

    def publish(self, block: int, parent: BlockKey, tokens: ListLike[int]) -> BlockKey:
        """Makes a full, computed block findable; returns its key. A twin that is findable already stays the one."""
        key = self.block_key(parent, tokens)
        if self._enabled and key not in self._block_by_key and self._published[block] is None:
            self._block_by_key[key] = block
            self._published[block] = Published(key, parent, tuple(tokens))
        return key

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
