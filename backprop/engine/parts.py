"""Parts: a large product is cut by rows of its output, so that threads can share it.

The cut comes from shapes alone, and both players play the same parts, one after another or at once; so bits never depend on the
number of threads. (They do depend on the cut: BLAS adds up a block of rows in another order than single ones.)
"""

from __future__ import annotations

from itertools import pairwise

from backprop.checks import Array

MULTIPLE = 4  # rows that BLAS computes at a time
LEAST_ROWS = 256  # of a part, where there are more than two; with 128, BLAS loses a sixth on 784-512-512-10
LEAST = 96  # rows of a product that is cut
LEAST_WORK = 250_000  # multiplications of a part, about 2 µs; an entry read or written counts as 8
MOST = 8


def count(m: int, n: int, k: int) -> int:
    """In how many parts the product (m, k) (k, n) is computed: a power of two.

    >>> count(64, 24, 64), count(300, 100, 300), count(4000, 100, 300)
    (1, 2, 8)
    """
    by_rows = max(2, m // LEAST_ROWS) if m >= LEAST else 1
    work = m * n * k + 8 * (m * k + m * n)
    return 1 << max(min(MOST, by_rows, work // LEAST_WORK).bit_length() - 1, 0)


def rows(m: int, parts: int) -> list[slice]:
    """The m rows in so many parts.

    >>> rows(10, 2)
    [slice(0, 4, None), slice(4, 10, None)]
    """
    bounds = [m * i // parts // MULTIPLE * MULTIPLE for i in range(parts)]
    return [slice(start, end) for start, end in pairwise([*bounds, m])]


def of(A: Array, B: Array) -> int:
    """In how many parts A (m, k) B (k, n) is computed.

    One with a single column is cut only where rows of A lie together, as BLAS wants them.
    """
    if B.shape[1] == 1 and A.shape[1] > 1 and not A.flags.c_contiguous:
        return 1
    return count(len(A), B.shape[1], A.shape[1])
