"""Normalization: subtract a mean, divide by a standard deviation, then scale by γ and shift by β.

Both layers do the same along different axes, so they share one backward pass. With z = (h − mean)/σ, σ² = variance + eps,

    f      = β + γ ⊙ z
    ∂L/∂z  = γ ⊙ ∂L/∂f
    ∂L/∂h  = (∂L/∂z − mean[∂L/∂z] − z ⊙ mean[z ⊙ ∂L/∂z]) / σ
    ∂L/∂β  = Σ_n ∂L/∂f_n,   ∂L/∂γ = Σ_n z_n ⊙ ∂L/∂f_n

The two means subtract what a change of h does through the mean and through σ.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.layers.base import Gradients, Layer


class _Normalization(Layer):
    axis: ClassVar[int]
    reuses_output = False
    equations = (
        "f = β + γ ⊙ z, z = (h − mean) / σ",
        "∂L/∂h = (γ ⊙ ∂L/∂f − mean − z ⊙ mean[z ⊙ ·]) / σ",
        "∂L/∂β = Σₙ ∂L/∂f",
        "∂L/∂γ = Σₙ z ⊙ ∂L/∂f",
    )

    def __init__(self, features: int, *, eps: float = 1e-5) -> None:
        self.in_features = self.out_features = checks.integer(type(self).__name__, "features", features)
        self.eps = checks.number(type(self).__name__, "eps", eps, above=0)
        self.parameters["beta"] = np.zeros(features, np.float32)
        self.parameters["gamma"] = np.ones(features, np.float32)
        self._cache: tuple[Array, Array] | None = None
        self._shape: tuple[int, ...] | None = None

    def initialize(self, generator: np.random.Generator) -> None:
        """Set β to 0 and γ to 1."""
        self.parameters["beta"][...] = 0
        self.parameters["gamma"][...] = 1

    def forward(self, h: Array) -> Array:
        """Return β + γ ⊙ z with the statistics of this batch."""
        h = checks.columns(self, "forward", h)
        self._shape = h.shape
        mean, variance, z = self._moments(h.reshape(h.shape[0], -1))
        self.observe(mean, variance, z.shape[1])
        return self._normalize(z, variance, keep=True).reshape(h.shape)

    def observe(self, mean: Array, variance: Array, n: int) -> None:
        """Called with the statistics of each training batch."""

    def _moments(self, h: Array) -> tuple[Array, Array, Array]:
        mean = self._mean(h)
        z = np.subtract(h, mean, out=self.empty("z", h.shape, h.dtype))
        return mean, self._mean(z * z), z  # z², not |z|²: analytic

    def _mean(self, h: Array) -> Array:
        return np.add.reduce(h, axis=self.axis, keepdims=True) * (1 / h.shape[self.axis])  # np.mean is no ufunc

    def _normalize(self, z: Array, variance: Array, *, keep: bool) -> Array:
        beta, gamma = self.parameters["beta"], self.parameters["gamma"]
        sigma = np.sqrt(variance + self.eps)
        z = np.divide(z, sigma, out=z)
        if keep:
            self._cache = (z, sigma)
        f = self.empty("f", z.shape, np.result_type(gamma, z))
        np.multiply(gamma[:, None], z, out=f)
        return np.add(f, beta[:, None], out=f)

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        """Return dL_dh and {"beta": Σₙ dL_df, "gamma": Σₙ z ⊙ dL_df}."""
        dL_df = checks.gradient(self, dL_df, self._shape)
        if self._cache is None:
            raise checks.too_early(self)
        z, sigma = self._cache
        shape, dL_df = dL_df.shape, dL_df.reshape(z.shape)
        dL_dz = self.parameters["gamma"][:, None] * dL_df
        dL_dh = self.through(dL_dz, z, sigma)
        gradients = {"beta": self.land("beta").sum(dL_df), "gamma": self.land("gamma").sum(z * dL_df)}
        return dL_dh.reshape(shape), gradients

    def through(self, dL_dz: Array, z: Array, sigma: Array) -> Array:
        """∂L/∂h, through z itself, the mean and σ."""
        return (dL_dz - self._mean(dL_dz) - z * self._mean(z * dL_dz)) / sigma


class LayerNorm(_Normalization):
    """Normalizes each example over its features, the same in training and inference.

    Source: Ba, Kiros and Hinton (2016), "Layer normalization", arXiv:1607.06450.

    >>> import numpy as np, backprop as bp
    >>> bp.LayerNorm(2).forward(np.array([1.0, 3.0])).round(3)
    array([-1.,  1.])
    """

    replays = True
    axis = 0

    def infer(self, h: Array) -> Array:
        """Return β + γ ⊙ z, without a cache."""
        h = checks.columns(self, "infer", h)
        _, variance, z = self._moments(h.reshape(h.shape[0], -1))
        return self._normalize(z, variance, keep=False).reshape(h.shape)


class BatchNorm(_Normalization):
    """Normalizes each feature over the examples of the batch; in inference, with running statistics.

    running ← (1 − momentum) · running + momentum · batch, the variance with N − 1 in the denominator, as PyTorch does.
    It couples the examples of a batch: the gradient of a batch is no longer the sum over its examples.
    Source: Ioffe and Szegedy (2015), "Batch normalization", arXiv:1502.03167.

    >>> import numpy as np, backprop as bp
    >>> bp.BatchNorm(1).forward(np.array([[1.0, 3.0]])).round(3)
    array([[-1.,  1.]])
    """

    replays = True
    axis = 1
    couples_examples = True

    def __init__(self, features: int, *, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__(features, eps=eps)
        self.momentum = checks.number("BatchNorm", "momentum", momentum, above=0, most=1)
        self.buffers["running_mean"] = np.zeros(features)
        self.buffers["running_variance"] = np.ones(features)

    def initialize(self, generator: np.random.Generator) -> None:
        """Set β to 0, γ to 1 and the running statistics to mean 0, variance 1."""
        super().initialize(generator)
        self.buffers["running_mean"][...] = 0
        self.buffers["running_variance"][...] = 1

    def observe(self, mean: Array, variance: Array, n: int) -> None:
        """Update the running statistics."""
        unbiased = variance.real[:, 0] * (n / max(n - 1, 1))
        for name, value in (("running_mean", mean.real[:, 0]), ("running_variance", unbiased)):
            running = self.buffers[name]
            running += self.momentum * (value - running)

    def infer(self, h: Array) -> Array:
        """Return β + γ ⊙ (h − running mean) / √(running variance + eps)."""
        return self._with_running(checks.columns(self, "infer", h), keep=False)

    def _with_running(self, h: Array, *, keep: bool) -> Array:
        real = h.real.dtype
        mean, variance = (self.buffers[name].astype(real)[:, None] for name in ("running_mean", "running_variance"))
        z = np.subtract(h.reshape(h.shape[0], -1), mean)
        return self._normalize(z, variance, keep=keep).reshape(h.shape)

    def frozen(self) -> Layer:
        """The affine map of the running statistics."""
        twin = FrozenBatchNorm.__new__(FrozenBatchNorm)
        twin.__dict__.update(self.copy().__dict__)
        return twin


class FrozenBatchNorm(BatchNorm):
    """BatchNorm with the running statistics for good: what `BatchNorm.frozen` returns. Each example is on its own.

        f      = β + γ ⊙ z,   z = (h − running mean) / σ
        ∂L/∂h  = γ ⊙ ∂L/∂f / σ

    >>> import numpy as np, backprop as bp
    >>> bp.BatchNorm(1, eps=0.25).frozen().forward(np.array([[1.0, 3.0]])).round(3)
    array([[0.894, 2.683]])
    """

    replays = False
    couples_examples = False
    equations = (
        "f = β + γ ⊙ z, z = (h − running mean) / σ",
        "∂L/∂h = γ ⊙ ∂L/∂f / σ",
        "∂L/∂β = Σₙ ∂L/∂f",
        "∂L/∂γ = Σₙ z ⊙ ∂L/∂f",
    )

    def forward(self, h: Array) -> Array:
        """Return β + γ ⊙ z, the same as `infer`."""
        h = checks.columns(self, "forward", h)
        self._shape = h.shape
        return self._with_running(h, keep=True)

    def through(self, dL_dz: Array, z: Array, sigma: Array) -> Array:
        """∂L/∂h: the statistics do not depend on h."""
        return dL_dz / sigma
