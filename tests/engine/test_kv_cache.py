"""KVCache: a random life of 100,000 operations with all invariants checked after each, and the rules one by one."""

from __future__ import annotations

import random

import pytest

from inferd.engine.kv_cache import KVCache, Published

SIZE = 4


def publish(cache: KVCache, blocks: list[int], keys: list[bytes], root: bytes, tokens: list[int]) -> None:
    cache.extend_keys(keys, root, tokens, len(blocks))
    for i, block in enumerate(blocks):
        own = tuple(tokens[i * SIZE : (i + 1) * SIZE])
        cache.publish(block, Published(keys[i], keys[i - 1] if i else root, own))


def match(cache: KVCache, root: bytes, tokens: list[int], max_tokens: int) -> list[int]:
    return cache.match_prefix([], root, tokens, max_tokens)


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
        keys: list[bytes] = []
        hit = self.cache.match_prefix(keys, self.root, tokens, len(tokens))
        for i, block in enumerate(hit):
            assert self.contents[block] == tuple(tokens[: (i + 1) * SIZE]), "a hit holds other tokens"
        self.cache.take(hit)
        fresh = self.cache.allocate(len(tokens) // SIZE - len(hit))
        if fresh is None:
            self.cache.free(hit)
            return
        self.num_hits += bool(hit)
        blocks = hit + fresh
        for i, block in enumerate(blocks):
            self.contents[block] = tuple(tokens[: (i + 1) * SIZE])
        publish(self.cache, blocks, keys, self.root, tokens)
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
    publish(cache, blocks, [], root, tokens)
    return blocks


@pytest.fixture
def cache() -> KVCache:
    return KVCache(8, SIZE, enable_prefix_caching=True)


def test_tenants_and_salts_share_nothing(cache):
    tokens = list(range(8))
    mine = cache.root_key("a", "")
    blocks = filled(cache, tokens, mine)
    assert match(cache, mine, tokens, 8) == blocks
    for other in (cache.root_key("b", ""), cache.root_key("a", "x"), cache.root_key("", "a"), cache.root_key("", "")):
        assert match(cache, other, tokens, 8) == []


def test_a_hit_needs_every_token_before_it(cache):
    root = cache.root_key("", "")
    blocks = filled(cache, [1, 2, 3, 4, 5, 6, 7, 8], root)
    assert match(cache, root, [1, 2, 3, 4, 5, 6, 7, 9], 8) == blocks[:1]
    assert match(cache, root, [9, 2, 3, 4, 5, 6, 7, 8], 8) == []
    assert match(cache, root, [1, 2, 3, 4, 5, 6, 7, 8], 7) == blocks[:1]


def test_eviction_takes_the_longest_unused_and_tails_before_heads(cache):
    root = cache.root_key("", "")
    old, new = filled(cache, [1] * 16, root), filled(cache, [2] * 8, root)
    cache.free(old)
    cache.free(new)
    assert len(cache.allocate(2) or []) == 2  # the two that never held anything
    taken = cache.allocate(3)
    assert taken == old[:0:-1]  # from the tail of the older prefix
    assert match(cache, root, [1] * 16, 16) == old[:1]
    assert match(cache, root, [2] * 8, 8) == new


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
    assert match(cache, root, [1] * 8, 8) == []


def test_check_sees_a_lost_and_a_doubled_block(cache):
    blocks = cache.allocate(2) or []
    cache.check([blocks])
    for held in ([blocks[:1]], [[*blocks, blocks[0]]], [blocks, blocks[:1]]):
        with pytest.raises(AssertionError):
            cache.check(held)


def test_keys_are_hashed_once_and_serve_as_far_as_they_go(cache):
    root = cache.root_key("", "")
    tokens = [1, 2, 3, 4, 5, 6, 7, 8]
    keys: list[bytes] = []
    assert cache.match_prefix(keys, root, tokens, 8) == []
    assert len(keys) == 1  # a miss ends the chain
    blocks = filled(cache, tokens, root)
    first = keys[0]
    assert cache.match_prefix(keys, root, tokens, 8) == blocks
    assert keys[0] is first
    assert len(keys) == 2
