"""Data shipped with the package."""

from __future__ import annotations

from importlib import resources

import numpy as np

from backprop import checks
from backprop.checks import Array


def load_digits() -> tuple[Array, Array]:
    """Handwritten digits: X (1797, 64) bytes 0 … 16, one 8 × 8 image per row, and labels y (1797,).

    UCI optical digits, E. Alpaydin and C. Kaynak (1998), CC BY 4.0; see `data/CREDITS.md`.

    >>> X, y = load_digits()
    >>> X.shape, X.max(), y[:5]
    ((1797, 64), np.uint8(16), array([0, 1, 2, 3, 4]))
    """
    with resources.files("backprop").joinpath("data/digits.npz").open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        return archive["X"], archive["y"].astype(np.int64)


def split(X: Array, y: Array, *, held_out: float = 0.25, seed: int = 0) -> tuple[Array, Array, Array, Array]:
    """Shuffle and cut into X_train, X_test, y_train, y_test, the order of scikit-learn; the test parts hold `held_out`.

    >>> X, y = load_digits()
    >>> [len(part) for part in split(X, y)]
    [1348, 449, 1348, 449]
    """
    order = checks.generator("split", seed).permutation(len(X))
    cut = len(X) - int(len(X) * held_out)
    return X[order[:cut]], X[order[cut:]], y[order[:cut]], y[order[cut:]]
