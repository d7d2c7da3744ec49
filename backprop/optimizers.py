"""Optimizers: how φ moves along its gradient g = ∂L/∂φ. They see flat vectors only.

A step has three parts, so that the trainer can let the gradient land where the rule needs it (see `blas.Landing`):

    prepare(phi)                          what must happen before the gradient arrives
    target ← scale · g + keep · target    the landing, stated by `landing(phi)`
    finish(phi)                           what must happen after

`step(phi, dL_dphi)` runs the three for a gradient that is already formed. The rules are those of PyTorch 2, term by term, so
trajectories can be compared number by number. Clipping comes before the rule and needs the whole gradient.

Two penalties come with every rule, each a number or a number for each parameter by the pattern of its name:

    weight decay λ        g ← ∂L/∂φ + λ φ                          before the rule, as in PyTorch
    l1           λ₁       φ ← sign(φ) max(|φ| − λ₁ r, 0)           after it: the proximal step of λ₁ Σ |φ|, with exact zeros

r is how far the rule moves an entry whose gradient is a steady 1 (`rates`): α, for SGD with momentum α / (1 − μ), for the
adaptive rules α / (√ŝ + eps). The step and the penalty then balance where they should: all rules rest at a minimum of
L + λ₁ Σ |φ|. Sources: Duchi and Singer (2009), "Efficient online and batch learning using forward backward splitting", JMLR 10,
for a number r; Duchi, Hazan and Singer (2011), section 5, for Adagrad's; Yun, Lozano and Yang (2021), "Adaptive proximal
gradient methods for structured neural networks", for Adam's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from backprop import checks
from backprop.blas import Landing, axpy, norm
from backprop.checks import Array
from backprop.patterns import by_pattern
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
Penalty = float | Mapping[str, float]  # for all parameters, or by the pattern of their names


class Parametrized(Protocol):
    """A network: its φ, and which part of it has which name."""

    phi: Array

    @property
    def parameters(self) -> dict[str, Array]:
        """The parameters by name, in the order of φ."""


def one_after_another(size: int, function: Callable[[slice], None]) -> None:
    """Call function(piece) for the pieces of a vector of this size."""
    for start in range(0, size, PIECE):
        function(slice(start, min(start + PIECE, size)))


class Optimizer(ABC):
    """State, clipping and penalties common to all rules. `t` counts the steps taken.

    `weight_decay` and `l1` are numbers ≥ 0 or dicts such as {"*.omega": 1e-4, "0.*": 0}: the first pattern that matches the name
    of a parameter counts, parameters that match none have 0. Patterns need the names, so `assign(net)` comes before the first
    step; the trainer sees to it.

    Raises ValueError or TypeError for rates that are 0, negative, NaN or not numbers.
    """

    slots: tuple[str, ...] = ()  # names of the state vectors, each (P,), all starting at 0

    def __init__(
        self,
        learning_rate: float | Schedule,
        *,
        weight_decay: Penalty = 0.0,
        l1: Penalty = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        name = type(self).__name__
        self.schedule = schedule(name, learning_rate)
        self.weight_decay = number_or_patterns(name, "weight_decay", weight_decay)
        self.l1 = number_or_patterns(name, "l1", l1)
        self.clip_value = None if clip_value is None else checks.number(name, "clip_value", clip_value, above=0)
        self.clip_norm = None if clip_norm is None else checks.number(name, "clip_norm", clip_norm, above=0)
        self.t = 0
        self.state: dict[str, Array] = {}
        self._gradient: Array | None = None
        self._by_name: dict[str, float | Array] = {}  # what patterns stand for, from `assign` on

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

    def assign(self, net: Parametrized) -> None:
        """Look the patterns of `weight_decay` and `l1` up among the names of this network's parameters.

        The trainer calls it; a loop of one's own does, once, before its first step. Numbers need no names: then it does nothing.
        Raises ValueError for a pattern that matches no parameter, TypeError for what is no network.

        >>> import backprop as bp
        >>> net = bp.Sequential(bp.Linear(2, 1), seed=0, dtype="float64")
        >>> optimizer = bp.SGD(0.1, weight_decay={"*.omega": 0.5})
        >>> optimizer.assign(net)
        >>> before = net.phi.copy()
        >>> optimizer.step(net.phi, 0 * net.phi)
        >>> (net.phi[1:] / before[1:]).round(3)  # the weights; β comes first
        array([0.95, 0.95])
        """
        name = type(self).__name__
        if not (hasattr(net, "phi") and hasattr(net, "parameters")):
            raise TypeError(checks.message(f"{name}.assign", "net: a Sequential", repr(net)))
        patterns = {"weight_decay": self.weight_decay, "l1": self.l1}
        self._by_name = {
            key: over_phi(name, key, each, net) for key, each in patterns.items() if isinstance(each, dict)
        }

    def penalty(self, name: str) -> float | Array:
        """λ ("weight_decay") or λ₁ ("l1"): one number for all of φ, or a vector (P,). Raises RuntimeError before `assign`."""
        value = getattr(self, name)
        if not isinstance(value, dict):
            return value
        if name not in self._by_name:
            advice = "Call optimizer.assign(net) once; Trainer does it."
            expected = "assign(net) before the first step"
            raise RuntimeError(checks.message(type(self).__name__, expected, f"{name} by names not yet known", advice))
        return self._by_name[name]

    def step(self, phi: Array, dL_dphi: Array) -> None:
        """Move phi (P,) in place along its gradient dL_dphi (P,), which is not changed.

        Raises ValueError for vectors that do not fit each other or the optimizer's state, RuntimeError for patterns before
        `assign`.
        """
        if phi.shape != dL_dphi.shape or phi.ndim != 1:
            expected = f"dL_dphi with shape {phi.shape}, that of phi"
            raise ValueError(checks.message(f"{type(self).__name__}.step", expected, f"shape {dL_dphi.shape}"))
        self.prepare(phi)
        self.landing(phi).add(self.clip(dL_dphi, np.empty_like(phi)) if self.clips else dL_dphi)
        self.finish(phi)

    def prepare(self, phi: Array) -> None:
        """Make the state on first use, and whatever a rule does before its gradient arrives. phi is not changed."""
        if isinstance(self.weight_decay, dict) or isinstance(self.l1, dict):
            self._check_assigned(phi)
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
        to, alpha = self.landing(phi).target, self.learning_rate
        decay = self.penalty("weight_decay") if self.weight_decay else None
        l1 = self.penalty("l1") if self.l1 else None

        def update(piece: slice) -> None:
            own, g = phi[piece], to[piece]  # type: ignore[index]
            state = [self.state[name][piece] for name in self.slots]
            if decay is not None:
                self.apply_decay(alpha, of_piece(decay, piece), own, g)
            self.update(alpha, own, g, *state)
            if l1 is not None:
                shrink(own, of_piece(l1, piece) * self.rates(alpha, *state))

        (for_pieces or one_after_another)(phi.size, update)
        self.t += 1

    @abstractmethod
    def update(self, alpha: float, phi: Array, g: Array, *state: Array) -> None:
        """The rule for one piece: phi, g, and the state in the order of `slots`; g may be used up on the way."""

    def apply_decay(self, alpha: float, decay: float | Array, phi: Array, g: Array) -> None:
        """Weight decay of one piece, before `update`: g ← g + λ ⊙ φ."""
        if isinstance(decay, np.ndarray):
            np.add(g, decay * phi, out=g)
        else:
            axpy(decay, phi, g)

    def rates(self, alpha: float, *state: Array) -> float | Array:
        """How far the step just made moves each entry of one piece along a steady gradient of 1; `l1` shrinks by as much."""
        return alpha

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

    def _check_assigned(self, phi: Array) -> None:
        """Refuse patterns nobody has looked up, and a φ other than that of the network they were looked up in."""
        for vector in (self.penalty("weight_decay"), self.penalty("l1")):
            if isinstance(vector, np.ndarray) and vector.shape != phi.shape:
                expected = f"phi with shape {vector.shape}, that of the network in assign"
                raise ValueError(checks.message(type(self).__name__, expected, f"shape {phi.shape}"))


def number_or_patterns(who: str, name: str, value: object) -> float | dict[str, float]:
    """A number ≥ 0, or a dict of pattern → number ≥ 0, copied. Raises TypeError or ValueError."""
    if not isinstance(value, Mapping) or not value:
        return checks.number(who, name, value, least=0)
    for pattern in value:
        if not isinstance(pattern, str):
            raise TypeError(checks.message(who, f'patterns such as "*.omega" in {name}', repr(pattern)))
    return {pattern: checks.number(who, f"{name}[{pattern!r}]", each, least=0) for pattern, each in value.items()}


def over_phi(who: str, name: str, patterns: Mapping[str, float], net: Parametrized) -> float | Array:
    """The numbers by pattern as a vector (P,); as one number where they are all alike, which is quicker."""
    parameters = net.parameters
    numbers = by_pattern(who, name, patterns, parameters)
    found = [numbers.get(each, 0.0) for each in parameters]
    if len(set(found)) <= 1:
        return found[0] if found else 0.0
    return np.repeat(np.array(found, net.phi.dtype), [array.size for array in parameters.values()])


def of_piece(value: float | Array, piece: slice) -> float | Array:
    """The part of a penalty that belongs to a piece of φ."""
    return value[piece] if isinstance(value, np.ndarray) else value


def over_root(alpha: float, s: Array, eps: float, factor: float = 1.0) -> Array:
    """α / (√(factor · s) + eps), in one new array."""
    root = np.sqrt(s)
    np.add(np.multiply(root, math.sqrt(factor), out=root), eps, out=root)
    return np.divide(alpha, root, out=root)


def shrink(phi: Array, by: float | Array) -> None:
    """Update φ ← sign(φ) max(|φ| − by, 0) in place.

    >>> phi = np.array([3.0, -0.5, -2.0])
    >>> shrink(phi, 1.0)
    >>> phi
    array([ 2.,  0., -1.])
    """
    inside = np.minimum(phi, by)
    np.maximum(inside, -by, out=inside)
    np.subtract(phi, inside, out=phi)


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
        """The three lines above."""
        (s,) = state
        root = g * g
        np.multiply(root, 1 - self.decay, out=root)
        np.add(np.multiply(s, self.decay, out=s), root, out=s)
        np.add(np.sqrt(s, out=root), self.eps, out=root)
        np.multiply(np.divide(g, root, out=g), alpha, out=g)
        np.subtract(phi, g, out=phi)

    def rates(self, alpha: float, *state: Array) -> Array:
        """α / (√s + eps)."""
        return over_root(alpha, state[0], self.eps)


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
        weight_decay: Penalty = 0.0,
        *,
        l1: Penalty = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, l1=l1, clip_value=clip_value, clip_norm=clip_norm)
        self.eps = checks.number("Adagrad", "eps", eps, above=0)

    def update(self, alpha: float, phi: Array, g: Array, *state: Array) -> None:
        """The three lines above."""
        (s,) = state
        root = g * g
        np.add(s, root, out=s)
        np.add(np.sqrt(s, out=root), self.eps, out=root)
        np.multiply(np.divide(g, root, out=g), alpha, out=g)
        np.subtract(phi, g, out=phi)

    def rates(self, alpha: float, *state: Array) -> Array:
        """α / (√s + eps)."""
        return over_root(alpha, state[0], self.eps)


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
        c = math.sqrt((1 - beta2**t) / (1 - beta2))
        np.add(np.multiply(M, beta1, out=M), g, out=M)
        np.multiply(g, g, out=g)  # from here on g is only a place to work
        np.add(np.multiply(S, beta2, out=S), g, out=S)
        np.add(np.sqrt(S, out=g), self.eps * c, out=g)
        np.multiply(np.divide(M, g, out=g), alpha * c * (1 - beta1) / (1 - beta1**t), out=g)
        np.subtract(phi, g, out=phi)

    def rates(self, alpha: float, *state: Array) -> Array:
        """α / (√ŝ + eps)."""
        beta2 = self.betas[1]
        return over_root(alpha, state[1], self.eps, (1 - beta2) / (1 - beta2 ** (self.t + 1)))


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
        weight_decay: Penalty = 0.01,
        *,
        l1: Penalty = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, betas, eps, weight_decay, l1=l1, clip_value=clip_value, clip_norm=clip_norm)

    def apply_decay(self, alpha: float, decay: float | Array, phi: Array, g: Array) -> None:
        """Weight decay of φ itself."""
        np.multiply(phi, 1 - alpha * decay, out=phi)
