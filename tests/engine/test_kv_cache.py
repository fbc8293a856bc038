"""KVCache: a random life of 100,000 operations with all invariants checked after each, and the rules one by one."""

from __future__ import annotations

import random

import pytest

from inferd.engine.kv_cache import KVCache

SIZE = 4


class Life:
    """Sequences that take, extend, publish and free blocks; tokens from a small alphabet, so that prefixes repeat."""

    def __init__(self, num_blocks: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.cache = KVCache(num_blocks, SIZE, enable_prefix_caching=True)
        self.root = self.cache.root_key("", "")
        self.live: list[tuple[list[int], list[int]]] = []  # (tokens, blocks)
        self.contents: dict[int, tuple[int, ...]] = {}  # block -> all tokens from the root to its end
        self.num_hits = 0

    def step(self) -> None:
        if self.live and (self.rng.random() < 0.45 or len(self.live) > 12):
            _, blocks = self.live.pop(self.rng.randrange(len(self.live)))
            self.cache.free(blocks)
        elif self.live and self.rng.random() < 0.2:
            tokens, blocks = self.rng.choice(self.live)
            self.cache.take(blocks)  # a sibling
            self.live.append((tokens, list(blocks)))
        else:
            self._arrive()
        self.cache.check([blocks for _, blocks in self.live])

    def _arrive(self) -> None:
        tokens = [self.rng.randrange(2) for _ in range(SIZE * self.rng.randint(1, 6))]
        hit = self.cache.match_prefix(self.root, tokens, len(tokens))
        for i, block in enumerate(hit):
            assert self.contents[block] == tuple(tokens[: (i + 1) * SIZE]), "a hit holds other tokens"
        self.cache.take(hit)
        fresh = self.cache.allocate(len(tokens) // SIZE - len(hit))
        if fresh is None:
            self.cache.free(hit)
            return
        self.num_hits += bool(hit)
        blocks = hit + fresh
        parent = self.root
        for i, block in enumerate(blocks):
            self.contents[block] = tuple(tokens[: (i + 1) * SIZE])
            parent = self.cache.publish(block, parent, tokens[i * SIZE : (i + 1) * SIZE])
        self.live.append((tokens, blocks))


def test_100_000_random_operations():
    num_hits = 0
    for seed, num_blocks in enumerate((6, 12, 24, 40)):
        life = Life(num_blocks, seed)
        for _ in range(25_000):
            life.step()
        num_hits += life.num_hits
    assert num_hits > 10_000


def filled(cache: KVCache, tokens: list[int], root: bytes) -> list[int]:
    """Blocks that hold `tokens`, published, with one reference."""
    blocks = cache.allocate(len(tokens) // SIZE)
    assert blocks is not None
    for i, block in enumerate(blocks):
        root = cache.publish(block, root, tokens[i * SIZE : (i + 1) * SIZE])
    return blocks


@pytest.fixture
def cache() -> KVCache:
    return KVCache(8, SIZE, enable_prefix_caching=True)


def test_tenants_and_salts_share_nothing(cache):
    tokens = list(range(8))
    mine = cache.root_key("a", "")
    blocks = filled(cache, tokens, mine)
    assert cache.match_prefix(mine, tokens, 8) == blocks
    for other in (cache.root_key("b", ""), cache.root_key("a", "x"), cache.root_key("", "a"), cache.root_key("", "")):
        assert cache.match_prefix(other, tokens, 8) == []


def test_a_hit_needs_every_token_before_it(cache):
    root = cache.root_key("", "")
    blocks = filled(cache, [1, 2, 3, 4, 5, 6, 7, 8], root)
    assert cache.match_prefix(root, [1, 2, 3, 4, 5, 6, 7, 9], 8) == blocks[:1]
    assert cache.match_prefix(root, [9, 2, 3, 4, 5, 6, 7, 8], 8) == []
    assert cache.match_prefix(root, [1, 2, 3, 4, 5, 6, 7, 8], 7) == blocks[:1]


def test_eviction_takes_the_longest_unused_and_tails_before_heads(cache):
    root = cache.root_key("", "")
    old, new = filled(cache, [1] * 16, root), filled(cache, [2] * 8, root)
    cache.free(old)
    cache.free(new)
    assert len(cache.allocate(2) or []) == 2  # the two that never held anything
    taken = cache.allocate(3)
    assert taken == old[:0:-1]  # from the tail of the older prefix
    assert cache.match_prefix(root, [1] * 16, 16) == old[:1]
    assert cache.match_prefix(root, [2] * 8, 8) == new


def test_a_block_in_use_is_never_handed_out(cache):
    root = cache.root_key("", "")
    blocks = filled(cache, [1] * 32, root)
    assert cache.allocate(1) is None
    cache.take(blocks[:1])
    cache.free(blocks)
    assert sorted(cache.allocate(7) or []) == sorted(blocks[1:])
    assert cache.allocate(1) is None


def test_without_prefix_caching_nothing_is_found():
    cache = KVCache(8, SIZE, enable_prefix_caching=False)
    root = cache.root_key("", "")
    filled(cache, [1] * 8, root)
    assert cache.match_prefix(root, [1] * 8, 8) == []


def test_check_sees_a_lost_and_a_doubled_block(cache):
    blocks = cache.allocate(2) or []
    cache.check([blocks])
    for held in ([blocks[:1]], [[*blocks, blocks[0]]], [blocks, blocks[:1]]):
        with pytest.raises(AssertionError):
            cache.check(held)
