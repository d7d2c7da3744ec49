"""What random generators are started from, for many steps at once: NumPy's SeedSequence, over a vector of steps."""

from __future__ import annotations

import numpy as np

from backprop.checks import Array

POOL = 4  # words of 32 bits
OF_ENTROPY, OF_STATE = (0x43B0D7E5, 0x931E8875), (0x8B51F9DD, 0x58F38DED)  # first constant, and what multiplies it


def keys(seed: int, t: int, steps: int, where: tuple[int, ...]) -> Array:
    """The keys (steps, 2) of Philox for the entropy (seed, t + step, *where).

    >>> import numpy as np
    >>> expected = np.random.SeedSequence((7, 3, 0, 1)).generate_state(2, np.uint64)
    >>> bool((keys(7, 2, 5, (0, 1))[1] == expected).all())
    True
    """
    if t + steps >= 1 << 32:  # a word more
        made = [np.random.SeedSequence((seed, t + i, *where)).generate_state(2, np.uint64) for i in range(steps)]
        return np.array(made)
    words: list[int | Array] = [
        *_words(seed),
        t + np.arange(steps, dtype=np.uint32),
        *(word for key in where for word in _words(key)),
    ]
    mixed = _pool([np.broadcast_to(np.asarray(word, np.uint32), steps) for word in words])
    hashed = _Hash(*OF_STATE)
    state = np.stack([hashed(word) for word in mixed], axis=1)
    return state.astype("<u4").view("<u8").astype(np.uint64)


def _words(number: int) -> list[int]:
    """The words of a number, the lowest one first."""
    return [number >> 32 * i & 0xFFFFFFFF for i in range(max(1, -(-number.bit_length() // 32)))]


def _pool(words: list[Array]) -> list[Array]:
    hashed = _Hash(*OF_ENTROPY)
    zero = np.zeros_like(words[0])
    pool = [hashed(words[i] if i < len(words) else zero) for i in range(POOL)]
    for source in range(POOL):
        for to in range(POOL):
            if source != to:
                pool[to] = _mixed(pool[to], hashed(pool[source]))
    for word in words[POOL:]:
        for to in range(POOL):
            pool[to] = _mixed(pool[to], hashed(word))
    return pool


class _Hash:
    """A hash of words whose constant changes with each call."""

    def __init__(self, constant: int, factor: int) -> None:
        self.constant, self.factor = constant, factor

    def __call__(self, x: Array) -> Array:
        x = x ^ np.uint32(self.constant)
        self.constant = self.constant * self.factor & 0xFFFFFFFF
        x = x * np.uint32(self.constant)
        return x ^ (x >> np.uint32(16))


def _mixed(x: Array, y: Array) -> Array:
    made: Array = x * np.uint32(0xCA01F9DD) - y * np.uint32(0x4973F715)
    return made ^ (made >> np.uint32(16))
