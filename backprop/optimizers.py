"""Optimizers: how φ moves along its gradient g = ∂L/∂φ. They see flat vectors only.

A step has three parts, so that the trainer can let the gradient land where the rule needs it (see `blas.Landing`):

    prepare(phi)                          what must happen before the gradient arrives
    target ← scale · g + keep · target    the landing, stated by `landing(phi)`
    finish(phi)                           what must happen after

`step(phi, dL_dphi)` runs the three for a gradient that is already formed. The rules are those of PyTorch 2, term by term, so
trajectories can be compared number by number. Clipping comes before the rule and needs the whole gradient.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from backprop import checks
from backprop.blas import Landing, axpy, norm
from backprop.checks import Array
from backprop.schedules import ConstantRate, Schedule, schedule

PIECE = 1 << 16  # entries of φ updated at a time: few enough for the cache, enough to be worth a call

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSProp",
]


ForPieces = Callable[[int, Callable[[slice], None]], None]


def one_after_another(size: int, function: Callable[[slice], None]) -> None:
    """Call function(piece) for the pieces of a vector of this size."""
    for start in range(0, size, PIECE):
        function(slice(start, min(start + PIECE, size)))


class Optimizer(ABC):
    """State and clipping common to all rules. `t` counts the steps taken.

    Raises ValueError or TypeError for rates that are 0, negative, NaN or not numbers.
    """

    slots: tuple[str, ...] = ()  # names of the state vectors, each (P,), all starting at 0

    def __init__(
        self,
        learning_rate: float | Schedule,
        *,
        weight_decay: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        name = type(self).__name__
        self.schedule = schedule(name, learning_rate)
        self.weight_decay = checks.number(name, "weight_decay", weight_decay, least=0)
        self.clip_value = None if clip_value is None else checks.number(name, "clip_value", clip_value, above=0)
        self.clip_norm = None if clip_norm is None else checks.number(name, "clip_norm", clip_norm, above=0)
        self.t = 0
        self.state: dict[str, Array] = {}
        self._gradient: Array | None = None

    @property
    def learning_rate(self) -> float:
        """α of the next step. Raises ValueError if a schedule of one's own leaves the numbers ≥ 0."""
        alpha = self.schedule(self.t)
        if not 0 <= alpha < math.inf:
            raise ValueError(checks.message(repr(self.schedule), "learning_rate ≥ 0 and finite", repr(alpha)))
        return alpha

    @property
    def clips(self) -> bool:
        """Whether gradients are clipped, so that all of g must be known before any of it is used."""
        return self.clip_value is not None or self.clip_norm is not None

    def step(self, phi: Array, dL_dphi: Array) -> None:
        """Move phi (P,) in place along its gradient dL_dphi (P,), which is not changed.

        Raises ValueError for vectors that do not fit each other or the optimizer's state.
        """
        if phi.shape != dL_dphi.shape or phi.ndim != 1:
            expected = f"dL_dphi with shape {phi.shape}, that of phi"
            raise ValueError(checks.message(f"{type(self).__name__}.step", expected, f"shape {dL_dphi.shape}"))
        self.prepare(phi)
        self.landing(phi).add(self.clip(dL_dphi, np.empty_like(phi)) if self.clips else dL_dphi)
        self.finish(phi)

    def prepare(self, phi: Array) -> None:
        """Make the state on first use, and whatever a rule does before its gradient arrives. phi is not changed."""
        for name in self.slots:
            array = self.state.get(name)
            if array is None:
                self.state[name] = np.zeros_like(phi)
            elif array.shape != phi.shape or array.dtype != phi.dtype:
                expected = f"phi with shape {array.shape} and dtype {array.dtype}, as in the steps before"
                got = f"shape {phi.shape} and dtype {phi.dtype}"
                advice = "Give each network an optimizer of its own."
                raise ValueError(checks.message(type(self).__name__, expected, got, advice))

    def landing(self, phi: Array) -> Landing:
        """Where the gradient goes, after `prepare`: here a vector of its own."""
        if self._gradient is None or self._gradient.shape != phi.shape or self._gradient.dtype != phi.dtype:
            self._gradient = np.empty_like(phi)
        return Landing(self._gradient)

    def finish(self, phi: Array, for_pieces: ForPieces | None = None) -> None:
        """Move phi once the gradient has landed, piece by piece; the trainer runs the pieces on its threads."""
        g, alpha = self.landing(phi).target, self.learning_rate

        def update(piece: slice) -> None:
            own = phi[piece]
            self.update(alpha, own, g[piece], *[self.state[name][piece] for name in self.slots])  # type: ignore[index]

        (for_pieces or one_after_another)(phi.size, update)
        self.t += 1

    @abstractmethod
    def update(self, alpha: float, phi: Array, g: Array, *state: Array) -> None:
        """The rule for one piece: phi, g, and the state in the order of `slots`; g may be used up on the way."""

    def clip(self, g: Array, out: Array) -> Array:
        """Write g (P,) to out, clipped by value and then by global norm; out may be g itself."""
        if self.clip_value is not None:
            g = np.clip(g, -self.clip_value, self.clip_value, out=out)
        if self.clip_norm is not None:
            # 1e-6 as in PyTorch's clip_grad_norm_
            factor = min(1.0, self.clip_norm / (norm(g) + 1e-6))
            g = np.multiply(g, factor, out=out)
        return g

    def __repr__(self) -> str:
        rate = self.schedule
        return checks.call(self, learning_rate=rate(0) if isinstance(rate, ConstantRate) else rate)


class SGD(Optimizer):
    """Stochastic gradient descent.

        g ← ∂L/∂φ + λ φ
        v ← μ v + g                        momentum μ
        φ ← φ − α v                        or, with nesterov,  φ ← φ − α (g + μ v)

    Without momentum the gradient lands in φ itself: φ ← −α ∂L/∂φ + (1 − αλ) φ. With momentum it lands in v. Nesterov's rule
    wants g beside v; as g = v − μ v_old, the step is −α (1 + μ) v + αμ v_old, and the old v is kept instead of g.
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
        weight_decay: float = 0.0,
        *,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, clip_value=clip_value, clip_norm=clip_norm)
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
            axpy(self.weight_decay / self.momentum, phi, self.state["velocity"])  # the landing multiplies v by μ

    def landing(self, phi: Array) -> Landing:
        """In φ, or in v with momentum."""
        if self.momentum:
            return Landing(self.state["velocity"], 1.0, self.momentum)
        alpha = self.learning_rate
        return Landing(phi, -alpha, 1 - alpha * self.weight_decay)

    def finish(self, phi: Array, for_pieces: ForPieces | None = None) -> None:
        """With momentum: move φ along v."""
        if self.momentum:
            alpha, mu = self.learning_rate, self.momentum
            if self.nesterov:
                axpy(alpha * mu, self.state["velocity_before"], phi)
            axpy(-alpha * (1 + mu) if self.nesterov else -alpha, self.state["velocity"], phi)
        self.t += 1

    def update(self, alpha: float, phi: Array, g: Array, *state: Array) -> None:
        """Nothing: the landing and two axpy are the whole rule."""


class RMSProp(Optimizer):
    """Steps divided by a running root mean square of the gradient.

        g ← ∂L/∂φ + λ φ
        s ← ρ s + (1 − ρ) g²               decay ρ
        φ ← φ − α g / (√s + eps)

    Source: Tieleman and Hinton (2012), "Lecture 6.5: rmsprop", Neural Networks for Machine Learning.

    >>> import numpy as np, backprop as bp
    >>> phi = np.array([1.0])
    >>> bp.RMSProp(0.1).step(phi, np.array([3.0]))
    >>> phi.round(6)
    array([0.])
    """

    slots = ("square",)

    def __init__(
        self,
        learning_rate: float | Schedule = 0.01,
        decay: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, clip_value=clip_value, clip_norm=clip_norm)
        self.decay = checks.number("RMSProp", "decay", decay, least=0, below=1)
        self.eps = checks.number("RMSProp", "eps", eps, above=0)

    def update(self, alpha: float, phi: Array, g: Array, *state: Array) -> None:
        """The three lines above."""
        (s,) = state
        if self.weight_decay:
            axpy(self.weight_decay, phi, g)
        root = g * g
        np.multiply(root, 1 - self.decay, out=root)
        np.add(np.multiply(s, self.decay, out=s), root, out=s)
        np.add(np.sqrt(s, out=root), self.eps, out=root)
        np.multiply(np.divide(g, root, out=g), alpha, out=g)
        np.subtract(phi, g, out=phi)


class Adagrad(Optimizer):
    """Steps divided by the root of the sum of all squared gradients so far.

        g ← ∂L/∂φ + λ φ
        s ← s + g²
        φ ← φ − α g / (√s + eps)

    Source: Duchi, Hazan and Singer (2011), "Adaptive subgradient methods", JMLR 12.

    >>> import numpy as np, backprop as bp
    >>> phi = np.array([1.0])
    >>> bp.Adagrad(0.1).step(phi, np.array([3.0]))
    >>> phi.round(6)
    array([0.9])
    """

    slots = ("sum_of_squares",)

    def __init__(
        self,
        learning_rate: float | Schedule = 0.01,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        *,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, clip_value=clip_value, clip_norm=clip_norm)
        self.eps = checks.number("Adagrad", "eps", eps, above=0)

    def update(self, alpha: float, phi: Array, g: Array, *state: Array) -> None:
        """The three lines above."""
        (s,) = state
        if self.weight_decay:
            axpy(self.weight_decay, phi, g)
        root = g * g
        np.add(s, root, out=s)
        np.add(np.sqrt(s, out=root), self.eps, out=root)
        np.multiply(np.divide(g, root, out=g), alpha, out=g)
        np.subtract(phi, g, out=phi)


class Adam(Optimizer):
    """Momentum divided by a running root mean square, both corrected for their start at 0.

        g ← ∂L/∂φ + λ φ
        m ← β₁ m + (1 − β₁) g              m̂ = m / (1 − β₁ᵗ)
        s ← β₂ s + (1 − β₂) g²             ŝ = s / (1 − β₂ᵗ)
        φ ← φ − α m̂ / (√ŝ + eps)

    Kept are M = m / (1 − β₁) and S = s / (1 − β₂), which saves two passes over φ: M ← β₁ M + g, S ← β₂ S + g². The factors
    go into two numbers: φ ← φ − a M / (√S + e), a = α (1−β₁)/(1−β₁ᵗ) · c, e = eps · c, c = √((1−β₂ᵗ)/(1−β₂)).
    Source: Kingma and Ba (2015), "Adam: a method for stochastic optimization", arXiv:1412.6980.

    >>> import numpy as np, backprop as bp
    >>> phi = np.array([1.0])
    >>> bp.Adam(0.1).step(phi, np.array([3.0]))
    >>> phi.round(6)
    array([0.9])
    """

    slots = ("first_moment", "second_moment")

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, clip_value=clip_value, clip_norm=clip_norm)
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
        c = math.sqrt((1 - beta2**t) / (1 - beta2))
        if self.weight_decay:
            self.decay(alpha, phi, g)
        np.add(np.multiply(M, beta1, out=M), g, out=M)
        np.multiply(g, g, out=g)  # from here on g is only a place to work
        np.add(np.multiply(S, beta2, out=S), g, out=S)
        np.add(np.sqrt(S, out=g), self.eps * c, out=g)
        np.multiply(np.divide(M, g, out=g), alpha * c * (1 - beta1) / (1 - beta1**t), out=g)
        np.subtract(phi, g, out=phi)

    def decay(self, alpha: float, phi: Array, g: Array) -> None:
        """Weight decay through the gradient: g + λφ."""
        axpy(self.weight_decay, phi, g)


class AdamW(Adam):
    """Adam with weight decay beside the gradient, not through it: φ ← (1 − αλ) φ before the step.

    Source: Loshchilov and Hutter (2019), "Decoupled weight decay regularization", arXiv:1711.05101.

    >>> import numpy as np, backprop as bp
    >>> phi = np.array([1.0])
    >>> bp.AdamW(0.1, weight_decay=0.5).step(phi, np.array([0.0]))
    >>> phi
    array([0.95])
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, betas, eps, weight_decay, clip_value=clip_value, clip_norm=clip_norm)

    def decay(self, alpha: float, phi: Array, g: Array) -> None:
        """Weight decay of φ itself."""
        np.multiply(phi, 1 - alpha * self.weight_decay, out=phi)
