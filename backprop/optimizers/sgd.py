"""Stochastic gradient descent, whose gradient lands in φ or in the velocity."""

from __future__ import annotations

import numpy as np

from backprop import checks
from backprop.blas import Landing, axpy
from backprop.checks import Array
from backprop.optimizers.base import ForPieces, Optimizer, one_after_another
from backprop.optimizers.penalties import Penalty, of_piece, shrink
from backprop.schedules import Schedule


class SGD(Optimizer):
    """Stochastic gradient descent.

        g ← ∂L/∂φ + λ φ
        v ← μ v + g                        momentum μ
        φ ← φ − α v                        or, with nesterov,  φ ← φ − α (g + μ v)

    Without momentum the gradient lands in φ itself, φ ← −α ∂L/∂φ + (1 − αλ) φ, or in a vector of its own where λ differs from
    parameter to parameter. With momentum it lands in v. Nesterov's rule wants g beside v; as g = v − μ v_old, the step is
    −α (1 + μ) v + αμ v_old, and the old v is kept instead of g.
    Source: Sutskever, Martens, Dahl and Hinton (2013), "On the importance of initialization and momentum".

    >>> import numpy as np, backprop as bp
    >>> phi = np.array([1.0])
    >>> bp.SGD(0.1).step(phi, np.array([2.0]))
    >>> phi
    array([0.8])
    """

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
        self.slots = ("velocity", "velocity_before")[: 1 + self.nesterov] if self.momentum else ()

    def prepare(self, phi: Array) -> None:
        """With momentum: keep the old velocity for Nesterov, and let the weight decay into the new one."""
        super().prepare(phi)
        if self.nesterov:
            np.copyto(self.state["velocity_before"], self.state["velocity"])
        if self.momentum and self.weight_decay:
            self._decay_into_velocity(phi, self.penalty("weight_decay"))

    def _decay_into_velocity(self, phi: Array, decay: float | Array) -> None:
        """Let λ ⊙ φ / μ into v: the landing multiplies v by μ."""
        v = self.state["velocity"]
        if isinstance(decay, np.ndarray):
            one_after_another(phi.size, lambda piece: axpy(1 / self.momentum, decay[piece] * phi[piece], v[piece]))
        else:
            axpy(decay / self.momentum, phi, v)

    def landing(self, phi: Array) -> Landing:
        """In φ, or in v with momentum."""
        if self.momentum:
            return Landing(self.state["velocity"], 1.0, self.momentum)
        decay = self.penalty("weight_decay") if self.weight_decay else 0.0
        if isinstance(decay, np.ndarray):
            return super().landing(phi)
        alpha = self.learning_rate
        return Landing(phi, -alpha, 1 - alpha * decay)

    def finish(self, phi: Array, for_pieces: ForPieces | None = None) -> None:
        """With momentum: move φ along v. Then shrink it."""
        if self.momentum:
            alpha, mu = self.learning_rate, self.momentum
            if self.nesterov:
                axpy(alpha * mu, self.state["velocity_before"], phi)
            axpy(-alpha * (1 + mu) if self.nesterov else -alpha, self.state["velocity"], phi)
        elif isinstance(self.weight_decay, dict) and self.landing(phi).target is not phi:
            super().finish(phi, for_pieces)
            return
        if self.l1:
            l1, rate = self.penalty("l1"), self.rates(self.learning_rate)
            (for_pieces or one_after_another)(phi.size, lambda piece: shrink(phi[piece], of_piece(l1, piece) * rate))
        self.t += 1

    def update(self, alpha: float, phi: Array, g: Array, *state: Array) -> None:
        """The rule where g lands in a vector of its own."""
        axpy(-alpha, g, phi)

    def rates(self, alpha: float, *state: Array) -> float:
        """α (1 + μ + … + μᵗ⁻¹), one power more with nesterov: v of a steady gradient of 1."""
        return alpha * (1 - self.momentum ** (self.t + 1 + self.nesterov)) / (1 - self.momentum)
