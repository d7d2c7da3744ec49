"""Optimizers: how φ moves along its gradient g = ∂L/∂φ. They see flat vectors only.

A step has three parts, so that the trainer can let the gradient land where the rule needs it (see `blas.Landing`):

    prepare(phi)                          what must happen before the gradient arrives
    target ← scale · g + keep · target    the landing, stated by `landing(phi)`
    finish(phi)                           what must happen after

`step(phi, dL_dphi)` runs the three for a gradient that is already formed. The rules are those of PyTorch 2, term by term, so
trajectories can be compared number by number. Clipping comes before the rule and needs the whole gradient; penalties
are told in `penalties`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from backprop import checks
from backprop.blas import Landing, axpy, norm
from backprop.checks import Array
from backprop.optimizers.penalties import Parametrized, Penalty, number_or_patterns, of_piece, over_phi, shrink
from backprop.schedules import ConstantRate, Schedule, schedule

PIECE = 1 << 16  # entries of φ updated at a time: few enough for the cache, enough to be worth a call

ForPieces = Callable[[int, Callable[[slice], None]], None]


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
