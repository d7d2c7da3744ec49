"""Optimizers: how φ moves along its gradient g = ∂L/∂φ. They see flat vectors only.

    g ← clip[∂L/∂φ]                              by value, then by global norm
    g ← g + λ φ                                  weight decay
    φ, state ← update(α, φ, g, state)            the rule of each class
    φ ← sign(φ) max(|φ| − λ₁ r, 0)               l1, see `penalties`

The rules are those of PyTorch 2, term by term, so trajectories can be compared number by number.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from backprop import checks, notation
from backprop.checks import Array
from backprop.functions import norm
from backprop.optimizers.penalties import Parametrized, Penalty, number_or_patterns, over_phi, shrink
from backprop.schedules import ConstantRate, Schedule, schedule

SETTINGS = ("weight_decay", "l1", "clip_value", "clip_norm", "schedule", "learning_rate")  # of every rule


class Optimizer(notation.Part, ABC):
    """State, clipping and penalties common to all rules. `t` counts the steps taken; `state` holds vectors (P,) by `slots`.

    `weight_decay` and `l1` are numbers ≥ 0 or dicts such as {"*.omega": 1e-4, "0.*": 0}: the first pattern that matches the name
    of a parameter counts, parameters that match none have 0. Patterns need the names, so `assign(net)` comes before the first
    step; the trainer sees to it. What is assigned to an attribute counts from the next step by hand, or epoch of the
    trainer, on.

    Raises ValueError or TypeError for rates that are 0, negative, NaN or not numbers.
    """

    schedule: Any  # α as a function of t; a number becomes a `ConstantRate`
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
        vars(self)["_mark"] = Mark()
        self.schedule = learning_rate
        self.weight_decay, self.l1 = weight_decay, l1
        self.clip_value, self.clip_norm = clip_value, clip_norm
        self.t = 0
        self.state: dict[str, Array] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        if name in SETTINGS:
            value = self._checked(name, value)
        object.__setattr__(self, "schedule" if name == "learning_rate" else name, value)

    def _checked(self, name: str, value: Any) -> Any:
        who = type(self).__name__
        if name in ("weight_decay", "l1"):
            vars(self).get("_by_name", {}).pop(name, None)
            return number_or_patterns(who, name, value)
        if name in ("clip_value", "clip_norm"):
            return None if value is None else checks.number(who, name, value, above=0)
        value = schedule(who, value)
        value.serve(vars(self).setdefault("_mark", Mark()))
        if (before := vars(self).get("schedule", value)) is not value:
            before.serve(None)
        return value

    def __getstate__(self) -> dict[str, Any]:
        # A copy is free to serve another network.
        return {name: value for name, value in vars(self).items() if name != "_serves"}

    @property
    def learning_rate(self) -> float:
        """α of the next step. Raises ValueError if a schedule of one's own leaves the numbers ≥ 0."""
        alpha = self.schedule(self.t)
        if not 0 <= alpha < math.inf:
            raise ValueError(checks.message(repr(self.schedule), "learning_rate ≥ 0 and finite", repr(alpha)))
        return alpha

    def assign(self, net: Parametrized) -> None:
        """Serve this network: look the patterns of `weight_decay` and `l1` up among the names of its parameters.

        The trainer calls it; a loop of one's own does, once, before its first step. Raises ValueError for a pattern that matches
        no parameter, and where it has moved another network already; TypeError for what is no network.

        >>> import backprop as bp
        >>> net = bp.Sequential(bp.Linear(2, 1), seed=0, dtype="float64")
        >>> optimizer = bp.SGD(0.1, weight_decay={"*.omega": 0.5})
        >>> optimizer.assign(net)
        >>> before = net.phi.copy()
        >>> optimizer.step(net.phi, 0 * net.phi)
        >>> (net.phi[1:] / before[1:]).round(3)  # the weights; β comes first
        array([0.95, 0.95])
        """
        who = f"{type(self).__name__}.assign"
        if not all(hasattr(type(net), name) or name in getattr(net, "__dict__", ()) for name in ("phi", "parameters")):
            raise TypeError(checks.message(who, "net: a Sequential", repr(net)))
        own, mark = vars(self), vars(net).setdefault("_mark", Mark())
        if own.get("_serves") is mark and not isinstance(self.weight_decay, dict) and not isinstance(self.l1, dict):
            return
        if own.get("_serves") not in (None, mark) and (self.t or self.state):
            advice = "One optimizer serves one network: give each its own."
            raise ValueError(checks.message(who, "a network that it serves", "another one", advice))
        own["_serves"] = mark
        own["_names"] = {name: array.size for name, array in net.parameters.items()}
        own["_by_name"], own["_dtype"] = {}, net.phi.dtype
        for name in ("weight_decay", "l1"):
            self.penalty(name)

    def penalty(self, name: str) -> Any:
        """λ ("weight_decay") or λ₁ ("l1"): one number for all of φ, or a vector (P,). Raises RuntimeError before `assign`."""
        value, own, who = getattr(self, name), vars(self), type(self).__name__
        if not isinstance(value, dict):
            return value
        if "_names" not in own:
            expected, advice = "assign(net) before the first step", "Call optimizer.assign(net) once; Trainer does it."
            raise RuntimeError(checks.message(who, expected, f"{name} by names not yet known", advice))
        if name not in own["_by_name"]:
            own["_by_name"][name] = over_phi(who, name, value, own["_names"], own["_dtype"])
        return own["_by_name"][name]

    def step(self, phi: Array, dL_dphi: Array) -> None:
        """Move phi (P,) in place along its gradient dL_dphi (P,), which is not changed.

        Raises ValueError for vectors that do not fit each other or the optimizer's state, RuntimeError for patterns before
        `assign`, FloatingPointError where phi or the state would not be finite: they are then what they were.
        """
        if phi.shape != dL_dphi.shape or phi.ndim != 1:
            expected = f"dL_dphi with shape {phi.shape}, that of phi"
            raise ValueError(checks.message(f"{type(self).__name__}.step", expected, f"shape {dL_dphi.shape}"))
        state = self.prepare(phi)
        before = {"phi": phi.copy()} | dict(zip(self.slots, map(np.copy, state), strict=True))
        g = np.array(dL_dphi, phi.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # what came of it is looked at below
            self.clip(g)
            self.move(self.learning_rate, phi, g, *state)
        moved = {"phi": phi, **self.state}
        if lost := [name for name, vector in moved.items() if not checks.all_finite(vector)]:
            raise self._lost(lost[0], moved, before)
        self.t += 1

    def _lost(self, name: str, moved: Mapping[str, Array], before: Mapping[str, Array]) -> FloatingPointError:
        for key, vector in before.items():
            moved[key][...] = vector
        expected, advice = f"a finite {name} after the step", "Scale the loss, clip gradients, or use float64."
        return FloatingPointError(checks.message(f"{type(self).__name__}.step", expected, "nan or inf", advice))

    def prepare(self, phi: Array) -> list[Array]:
        """The state vectors in the order of `slots`, made on first use. Raises ValueError where they belong to another φ."""
        advice = "Give each network an optimizer of its own."
        for name in ("weight_decay", "l1"):
            if np.ndim(vector := self.penalty(name)) and vector.shape != phi.shape:
                expected = f"phi with shape {vector.shape}, that of the network in assign"
                raise ValueError(checks.message(type(self).__name__, expected, f"shape {phi.shape}", advice))
        for name in self.slots:
            array = self.state.setdefault(name, np.zeros_like(phi))
            if array.shape != phi.shape or array.dtype != phi.dtype:
                expected = f"phi with shape {array.shape} and dtype {array.dtype}, as in the steps before"
                got = f"shape {phi.shape} and dtype {phi.dtype}"
                raise ValueError(checks.message(type(self).__name__, expected, got, advice))
        return [self.state[name] for name in self.slots]

    @property
    def clips(self) -> bool:
        """Whether gradients are clipped, so that all of g must be known before any of it is used."""
        return self.clip_value is not None or self.clip_norm is not None

    def clip(self, g: Array) -> None:
        """Clip g (P,) in place, by value and then by global norm."""
        if self.clip_value is not None:
            g[...] = np.clip(g, -self.clip_value, self.clip_value)
        if self.clip_norm is not None:
            g *= min(1.0, self.clip_norm / (norm(g) + 1e-6))  # 1e-6 as in PyTorch's clip_grad_norm_

    def move(self, alpha: float, phi: Array, g: Array, *state: Array) -> None:
        """Weight decay, the rule, and l1, in place; entries of φ do not mix. g may be used up on the way."""
        decay, l1 = self.penalty("weight_decay"), self.penalty("l1")
        if np.ndim(decay) or decay:
            self.apply_decay(alpha, decay, phi, g)
        with checks.naming(self, "update", phi=phi.shape):
            moved = self.update(alpha, phi, g, *state)
        if moved is not None:
            who, got = f"{type(self).__name__}.update", f"a {type(moved).__name__}"
            advice = "Write phi -= …, state[...] = …, in place; what is returned would be lost."
            raise TypeError(checks.message(who, "None", got, advice))
        if np.ndim(l1) or l1:
            shrink(phi, l1 * self.rates(alpha, *state))

    @abstractmethod
    def update(self, alpha: float, phi: Array, g: Array, *state: Array) -> None:
        """The rule: moves phi and the state, in the order of `slots`, in place. `self.t` steps lie behind."""

    def apply_decay(self, alpha: float, decay: Any, phi: Array, g: Array) -> None:
        """Weight decay, before `update`: g ← g + λ ⊙ φ."""
        g += decay * phi

    def rates(self, alpha: float, *state: Array) -> Any:
        """How far the step just made moves each entry of φ along a steady gradient of 1; `l1` shrinks by as much."""
        return alpha

    def __repr__(self) -> str:
        rate = self.schedule
        return notation.call(self, learning_rate=rate(0) if isinstance(rate, ConstantRate) else rate)


class Mark:
    """What tells a network, and the optimizer and copies that belong to it, from all others."""


class SGD(Optimizer):
    """Stochastic gradient descent.

        g ← ∂L/∂φ + λ φ
        v ← μ v + g                        momentum μ
        φ ← φ − α v                        or, with nesterov,  φ ← φ − α (g + μ v)

    Source: Sutskever, Martens, Dahl and Hinton (2013), "On the importance of initialization and momentum".

    >>> phi = np.array([1.0])
    >>> SGD(0.1).step(phi, np.array([2.0]))
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

    @property
    def slots(self) -> tuple[str, ...]:  # type: ignore[override]
        """The velocity v, with momentum."""
        return ("velocity",) if self.momentum else ()

    def update(self, alpha: float, phi: Array, g: Array, *state: Array) -> None:
        if not self.momentum:
            phi -= alpha * g
            return
        (v,) = state
        v[...] = self.momentum * v + g
        phi -= alpha * (g + self.momentum * v if self.nesterov else v)

    def rates(self, alpha: float, *state: Array) -> float:
        """α (1 + μ + … + μᵗ⁻¹), one power more with nesterov: v of a steady gradient of 1."""
        return alpha * (1 - self.momentum ** (self.t + 1 + self.nesterov)) / (1 - self.momentum)
