"""The noise of a minibatch's gradient, and from which batch size on it no longer matters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from backprop import checks
from backprop.around.nesting import views
from backprop.gradients.per_example import blocks
from backprop.gradients.problem import Problem
from backprop.layers import Layer
from backprop.losses import Loss


@dataclass(frozen=True, slots=True)
class NoiseScale:
    """Result of `gradient_noise_scale`; `float(noise)` is the scale.

    `scale` = `trace` / `squared_norm` is a number of examples. `trace` estimates tr Σ, the variance of a single example's
    gradient, `squared_norm` |G|², the squared length of the true one; `examples` says from how many.
    """

    scale: float
    trace: float
    squared_norm: float
    examples: int

    def __float__(self) -> float:
        return self.scale


def gradient_noise_scale(net: Layer, loss: Loss, X: Any, y: Any) -> NoiseScale:
    """The batch size at which the noise of a minibatch's gradient is as long as the gradient itself.

        g_n = ∂ℓ_n/∂φ,  G_N = 1/N Σ_n g_n           of the N examples given
        tr Σ  ≈ (Σ_n |g_n|² − N |G_N|²) / (N − 1)   unbiased: the variance of one example's gradient, all entries together
        |G|²  ≈ |G_N|² − tr Σ / N                   unbiased: |G_N|² alone is too long by the noise left in the mean
        scale = tr Σ / |G|²

    A batch of B examples has noise tr Σ / B. Far below `scale`, twice the batch halves the number of steps; far above, it saves
    none. The ratio of two unbiased estimates is not unbiased: use an N of at least the scale. Where |G|² comes out ≤ 0, the
    examples cannot tell the gradient from 0, as at a minimum, and the scale is inf.

    Rows X (N, D), targets y (N,) or (N, K). The norms of `per_example_gradient_norms` and the mean gradient come from one pass
    over blocks; Dropout and errors are as there. Raises ValueError for a single example.
    Source: McCandlish, Kaplan and Amodei (2018), "An empirical model of large-batch training", arXiv:1812.06162.

    >>> import numpy as np, backprop as bp
    >>> net = bp.Sequential(bp.Linear(1, 1, bias=False, initializer=bp.Constant(0)), dtype="float64")
    >>> noise = gradient_noise_scale(net, bp.LeastSquares(), np.ones((2, 1)), np.array([1.0, 2.0]))
    >>> noise.trace, noise.squared_norm, noise.scale
    (2.0, 8.0, 0.25)
    """
    return noise_scale("gradient_noise_scale", net, loss, X, y)


def noise_scale(who: str, net: Layer, loss: Loss, X: Any, y: Any) -> NoiseScale:
    """`gradient_noise_scale`, with errors in the name of `who`."""
    problem = Problem(who, net, loss, X, y, lent=True)
    N = problem.n
    if N < 2:
        raise ValueError(checks.message(who, "at least 2 examples", f"{N}", "One example has no spread."))
    squares, total = np.zeros(N, problem.dtype), np.zeros(problem.net.size, problem.dtype)
    sums = views(problem.net, total)
    for block, factors in blocks(problem):
        for name, factor in factors.items():
            squares[block] += factor.squares()
            sums[name] += factor.total().reshape(sums[name].shape)
    mean_square, square_mean = (float(part.sum(dtype=float)) for part in (squares / N, np.square(total / N)))
    # Never negative but for rounding, where the examples are all alike.
    trace = max((mean_square - square_mean) * N / (N - 1), 0.0)
    squared_norm = square_mean - trace / N
    return NoiseScale(trace / squared_norm if squared_norm > 0 else math.inf, trace, squared_norm, N)
