"""Negative log-likelihoods: the outputs are the parameters of a distribution, in a form in which no exponent can overflow."""

from __future__ import annotations

import math

import numpy as np

from backprop import checks
from backprop.around.targets import misfit
from backprop.checks import Array
from backprop.functions import FAR, column, sigmoid, softplus_tail, within
from backprop.losses.base import Loss


class CrossEntropy(Loss):
    """Negative log-probability of the right class; the softmax is inside.

        ℓ      = log Σⱼ exp(fⱼ) − f_y              for a label y; else log Σⱼ exp(fⱼ) − Σₖ yₖ fₖ
        ∂ℓ/∂f  = softmax(f) − onehot(y)

    y is labels (N,) in 0 … K−1, or one-hot columns (K, N), or probabilities that sum to 1. All exponents are ≤ 0 after
    the largest f of each example is subtracted, so logits of ±10⁴ neither overflow nor lose the answer.
    Source: Bridle (1990), "Probabilistic interpretation of feedforward classification network outputs".

    >>> loss = CrossEntropy()
    >>> round(loss.forward(np.zeros((2, 1)), np.array([1])), 4), loss.backward().T
    (0.6931, array([[ 0.5, -0.5]]))
    """

    takes_labels = True
    measures = ("accuracy",)

    def targets(self, y: object, shape: tuple[int, ...], *, single: bool = False) -> Array:
        """Labels (N,) as whole numbers 0 … K−1, or columns (K, N) of probabilities."""
        K, N = shape
        y = checks.numeric(self, "y", y)
        if single and y.shape == (K,) and (K > 1 or y.dtype.kind == "f"):
            y = y.reshape(K, 1)
        elif y.shape == (N,) or (single and y.shape == ()):
            return checks.labels(self, y.reshape(N), K)
        if y.shape != (K, N):
            raise misfit(self, y, shape, f"labels with shape ({N},) or one-hot columns with shape ({K}, {N})")
        checks.finite(self, "y", y.T)
        checks.values_between(self, "y", y, 0, 1)
        off = np.abs(y.sum(axis=0, dtype=float) - 1) > 1e-5
        if off.any():
            got = f"a sum of {y[:, np.argmax(off)].sum():g} for example {np.argmax(off)}"
            raise ValueError(checks.message(self, "one-hot columns that sum to 1", got))
        return y

    def ell(self, f: Array, y: Array) -> Array:
        z = f - f.real.max(axis=0)
        self.exp_z = np.exp(z)
        self.normalizer = self.exp_z.sum(axis=0)
        if y.ndim == 1:
            right, self.y = z[y, np.arange(len(y))], column(np.arange(len(f))) == y
        else:
            self.y = y.astype(f.real.dtype)
            right = np.where(self.y > 0, self.y * z, 0).sum(axis=0)  # a class that cannot be may have the logit −∞
        return np.log(self.normalizer) - right

    def dell_df(self) -> Array:
        return self.exp_z / self.normalizer - self.y

    def metrics(self, f: Array, y: Array, w: Array | None = None) -> dict[str, float]:
        """Share of examples whose largest output is the right class."""
        right = y if y.ndim == 1 else np.argmax(y, axis=0)
        return {"accuracy": float(np.average(np.argmax(f, axis=0) == right, weights=w))}


class BinaryCrossEntropy(Loss):
    """Negative log-probability of yes/no answers; the sigmoid is inside. One output per question (multi-label).

        ℓ      = Σₖ log(1 + exp(f)) − y f
        ∂ℓ/∂f  = σ(f) − y

    y is 0 or 1 (or a probability between), (K, N); (N,) for one output.
    Source: Cox (1958), "The regression analysis of binary sequences".

    >>> loss = BinaryCrossEntropy()
    >>> loss.forward(np.array([[1e4, -1e4]]), np.array([1, 0])), loss.backward()
    (0.0, array([[0., 0.]]))
    """

    measures = ("accuracy",)

    def check_values(self, y: Array) -> None:
        """Probabilities."""
        checks.values_between(self, "y", y, 0, 1)

    def ell(self, f: Array, y: Array) -> Array:
        # max(f, 0) − y f + log(1 + e^−|f|), in which no two large numbers cancel to a wrong one.
        self.f, self.y = f, y.astype(f.real.dtype)
        wrong = (f.real > 0) - self.y  # max(f, 0) − y f is wrong · f
        return (np.where(wrong == 0, 0, wrong * f) + softplus_tail(f)).sum(axis=0)

    def dell_df(self) -> Array:
        # So it keeps its digits where the answer is certain and right.
        return (1 - self.y) * sigmoid(self.f) - self.y * sigmoid(-self.f)

    def metrics(self, f: Array, y: Array, w: Array | None = None) -> dict[str, float]:
        """Share of right answers at probability ½."""
        return {"accuracy": float(np.average(((f > 0) == (y > 0.5)).mean(axis=0), weights=w))}


class Poisson(Loss):
    """Counts with mean eᶠ, up to log y!, which does not depend on f.

        ℓ      = Σₖ exp(f) − y f
        ∂ℓ/∂f  = exp(f) − y

    f is the logarithm of the expected count. Raises ValueError for negative y.
    Source: Nelder and Wedderburn (1972), "Generalized linear models".

    >>> Poisson().forward(np.array([[0.0]]), np.array([2.0]))
    1.0
    """

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

    >>> round(GaussianNLL().forward(np.array([[0.0], [0.0]]), np.array([0.0])), 4)
    0.9189
    """

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
