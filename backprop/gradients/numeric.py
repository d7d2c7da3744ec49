"""Derivatives of a number L from values of L alone.

    complex step              ∂L/∂x = Im L(x + iε) / ε                        exact to rounding: nothing is subtracted
    Richardson differences    D(δ) = (L(x + δ) − L(x − δ)) / 2δ               D is off by c₂δ² + c₄δ⁴ + …, and two halvings
                              (64 D(δ/4) − 20 D(δ/2) + D(δ)) / 45             of δ cancel the first two terms
    one-sided slopes          ±(−3 L(x) + 4 L(x ± δ) − L(x ± 2δ)) / 2δ        which differ at a kink and nowhere else

Sources: Squire and Trapp (1998), "Using complex variables to estimate derivatives of real functions", SIAM Review 40;
Richardson (1911), Philosophical Transactions A 210; Ridders (1982), Advances in Engineering Software 4, for choosing δ.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from backprop.checks import Array

EPSILON = 1e-30  # so small that ε² vanishes beside every number there is
STEPS = tuple(10.0**-k for k in range(1, 13))  # δ, largest first, until one is accurate
QUICK = 1e-9  # relative agreement of a complex step with two differences at which no more are tried
GOOD = 1e-9  # relative accuracy at which no smaller δ is tried
ONE_SIDED = (1e-6, 1e-8, 1e-10)  # δ of the one-sided slopes
ROUNDING = 4 * float(np.finfo(float).eps)  # of a difference of two values, for each unit of L
BESIDE = 1e-4  # how far from the point the code is tried with complex numbers, relative to the size of each tensor
SOME = 1e-3  # relative accuracy of what is at least known to be a slope
JUMP = 1e-5  # relative difference of the one-sided slopes from which on it is a kink

Along = Callable[[complex], complex]  # L at x + t·direction, as a function of t


@dataclass
class Point:
    """Named arrays, and a function of no arguments that computes L from whatever they hold just now."""

    tensors: dict[str, Array]
    evaluate: Callable[[], complex]

    def along(self, *moves: tuple[str, Any, Any]) -> Along:
        """L as a function of t, `tensor[at]` moving by t · direction for each (name, at, direction)."""

        def along(t: complex) -> complex:
            before = [self.tensors[name][at].copy() for name, at, _ in moves]
            for name, at, direction in moves:
                self.tensors[name][at] += t * direction
            try:
                return self.evaluate()
            finally:
                for (name, at, _), values in zip(moves, before, strict=True):
                    self.tensors[name][at] = values

        return along


def complex_step(along: Along) -> float:
    """Im L(iε) / ε."""
    return float(np.imag(along(1j * EPSILON))) / EPSILON


def richardson(along: Along, size: float = 1.0, noise: float = 0.0) -> tuple[float, float]:
    """(∂L/∂t, how far it may be off) at t = 0, from central differences with steps relative to `size`.

    What the last extrapolation changed measures the error of the formula; the subtraction makes one of noise/δ, where `noise`
    is how far L may be off. A δ that reaches over a kink shows as a large error, and a smaller one is tried. (nan, inf) where
    no difference is finite.
    """
    best, here = (np.nan, np.inf), along(0.0).real
    for delta in np.multiply(STEPS if noise else STEPS[1:], size):
        halved = delta / np.array([1, 2, 4])
        plus, minus = (np.array([along(sign * step).real for step in halved]) for sign in (1, -1))
        if np.array_equal(plus, minus) and best[1] <= SOME * abs(best[0]):
            break  # not a slope of 0, but a step too small for code in float32
        with np.errstate(all="ignore"):
            D, bend = (plus - minus) / (2 * halved), (plus - 2 * here + minus) / halved
            once = (4 * D[1:] - D[:-1]) / 3
            twice = (16 * once[1] - once[0]) / 15
            # A bend grows with δ, that of a kink does not: two kinks, one to each side, show nowhere else.
            kinked = np.abs(bend[0] - 10 * bend[1] + 16 * bend[2])
            # The larger of two changes: where the second derivative jumps, the last one alone is 14 times too small.
            error = max(abs(twice - once[1]), abs(once[1] - once[0]), kinked)
            error += 4 * max(noise, ROUNDING * np.max(np.abs([plus, minus]))) / delta
        if error < best[1]:
            best = float(twice), float(error)
        if best[1] <= GOOD * abs(best[0]):
            break
    return best


def one_sided(along: Along, here: float, size: float = 1.0, noise: float = 0.0) -> tuple[float, float, bool]:
    """(slope to the left, slope to the right, whether that is a kink) at t = 0; `here` is L(0), off by `noise` at most."""
    before, wide, looks = np.inf, (np.nan, np.nan), 0
    coarse = max(1.0, math.sqrt(noise / (ROUNDING * max(abs(here), 1.0))))  # code in float32 sees no smaller steps
    for delta in np.multiply(ONE_SIDED, size * coarse):
        values = [along(k * delta).real for k in (-2, -1, 1, 2)]
        left = (3 * here - 4 * values[1] + values[0]) / (2 * delta)
        right = (-3 * here + 4 * values[2] - values[3]) / (2 * delta)
        rounding = 8 * max(noise, ROUNDING * float(np.max(np.abs([here, *values])))) / delta
        jump = abs(right - left)
        if not np.isfinite(jump):  # L is not defined so far away
            continue
        if jump <= JUMP * max(abs(left), abs(right)) + rounding:
            return left, right, False
        if rounding > 0.1 * before:  # a jump of that size could not be told from rounding any more
            break
        if jump > 0.5 * before:  # that of a kink stays as δ shrinks, that of a curve goes
            return *wide, True
        before, wide, looks = jump, (left, right), looks + 1
    return *wide, looks == 1


def between(value: float, left: float, right: float, slack: float) -> bool:
    """Whether a slope lies between the one-sided ones: any such number is a subgradient at a kink."""
    return bool(min(left, right) - slack <= value <= max(left, right) + slack)


def takes_complex(along_complex: Along, along: Along, here: float, noise: float = 0.0) -> bool:
    """Whether the complex step can be trusted: along one direction it must agree with differences, or with one-sided slopes.

    A function that refuses complex numbers does not pass, nor one that drops the imaginary part of some term on the way.
    """
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            exact = complex_step(along_complex)
    except Exception:  # whatever the code says to complex numbers: real ones it has taken
        return False
    if abs(exact - _quick(along)) <= QUICK * abs(exact):
        return True
    found, unsure = richardson(along, noise=noise)
    if unsure <= max(JUMP * abs(exact), SOME * abs(found)):
        return abs(exact - found) <= 10 * unsure + GOOD * abs(exact)
    left, right, _ = one_sided(along, here)  # a kink may lie in between
    slack = JUMP * max(abs(left), abs(right), abs(exact)) + 4 * max(noise, ROUNDING * abs(here)) / ONE_SIDED[0]
    return between(exact, left, right, slack)


def _quick(along: Along, delta: float = 1e-3) -> float:
    """One extrapolation of two central differences: ten digits of a smooth function for four values."""
    wide, narrow = ((along(step).real - along(-step).real) / (2 * step) for step in (delta, delta / 2))
    return (4 * narrow - wide) / 3


def beside(make_point: Callable[[type], Point], generator: np.random.Generator) -> tuple[Point, Point]:
    """A real and a complex point, moved by the same small noise, away from where several kinks may meet."""
    real, complex_ = make_point(float), make_point(complex)
    for name, tensor in real.tensors.items():
        noise = BESIDE * generator.uniform(-1, 1, tensor.shape) * sizes(tensor)
        tensor += noise
        complex_.tensors[name] += noise
    return real, complex_


def noise_of(along: Along, *, thorough: bool = False) -> float:
    """How far L may be off, from its fourth differences at tiny steps: of a smooth L nothing but noise is left in them.

    Far more than the last place of L where some of the code computes in float32. That may show at larger steps only, `thorough`
    looks there: noise stays as steps grow, what is left of a curve or a kink grows with them.
    Source: Moré and Wild (2011), "Estimating computational noise", SIAM Journal on Scientific Computing 33.
    """
    found: list[float] = []
    for step in (1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5):
        values = [along(step * k).real for k in range(7)]
        if len(set(values)) > 1:  # else the steps are too small for the code to notice
            found.append(0.12 * float(np.sqrt(np.mean(np.diff(values, 4) ** 2))))  # 0.12 = 4! / √8!
        if not thorough and found and (found[-1] <= ROUNDING * max(map(abs, values)) or step > 1e-7):
            break
    stays = [less for less, more in pairwise(found) if thorough and more <= 5 * less]
    known = [noise for noise in [min(found, default=0.0), *stays] if np.isfinite(noise)]
    return max(known, default=0.0)


def random_direction(shape: tuple[int, ...], seed: int | np.random.Generator) -> Array:
    """Between ½ and 1½ of either sign: no error hides behind a small component, and no two errors cancel."""
    generator = np.random.default_rng(seed)
    return generator.uniform(0.5, 1.5, shape) * generator.choice([-1.0, 1.0], shape)


def sizes(tensor: Array) -> Array:
    """How far each entry may be moved at most: by itself, so that it keeps its sign, and not by more than 1."""
    return np.where(tensor == 0, 1.0, np.minimum(np.abs(tensor), 1.0))


def largest(array: Any) -> float:
    """The largest number there is, whatever its sign, of those that are finite; 0 if there are none."""
    return float(np.max(np.abs(array), initial=0.0, where=np.isfinite(array)))


def index_of(at: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The index of an entry that stands at this place of the flattened tensor; () in a single number.

    >>> index_of(4, (2, 3)), index_of(0, ())
    ((1, 1), ())
    """
    return tuple(map(int, np.unravel_index(at, shape)))
