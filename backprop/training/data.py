"""Examples at the door: checked once, then handed out in batches as columns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.losses import Loss
from backprop.sequential import Sequential


class Examples:
    """Rows X (N, D), their targets and weights, checked against a network and a loss.

    Raises TypeError or ValueError; nothing is changed by data that does not fit.
    """

    def __init__(
        self, who: str, net: Sequential, loss: Loss, X: object, y: object, sample_weight: object = None
    ) -> None:
        self.X = checks.rows(who, X, net.in_features)
        checks.finite(who, "X", self.X)
        self.n = len(self.X)
        K = net.out_features or len(net.infer(self.X[:1].T.astype(net.phi.dtype)))
        self.y = targets(who, loss, y, K, self.n)
        self.w = None if sample_weight is None else checks.weights(who, sample_weight, self.n)
        self.dtype = net.phi.dtype

    def columns(self, rows: Array | slice) -> tuple[Array, Array, Array | None]:
        """h (D, n), y and weights of some rows, in the network's dtype."""
        h = self.X[rows].astype(self.dtype, copy=False).T
        return h, self.y[..., rows], None if self.w is None else self.w[rows]

    def batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[tuple[Array, Array, Array | None]]:
        """The batches of one epoch, shuffled by (seed, epoch) alone; the last one may be short."""
        if batch_size >= self.n:
            yield self.columns(slice(None))
            return
        order = np.random.default_rng([seed, epoch]).permutation(self.n)
        for start in range(0, self.n, batch_size):
            yield self.columns(order[start : start + batch_size])


def targets(who: str, loss: Loss, y: object, K: int, N: int) -> Array:
    """Targets as rows, (N,) or (N, K), turned into the columns a loss takes."""
    y = checks.numeric(who, "y", y)
    width = K // loss.outputs_per_target
    one = loss.takes_labels or width == 1
    fits = (y.shape == (N,) and one) or y.shape == (N, width)
    if not fits:
        forms = [f"({N},)"] * one + [f"({N}, {width})"] * (width > 1 or not loss.takes_labels)
        advice = "y takes one row per row of X."
        if y.shape == (width, N):
            advice = "Pass y.T."
        elif y.shape == (N, 1) and loss.takes_labels:
            advice = "Pass y.ravel()."
        elif len(y) == N:
            advice = f"The network has {K} outputs; {loss!r} needs {loss.outputs_per_target} per target."
        expected = f"y with shape {' or '.join(forms)} for {N} rows of X"
        raise ValueError(checks.message(who, expected, f"shape {y.shape}", advice))
    checks.finite(who, "y", y)
    return loss.targets(y.T, (K, N))
