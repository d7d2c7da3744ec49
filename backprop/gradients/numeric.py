"""Derivatives of a number L from values of L alone.

    complex step              ∂L/∂x = Im L(x + iε) / ε                        exact to rounding: nothing is subtracted
    Richardson differences    D(δ) = (L(x + δ) − L(x − δ)) / 2δ               D is off by c₂δ² + c₄δ⁴ + …, and two halvings
                              (64 D(δ/4) − 20 D(δ/2) + D(δ)) / 45             of δ cancel the first two terms
    one-sided slopes          ±(−3 L(x) + 4 L(x ± δ) − L(x ± 2δ)) / 2δ        which differ at a kink and nowhere else

Sources: Squire and Trapp (1998), "Using complex variables to estimate derivatives of real functions", SIAM Review 40;
Richardson (1911), Philosophical Transactions A 210; Ridders (1982), Advances in Engineering Software 4, for choosing δ.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from backprop.checks import Array

EPSILON = 1e-30  # so small that ε² vanishes beside every number there is
STEPS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)  # δ, largest first: the next is tried where one is not accurate
GOOD = 1e-10  # relative accuracy at which no smaller δ is tried
ONE_SIDED = 1e-6  # δ of the one-sided slopes
ROUNDING = 4 * float(np.finfo(float).eps)  # of a difference of two values, for each unit of L
BESIDE = 1e-4  # how far from the point the code is tried with complex numbers, relative to the size of each tensor
JUMP = 1e-5  # relative difference of the one-sided slopes from which on it is a kink

Along = Callable[[complex], complex]  # L at x + t·direction, as a function of t


@dataclass
class Point:
    """Named arrays, and a function of no arguments that computes L from whatever they hold just now."""

    tensors: dict[str, Array]
    evaluate: Callable[[], complex]

    def entry(self, name: str, index: tuple[int, ...]) -> Along:
        """L as a function of one entry's displacement."""
        tensor = self.tensors[name]

        def along(t: complex) -> complex:
            before = tensor[index]
            tensor[index] = before + t
            try:
                return self.evaluate()
            finally:
                tensor[index] = before

        return along

    def line(self, directions: Mapping[str, Array]) -> Along:
        """L as a function of a displacement of whole tensors."""

        def along(t: complex) -> complex:
            before = {name: self.tensors[name].copy() for name in directions}
            for name, direction in directions.items():
                self.tensors[name][...] += t * direction
            try:
                return self.evaluate()
            finally:
                for name, tensor in before.items():
                    self.tensors[name][...] = tensor

        return along


def complex_step(along: Along) -> float:
    """Im L(iε) / ε."""
    return float(np.imag(along(1j * EPSILON))) / EPSILON


def richardson(along: Along, size: float = 1.0) -> tuple[float, float]:
    """(∂L/∂t, how far it may be off) at t = 0, from central differences with steps relative to `size`.

    What the last extrapolation changed measures the error of the formula, ε|L|/δ that of the subtraction. A δ that reaches
    over a kink shows as a large error, and a smaller one is tried. (nan, inf) where no difference is finite.
    """
    best = (np.nan, np.inf)
    for delta in np.multiply(STEPS, size):
        values = [(along(step).real, along(-step).real) for step in (delta, delta / 2, delta / 4)]
        with np.errstate(all="ignore"):
            D = [(plus - minus) / (2 * delta / 2**k) for k, (plus, minus) in enumerate(values)]
            once = (4 * D[1] - D[0]) / 3, (4 * D[2] - D[1]) / 3
            twice = (16 * once[1] - once[0]) / 15
            largest = np.max(np.abs(values))
            error = abs(twice - once[1]) + ROUNDING * 8 * largest / delta
        if error < best[1]:
            best = float(twice), float(error)
        if best[1] <= GOOD * abs(best[0]):
            break
    return best


def one_sided(along: Along, here: float, size: float = 1.0) -> tuple[float, float, bool]:
    """(slope to the left, slope to the right, whether that is a kink) at t = 0; `here` is L(0)."""
    delta = ONE_SIDED * size
    left = (3 * here - 4 * along(-delta).real + along(-2 * delta).real) / (2 * delta)
    right = (-3 * here + 4 * along(delta).real - along(2 * delta).real) / (2 * delta)
    rounding = 4 * ROUNDING * abs(here) / delta
    return left, right, bool(abs(right - left) > JUMP * max(abs(left), abs(right)) + rounding)


def between(value: float, left: float, right: float, slack: float) -> bool:
    """Whether a slope lies between the one-sided ones: any such number is a subgradient at a kink."""
    return bool(min(left, right) - slack <= value <= max(left, right) + slack)


def takes_complex(along_complex: Along, along: Along, here: float) -> bool:
    """Whether the complex step can be trusted: along one direction it must agree with the one-sided slopes.

    A function that refuses complex numbers, or drops the imaginary part on the way, does not pass.
    """
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            exact = complex_step(along_complex)
    except (TypeError, ValueError, AttributeError, NotImplementedError, Warning):
        return False
    left, right, _ = one_sided(along, here)
    slack = JUMP * max(abs(left), abs(right), abs(exact)) + 4 * ROUNDING * abs(here) / ONE_SIDED
    return between(exact, left, right, slack)


def move_beside(points: tuple[Point, ...], generator: np.random.Generator) -> None:
    """Move points of the same tensors by the same small noise, away from where several kinks may meet."""
    for name, tensor in points[0].tensors.items():
        noise = BESIDE * generator.uniform(-1, 1, tensor.shape) * size_of(tensor)
        for point in points:
            point.tensors[name] += noise


def random_directions(tensors: Mapping[str, Array], generator: np.random.Generator) -> dict[str, Array]:
    """±1 for every entry: no error of one entry can hide behind a small component."""
    return {name: generator.choice([-1.0, 1.0], np.shape(tensor)) for name, tensor in tensors.items()}


def size_of(value: Any) -> float:
    """The unit in which a number or a tensor is moved: 1, or its size where that is larger."""
    return max(1.0, float(np.max(np.abs(value), initial=0.0)))
