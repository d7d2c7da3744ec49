"""Losses of distributions: the outputs are the parameters of one, the loss is the negative log-likelihood of the target."""

from __future__ import annotations

import math

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.functions import FAR, within
from backprop.losses.base import Loss


class Poisson(Loss):
    """Counts with mean eᶠ, up to log y!, which does not depend on f.

        ℓ      = Σₖ exp(f) − y f
        ∂ℓ/∂f  = exp(f) − y

    f is the logarithm of the expected count. Raises ValueError for negative y.
    Source: Nelder and Wedderburn (1972), "Generalized linear models".

    >>> import numpy as np, backprop as bp
    >>> bp.Poisson().forward(np.array([[0.0]]), np.array([2.0]))
    1.0
    """

    traced = True

    def check_values(self, y: Array) -> None:
        """Counts are ≥ 0."""
        checks.values_between(self, "y", y, 0, math.inf)

    def ell(self, f: Array, y: Array) -> Array:
        self.exp_f, self.y = np.exp(f), y.astype(f.real.dtype)
        y_f = np.where(self.y > 0, self.y * within(f, -np.inf, FAR), 0)  # 0 · −∞ and ∞ − ∞ are no numbers
        return (self.exp_f - y_f).sum(axis=0)

    def dell_df(self) -> Array:
        return self.exp_f - self.y


class GaussianNLL(Loss):
    """Negative log-likelihood of a normal distribution whose mean and variance are both outputs.

        ℓ      = Σₖ ½(s + (y − μ)² e⁻ˢ + log 2π)          variance σ² = eˢ
        ∂ℓ/∂μ  = (μ − y)e⁻ˢ, ∂ℓ/∂s = ½(1 − (y − μ)²e⁻ˢ)

    For K targets f has 2K rows: K means μ, then K log-variances s. The logarithm lets a network output any number.
    Source: Nix and Weigend (1994), "Estimating the mean and variance of the target probability distribution".

    >>> import numpy as np, backprop as bp
    >>> round(bp.GaussianNLL().forward(np.array([[0.0], [0.0]]), np.array([0.0])), 4)
    0.9189
    """

    traced = True
    outputs_per_target = 2

    def ell(self, f: Array, y: Array) -> Array:
        # ½ (s + z² + log 2π) with z = (μ − y) e^{−s/2}, which is 0 where μ = y for every s.
        mean, s = f[: len(y)], f[len(y) :]
        d, root = mean - y.astype(f.real.dtype), np.exp(-0.5 * s)
        self.z = np.where(d == 0, d, d * root)
        self.dell_dmean = np.where(self.z == 0, self.z, self.z * root)
        z2 = self.z * self.z
        return 0.5 * (np.where(np.isinf(z2), z2, s + z2) + math.log(2 * math.pi)).sum(axis=0)  # s may be −∞

    def dell_df(self) -> Array:
        return np.concatenate([self.dell_dmean, 0.5 * (1 - self.z * self.z)])
