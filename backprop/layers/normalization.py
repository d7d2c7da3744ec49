"""Normalization: subtract a mean, divide by a standard deviation, then scale by γ and shift by β."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from backprop import checks
from backprop.around.held import place
from backprop.checks import Array
from backprop.functions import column
from backprop.layers import Gradients, Layer


class _Normalization(Layer):
    """Both layers do the same along different axes, so they share one backward pass; σ² = variance + eps.

        f      = β + γ ⊙ z, z = (h − mean) / σ
        ∂L/∂h  = (γ ⊙ ∂L/∂f − mean − z ⊙ mean[z ⊙ ·]) / σ        ·: γ ⊙ ∂L/∂f
        ∂L/∂β  = Σₙ ∂L/∂f
        ∂L/∂γ  = Σₙ z ⊙ ∂L/∂f

    The two means subtract what a change of h does through the mean and through σ.
    """

    axis: ClassVar[int]

    def __init__(self, features: int, *, eps: float = 1e-5) -> None:
        self.in_features = self.out_features = checks.integer(type(self).__name__, "features", features)
        self.eps = checks.number(type(self).__name__, "eps", eps, above=0)
        self.parameters["beta"] = np.zeros(features, np.float32)
        self.parameters["gamma"] = np.ones(features, np.float32)

    def initialize(self, generator: np.random.Generator) -> None:
        """Set β to 0 and γ to 1."""
        self.beta[...] = 0
        self.gamma[...] = 1

    def moments(self, h: Array) -> tuple[Array, Array, Array]:
        """Mean, variance, and h − mean."""
        mean = self.mean(h)
        z = h - mean
        rest = self.mean(z)  # what rounding left in the mean of large numbers that hardly differ
        z = z - rest
        return mean + rest, self.mean(z * z), z  # z², not |z|²: analytic

    def mean(self, x: Array) -> Array:
        """Mean along the axis."""
        return x.sum(axis=self.axis, keepdims=True) / x.shape[self.axis]

    def normalize(self, z: Array, variance: Array) -> tuple[Array, Array, Array]:
        """f, z / σ and σ."""
        sigma = np.sqrt(variance + self.eps)
        z = z / sigma
        return column(self.gamma) * z + column(self.beta), z, sigma

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        dL_dh = self.through(column(self.gamma) * dL_df)
        return dL_dh, {"beta": dL_df.sum(axis=1), "gamma": (self.z * dL_df).sum(axis=1)}

    def through(self, dL_dz: Array) -> Array:
        """∂L/∂h, through z itself, the mean and σ."""
        return (dL_dz - self.mean(dL_dz) - self.z * self.mean(self.z * dL_dz)) / self.sigma


class LayerNorm(_Normalization):
    """Normalizes each example over its features, the same in training and inference.

    Source: Ba, Kiros and Hinton (2016), "Layer normalization", arXiv:1607.06450.

    >>> LayerNorm(2).forward(np.array([1.0, 3.0])).round(3)
    array([-1.,  1.])
    """

    axis = 0

    def forward(self, h: Array) -> Array:
        _, variance, z = self.moments(h)
        f, self.z, self.sigma = self.normalize(z, variance)
        return f

    def infer(self, h: Array) -> Array:
        _, variance, z = self.moments(h)
        return self.normalize(z, variance)[0]


class BatchNorm(_Normalization):
    """Normalizes each feature over the examples of the batch; in inference, with running statistics.

    running ← (1 − momentum) · running + momentum · batch, the variance with N − 1 in the denominator, as PyTorch does. A batch
    of a single example has no variance and leaves them as they are.
    It couples the examples of a batch: the gradient of a batch is no longer the sum over its examples.
    Source: Ioffe and Szegedy (2015), "Batch normalization", arXiv:1502.03167.

    >>> BatchNorm(1).forward(np.array([[1.0, 3.0]])).round(3)
    array([[-1.,  1.]])
    """

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
        self.running_mean[...] = 0
        self.running_variance[...] = 1

    def forward(self, h: Array) -> Array:
        mean, variance, z = self.moments(h)
        if h.shape[1] > 1:
            self.observe(mean.real[:, 0], variance.real[:, 0], h.shape[1])
        f, self.z, self.sigma = self.normalize(z, variance)
        return f

    def observe(self, mean: Array, variance: Array, n: int) -> None:
        """Move the running statistics."""
        unbiased = variance * (n / (n - 1))
        self.running_mean[...] = self.running_mean + self.momentum * (mean - self.running_mean)
        self.running_variance[...] = self.running_variance + self.momentum * (unbiased - self.running_variance)

    def infer(self, h: Array) -> Array:
        return self.with_running(h)[0]

    def with_running(self, h: Array) -> tuple[Array, Array, Array]:
        """f, z and σ of the running statistics."""
        real = h.real.dtype
        z = h - column(self.running_mean.astype(real))
        return self.normalize(z, column(self.running_variance.astype(real)))

    def frozen(self) -> FrozenBatchNorm:
        """The affine map of the running statistics."""
        twin = FrozenBatchNorm(len(self.beta), momentum=self.momentum, eps=self.eps)
        place(twin, {name: array.copy() for name, array in self.parameters.items()})
        twin.buffers = self.buffers
        return twin


class FrozenBatchNorm(BatchNorm):
    """BatchNorm with the running statistics for good: what `BatchNorm.frozen` returns. Each example is on its own.

        f      = β + γ ⊙ z, z = (h − running mean) / σ
        ∂L/∂h  = γ ⊙ ∂L/∂f / σ
        ∂L/∂β  = Σₙ ∂L/∂f
        ∂L/∂γ  = Σₙ z ⊙ ∂L/∂f

    >>> BatchNorm(1, eps=0.25).frozen().forward(np.array([[1.0, 3.0]])).round(3)
    array([[0.894, 2.683]])
    """

    couples_examples = False

    def forward(self, h: Array) -> Array:
        f, self.z, self.sigma = self.with_running(h)
        return f

    def through(self, dL_dz: Array) -> Array:
        """∂L/∂h: the statistics do not depend on h."""
        return dL_dz / self.sigma
