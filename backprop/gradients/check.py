"""Gradient check: what `backward` returns against derivatives found from `forward` alone.

    complex step          ∂L/∂x = Im L(x + iε) / ε                    exact to rounding: nothing is subtracted
    central difference    ∂L/∂x ≈ (L(x + δ) − L(x − δ)) / 2δ          where a layer does not take complex numbers

Both run in float64 on a copy of the network, so nothing of the caller's is changed.
Source: Squire and Trapp (1998), "Using complex variables to estimate derivatives of real functions", SIAM Review 40.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.layers import Layer
from backprop.losses import Loss
from backprop.sequential import Sequential

EPSILON = 1e-30  # so small that ε² vanishes beside every number there is
DELTA = 6e-6  # the cube root of float64's precision balances rounding against curvature
ROUNDING = 16 * float(np.finfo(float).eps) / DELTA  # of a central difference, for each unit of L
TOLERANCE = {"complex step": 1e-10, "central difference": 1e-6}


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of one gradient, found both ways. `error` is the difference relative to the largest entry of its tensor."""

    name: str
    index: tuple[int, ...]
    analytic: float
    numeric: float
    error: float

    def __str__(self) -> str:
        place = f"{self.name}[{', '.join(map(str, self.index))}]"
        return f"{place}: backward gives {self.analytic:.12g}, {{method}} {self.numeric:.12g}"


@dataclass(frozen=True, slots=True)
class GradientReport:
    """Outcome of `check_gradients`; `str(report)` is meant to be read.

    `entries` holds the worst entry of each tensor, `counts` how many of its entries were checked and how many there are.
    """

    method: str
    tolerance: float
    entries: tuple[Entry, ...]
    counts: tuple[tuple[int, int], ...]

    @property
    def worst(self) -> Entry:
        """The entry with the largest error."""
        return max(self.entries, key=lambda entry: entry.error if math.isfinite(entry.error) else math.inf)

    @property
    def passed(self) -> bool:
        """Whether every checked entry agrees within the tolerance."""
        return bool(self.worst.error <= self.tolerance)

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        checked, there = (sum(column) for column in zip(*self.counts, strict=True))
        title = f"Gradient check {'passed' if self.passed else 'FAILED'}: {self.method}, "
        title += f"{checked:,} of {there:,} entries, tolerance {self.tolerance:g}"
        lines = [title, f"  {'tensor':<16}{'checked':>14}{'largest error':>16}"]
        for entry, (some, all_) in zip(self.entries, self.counts, strict=True):
            mark = "" if entry.error <= self.tolerance else "  ← wrong"
            lines.append(f"  {entry.name:<16}{f'{some:,}/{all_:,}':>14}{entry.error:>16.1e}{mark}")
        if not self.passed:
            lines.append(f"Worst entry {self.worst}".format(method="the " + self.method))
        return "\n".join(lines)


def check_gradients(
    net: Layer,
    loss: Loss,
    X: Array,
    y: Array,
    sample_weight: Array | None = None,
    *,
    max_entries: int = 5000,
    seed: int = 0,
) -> GradientReport:
    """Compare every gradient of a network, by parameters and by X, with derivatives of its loss.

    Rows X (N, D), targets y (N,) or (N, K); a few examples are enough. Where there are more than `max_entries` entries, that many
    are drawn evenly from all tensors. Raises TypeError or ValueError for data that does not fit, RuntimeError for a
    network whose forward pass is random and cannot be repeated.

    >>> import numpy as np, backprop as bp
    >>> net = bp.Sequential(bp.Linear(3, 4), bp.Tanh(), bp.Linear(4, 2), seed=0)
    >>> report = check_gradients(net, bp.CrossEntropy(), np.eye(3), np.array([0, 1, 0]))
    >>> report.passed, report.method
    (True, 'complex step')
    """
    checks.integer("check_gradients", "max_entries", max_entries)
    generator = checks.generator("check_gradients", seed)
    problem = _Problem(net, loss, X, y, sample_weight)
    method = "complex step" if problem.takes_complex() else "central difference"
    analytic = problem.gradients()
    scale = max(float(np.abs(a).max()) for a in analytic.values())
    chosen = _choose({name: a.size for name, a in analytic.items()}, max_entries, generator)
    entries, counts = [], []
    for name, numeric in problem.derivatives(chosen, method):
        a, at = analytic[name], chosen[name]
        entries.append(_worst(name, a, at, numeric, scale, problem.rounding if method != "complex step" else 0.0))
        counts.append((len(at), a.size))
    return GradientReport(method, TOLERANCE[method], tuple(entries), tuple(counts))


class _Problem:
    """L as a function of one vector per name: each parameter, and X."""

    def __init__(self, net: Layer, loss: Loss, X: Array, y: Array, sample_weight: Array | None) -> None:
        who = "check_gradients"
        checks.instance(who, "net", net, Layer)
        checks.instance(who, "loss", loss, Loss)
        self.net = net.copy() if isinstance(net, Sequential) else Sequential(net.copy(), dtype="float64")
        self.net.bind(self.net.phi.astype(np.float64))
        self.loss = loss.replica()
        self.loss._arrays = None
        X = np.asarray(checks.rows(who, X, net.in_features))
        checks.finite(who, "X", X)
        self.h = np.array(X.T, dtype=np.float64)
        self.net.reseed(0)
        self.y = self.loss.from_rows(who, y, *self.net.forward(self.h).shape)
        self.w = None if sample_weight is None else checks.weights(who, sample_weight, len(X))
        L = self.value(self.net, self.h)
        self.rounding = ROUNDING * abs(L)
        if self.value(self.net, self.h) != L:
            advice = "Draw from a generator that `reseed(*key)` sets."
            raise RuntimeError(checks.message(who, "the same loss twice", "two different ones", advice))

    def value(self, net: Sequential, h: Array) -> complex:
        """L at these parameters and inputs, with the same random numbers each time."""
        net.reseed(0)
        return self.loss.forward(net.forward(h), self.y, self.w)

    def gradients(self) -> dict[str, Array]:
        """What `backward` returns, by name; X in rows."""
        self.value(self.net, self.h)
        dL_dh, gradients = self.net.backward(self.loss.backward())
        return {**gradients, "X": np.ascontiguousarray(dL_dh.T)}

    def takes_complex(self) -> bool:
        """Whether every layer and the loss are analytic: along one direction, both methods must agree."""
        generator = np.random.default_rng(0)
        direction, along_h = generator.standard_normal(self.net.size), generator.standard_normal(self.h.shape)

        def along(step: complex) -> complex:
            net = self.net.copy()
            net.bind(net.phi + step * direction)
            return self.value(net, self.h + step * along_h)

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)
                exact = along(1j * EPSILON).imag / EPSILON
        except (TypeError, ValueError, AttributeError, Warning):
            return False
        plus, minus = along(DELTA).real, along(-DELTA).real
        near = (plus - minus) / (2 * DELTA)
        rounding = ROUNDING * max(abs(plus), abs(minus), 1.0)
        return bool(abs(exact - near) <= 1e-4 * max(abs(exact), abs(near)) + rounding)

    def derivatives(self, chosen: dict[str, Array], method: str) -> Iterator[tuple[str, Array]]:
        """∂L by the chosen entries of each tensor, from moving one entry at a time on a copy."""
        step = 1j * EPSILON if method == "complex step" else DELTA
        net, h = self.net.copy(), self.h.astype(type(step))
        net.bind(net.phi.astype(type(step)))
        tensors = {**net.parameters, "X": h.T}

        def moved(tensor: Array, index: tuple[int, ...], by: complex) -> complex:
            before = tensor[index]
            tensor[index] += by
            L = self.value(net, h)
            tensor[index] = before
            return L

        for name, at in chosen.items():
            tensor = tensors[name]
            numeric = np.empty(len(at))
            for k, index in enumerate(zip(*np.unravel_index(at, tensor.shape), strict=True)):
                if method == "complex step":
                    numeric[k] = moved(tensor, index, step).imag / EPSILON
                else:
                    numeric[k] = (moved(tensor, index, DELTA) - moved(tensor, index, -DELTA)) / (2 * DELTA)
            yield name, numeric


def _choose(sizes: dict[str, int], most: int, generator: np.random.Generator) -> dict[str, Array]:
    """Entries to check: all, or an even share of each tensor drawn at random."""
    left, chosen = most, {}
    if sum(sizes.values()) <= most:
        return {name: np.arange(size) for name, size in sizes.items()}
    for rank, (name, size) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        share = min(size, max(1, left // (len(sizes) - rank)))
        chosen[name] = np.sort(generator.choice(size, share, replace=False))
        left -= share
    return {name: chosen[name] for name in sizes}


def _worst(name: str, analytic: Array, at: Array, numeric: Array, scale: float, rounding: float) -> Entry:
    """The entry of a tensor with the largest error.

    Errors are relative to the tensor's largest entry; a tensor whose gradient is 0 but for rounding, such as a bias in front of
    BatchNorm, is measured against the other tensors. `rounding` is what a central difference cannot know better.
    """
    found = analytic.reshape(-1)[at]
    largest = max(float(np.abs(numeric).max()), float(np.abs(found).max()), 1e-3 * scale, 1e-300)
    errors = np.maximum(np.abs(found - numeric) - rounding, 0.0) / largest
    i = int(np.argmax(np.where(np.isfinite(errors), errors, np.inf)))
    index = tuple(int(k) for k in np.unravel_index(at[i], analytic.shape))
    return Entry(name, index, float(found[i]), float(numeric[i]), float(errors[i]))
