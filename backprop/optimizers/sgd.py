"""Stochastic gradient descent."""

from __future__ import annotations

from backprop import checks
from backprop.checks import Array
from backprop.optimizers.base import Optimizer
from backprop.optimizers.penalties import Penalty
from backprop.schedules import Schedule


class SGD(Optimizer):
    """Stochastic gradient descent.

        g ← ∂L/∂φ + λ φ
        v ← μ v + g                        momentum μ
        φ ← φ − α v                        or, with nesterov,  φ ← φ − α (g + μ v)

    Source: Sutskever, Martens, Dahl and Hinton (2013), "On the importance of initialization and momentum".

    >>> import numpy as np, backprop as bp
    >>> phi = np.array([1.0])
    >>> bp.SGD(0.1).step(phi, np.array([2.0]))
    >>> phi
    array([0.8])
    """

    traced = True

    def __init__(
        self,
        learning_rate: float | Schedule,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: Penalty = 0.0,
        *,
        l1: Penalty = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, l1=l1, clip_value=clip_value, clip_norm=clip_norm)
        self.momentum = checks.number("SGD", "momentum", momentum, least=0, below=1)
        self.nesterov = checks.boolean("SGD", "nesterov", nesterov)
        if nesterov and not momentum:
            raise ValueError(checks.message("SGD", "momentum > 0 with nesterov=True", "momentum 0"))

    @property
    def slots(self) -> tuple[str, ...]:  # type: ignore[override]
        """The velocity v, with momentum."""
        return ("velocity",) if self.momentum else ()

    def update(self, alpha: float, phi: Array, g: Array, *state: Array) -> None:
        """The lines above."""
        if not self.momentum:
            phi -= alpha * g
            return
        (v,) = state
        v[...] = self.momentum * v + g
        phi -= alpha * (g + self.momentum * v if self.nesterov else v)

    def rates(self, alpha: float, *state: Array) -> float:
        """α (1 + μ + … + μᵗ⁻¹), one power more with nesterov: v of a steady gradient of 1."""
        return alpha * (1 - self.momentum ** (self.t + 1 + self.nesterov)) / (1 - self.momentum)
