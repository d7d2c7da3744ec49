"""Adaptive rules: each entry of φ has a step of its own, divided by the root of its squared gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.optimizers.base import Optimizer
from backprop.optimizers.penalties import Penalty
from backprop.schedules import Schedule


class RMSProp(Optimizer):
    """Steps divided by a running root mean square of the gradient.

        g ← ∂L/∂φ + λ φ
        s ← ρ s + (1 − ρ) g²               decay ρ
        φ ← φ − α g / (√s + eps)

    Source: Tieleman and Hinton (2012), "Lecture 6.5: rmsprop", Neural Networks for Machine Learning.

    >>> phi = np.array([1.0])
    >>> RMSProp(0.1).step(phi, np.array([3.0]))
    >>> phi.round(6)
    array([0.])
    """

    slots = ("square",)

    def __init__(
        self,
        learning_rate: float | Schedule = 0.01,
        decay: float = 0.99,
        eps: float = 1e-8,
        weight_decay: Penalty = 0.0,
        *,
        l1: Penalty = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, l1=l1, clip_value=clip_value, clip_norm=clip_norm)
        self.decay = checks.number("RMSProp", "decay", decay, least=0, below=1)
        self.eps = checks.number("RMSProp", "eps", eps, above=0)

    def update(self, alpha: float, phi: Array, g: Array, *state: Array) -> None:
        (s,) = state
        s[...] = self.decay * s + (1 - self.decay) * (g * g)
        phi -= alpha * g / (np.sqrt(s) + self.eps)

    def rates(self, alpha: float, *state: Array) -> Array:
        return alpha / (np.sqrt(state[0]) + self.eps)


class Adagrad(Optimizer):
    """Steps divided by the root of the sum of all squared gradients so far.

        g ← ∂L/∂φ + λ φ
        s ← s + g²
        φ ← φ − α g / (√s + eps)

    Source: Duchi, Hazan and Singer (2011), "Adaptive subgradient methods", JMLR 12.

    >>> phi = np.array([1.0])
    >>> Adagrad(0.1).step(phi, np.array([3.0]))
    >>> phi.round(6)
    array([0.9])
    """

    slots = ("sum_of_squares",)

    def __init__(
        self,
        learning_rate: float | Schedule = 0.01,
        eps: float = 1e-10,
        weight_decay: Penalty = 0.0,
        *,
        l1: Penalty = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, l1=l1, clip_value=clip_value, clip_norm=clip_norm)
        self.eps = checks.number("Adagrad", "eps", eps, above=0)

    def update(self, alpha: float, phi: Array, g: Array, *state: Array) -> None:
        (s,) = state
        s += g * g
        phi -= alpha * g / (np.sqrt(s) + self.eps)

    def rates(self, alpha: float, *state: Array) -> Array:
        return alpha / (np.sqrt(state[0]) + self.eps)


class Adam(Optimizer):
    """Momentum divided by a running root mean square, both corrected for their start at 0.

        g ← ∂L/∂φ + λ φ
        m ← β₁ m + (1 − β₁) g              m̂ = m / (1 − β₁ᵗ)
        s ← β₂ s + (1 − β₂) g²             ŝ = s / (1 − β₂ᵗ)
        φ ← φ − α m̂ / (√ŝ + eps)

    Kept are M = m / (1 − β₁) and S = s / (1 − β₂), which saves two passes over φ: M ← β₁ M + g, S ← β₂ S + g². The factors
    go into two numbers: φ ← φ − a M / (√S + e), a = α (1−β₁)/(1−β₁ᵗ) · c, e = eps · c, c = √((1−β₂ᵗ)/(1−β₂)).
    Source: Kingma and Ba (2015), "Adam: a method for stochastic optimization", arXiv:1412.6980.

    >>> phi = np.array([1.0])
    >>> Adam(0.1).step(phi, np.array([3.0]))
    >>> phi.round(6)
    array([0.9])
    """

    slots = ("first_moment", "second_moment")

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: Penalty = 0.0,
        *,
        l1: Penalty = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, l1=l1, clip_value=clip_value, clip_norm=clip_norm)
        name = type(self).__name__
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise TypeError(checks.message(name, "betas as a pair such as (0.9, 0.999)", repr(betas)))
        self.betas = (
            checks.number(name, "betas[0]", betas[0], least=0, below=1),
            checks.number(name, "betas[1]", betas[1], least=0, below=1),
        )
        self.eps = checks.number(name, "eps", eps, above=0)

    def update(self, alpha: float, phi: Array, g: Array, *state: Array) -> None:
        """The rule in the form with M and S."""
        M, S = state
        beta1, beta2 = self.betas
        t = self.t + 1
        c = ((1 - beta2**t) / (1 - beta2)) ** 0.5
        M[...] = beta1 * M + g
        S[...] = beta2 * S + g * g
        phi -= (alpha * (1 - beta1) / (1 - beta1**t) * c) * M / (np.sqrt(S) + self.eps * c)

    def rates(self, alpha: float, *state: Array) -> Array:
        beta2 = self.betas[1]
        root_of_s_hat = ((1 - beta2) / (1 - beta2 ** (self.t + 1))) ** 0.5 * np.sqrt(state[1])
        return alpha / (root_of_s_hat + self.eps)


class AdamW(Adam):
    """Adam with weight decay beside the gradient, not through it: φ ← (1 − αλ) φ before the step.

    Source: Loshchilov and Hutter (2019), "Decoupled weight decay regularization", arXiv:1711.05101.

    >>> phi = np.array([1.0])
    >>> AdamW(0.1, weight_decay=0.5).step(phi, np.array([0.0]))
    >>> phi
    array([0.95])
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: Penalty = 0.01,
        *,
        l1: Penalty = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, betas, eps, weight_decay, l1=l1, clip_value=clip_value, clip_norm=clip_norm)

    def apply_decay(self, alpha: float, decay: Any, phi: Array, g: Array) -> None:
        phi *= 1 - alpha * decay
