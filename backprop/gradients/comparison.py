"""Gradients and derivatives side by side: which entries differ, and by how much.

Small problems are checked entry by entry. Of large ones some entries are drawn, and each tensor is checked along random
directions through all of its entries; a direction that is wrong is halved until the wrong entry is found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.random import Generator

from backprop import checks
from backprop.around.nesting import reseed
from backprop.checks import Array
from backprop.gradients import experiments, numeric
from backprop.gradients.numeric import Point, index_of, largest
from backprop.gradients.problem import Problem
from backprop.gradients.report import GradientReport, Tensor
from backprop.layers import Gradients

EXACT, DIFFERENCES = "complex step", "Richardson differences"
TOLERANCE = {EXACT: 1e-10, DIFFERENCES: 1e-7}
DIRECTIONS = 3  # for each tensor that is not checked whole
UNSURE = 1e-3  # a difference known worse than this share of its tensor's largest entry proves nothing …
TINY = 1e-6  # numbers for whose neighborhood a step of the size of 1 says nothing
NOISY = 0.1  # … and of code that computes in float32, of which hardly anything is known better
MOST_ENTRIES = 5000  # checked one by one if `max_entries` is not given …
WORK = 2e9  # … and fewer where that would take more multiplications than this, a few seconds

MakePoint = Callable[[type], Point]


def measure(problem: Problem, max_entries: int | None = None, seed: int = 0) -> tuple[GradientReport, bool]:
    """The check itself: the report, and whether a look beside this point is needed to be sure."""
    L = experiments.repeatable(problem)
    analytic, mistakes = experiments.analytic(problem)
    if max_entries is None:
        max_entries = max(500, min(MOST_ENTRIES, int(WORK / (problem.net.size * problem.n + 1))))
    generator = checks.generator(problem.who, seed)
    most = checks.integer(problem.who, "max_entries", max_entries)

    def point(dtype: type) -> Point:
        fresh = problem.fresh()
        net = fresh.net
        h: Array = problem.h.astype(dtype)
        net.bind(np.empty(net.size, dtype))

        def evaluate() -> complex:
            reseed(net, 0)
            try:
                return fresh.loss.forward(net.forward(h.copy()), problem.y, problem.w)
            except ValueError:  # beside the point L need not be defined
                return math.nan

        return Point({**net.parameters, problem.inputs: h.T}, evaluate)

    with np.errstate(all="ignore"):
        comparison = Comparison(analytic, point, L, generator, experiments.natural_sizes(problem))
        places = {name: experiments.place(problem.net, name) for name in problem.net.parameters}
        report = comparison.report(most, places, tuple(mistakes))
        return report, comparison.doubtful or report.kinks > 0


class Comparison:
    """Gradients, and the derivatives of single entries and along directions, by one method and then, if need be, another.

    `natural` is how large L and each gradient are before terms of the loss cancel: their rounding errors are relative to that.
    """

    def __init__(
        self, analytic: Gradients, make_point: MakePoint, here: float, generator: Generator, natural: dict[str, float]
    ) -> None:
        self.analytic, self.here, self.natural, self.generator = analytic, here, natural, generator
        self.real, self.complex = make_point(float), make_point(complex)
        self.excused = False  # whether an error was taken for rounding
        self.scale = max(map(largest, analytic.values()))
        tensors = self.real.tensors.items()
        moves = [(name, ..., numeric.sizes(x) * numeric.random_direction(x.shape, generator)) for name, x in tensors]
        together = self.real.along(*moves)
        rounding = numeric.ROUNDING * max(abs(here), natural.get("L", 0.0))
        self.noise = max(rounding, numeric.noise_of(together))
        real, complex_ = numeric.beside(make_point, generator)
        near = real.evaluate().real
        exact = self.noise <= 100 * rounding and all(  # what is not in float64 does not take complex128 either
            # one by one: small slopes count, too
            numeric.takes_complex(complex_.along(move), real.along(move), near, rounding)
            for move in moves
        )
        left, right, self.kinky = numeric.one_sided(together, here, noise=self.noise)
        if exact and not self.kinky:  # kinks that cancel: forward and backward may choose the same wrong side
            step = numeric.complex_step(self.complex.along(*moves))
            slack = numeric.JUMP * max(abs(left), abs(right), abs(step)) + 4 * self.noise / numeric.ONE_SIDED[0]
            exact = not math.isfinite(left + right) or numeric.between(step, left, right, slack)
        if not exact:  # the noise of one tensor may hide in the smooth change of L by the others
            self.noise = max(self.noise, *(numeric.noise_of(self.real.along(move), thorough=True) for move in moves))
        self.method = EXACT if exact else DIFFERENCES

    @property
    def tolerance(self) -> float:
        """The largest error that passes."""
        return TOLERANCE[self.method]

    @property
    def doubtful(self) -> bool:
        """A wrong gradient may hide at a kink of L, or where all of it is rounding: the check is made beside, too."""
        return self.kinky or self.excused

    def report(self, most: int, places: Mapping[str, str], mistakes: tuple[str, ...] = ()) -> GradientReport:
        """All entries compared, or `most` of them."""
        chosen = _choose({name: a.size for name, a in self.analytic.items()}, most, self.generator)

        def tensors() -> list[Tensor]:
            return [self.tensor(name, at, places.get(name, "")) for name, at in chosen.items()]

        found = tensors()
        if self.method == EXACT and not self.confirmed(found):
            self.method = DIFFERENCES
            found = tensors()
        return GradientReport(self.method, self.tolerance, tuple(found), mistakes)

    def tensor(self, name: str, at: Array, place: str) -> Tensor:
        """The entries `at` of a tensor, and directions through the others."""
        a, direction = self.analytic[name], 0.0
        n, unsure = self.derivatives(name, at)
        if len(at) < a.size:
            direction, wrong = self._directions(name, self._largest(a.reshape(-1)[at], n))
            if wrong is not None and wrong not in at:
                at = np.append(at, wrong)
                n, unsure = self.derivatives(name, at)
        found = a.reshape(-1)[at]
        errors = self._errors(name, found, n, unsure)
        kinks = np.zeros(len(at), bool)
        for k in np.flatnonzero(np.full(len(at), self.kinky) | ~(errors <= self.tolerance)):
            index = index_of(at[k], a.shape)
            kinks[k], right = self._kink(name, index, found[k], slack=2)
            errors[k] = 0.0 if kinks[k] and right else errors[k]
        return Tensor(name, place, a.shape, at, found, n, errors, kinks, direction)

    def derivatives(self, name: str, at: Array) -> tuple[Array, Array]:
        """(derivatives, how far they may be off) by single entries."""
        known = [self.derivative(name, index_of(place, self.analytic[name].shape)) for place in at]
        n, unsure = np.array(known).reshape(-1, 2).T
        return n, unsure

    def derivative(self, name: str, at: Any, direction: Any = 1.0) -> tuple[float, float]:
        """(∂L/∂t, how far it may be off) as `at` of a tensor moves by t · direction."""
        if self.method == EXACT:
            return numeric.complex_step(self.complex.along((name, at, direction))), 0.0
        return self.difference(name, at, direction)

    def difference(self, name: str, at: Any, direction: Any = 1.0) -> tuple[float, float]:
        """The same from differences, whatever the method."""
        along, found = self.real.along((name, at, direction)), (math.nan, math.inf)
        for size in self._sizes(name, at):
            if not found[1] <= numeric.SOME * abs(found[0]):
                found = min(found, numeric.richardson(along, size, self.noise), key=lambda known: known[1])
        return found

    def _sizes(self, name: str, at: Any) -> tuple[float, ...]:
        """Units in which an entry or a tensor is moved: 1, or its size where that is larger; then its size where it is tiny."""
        size = largest(self.real.tensors[name][at])
        return (max(1.0, size), size) if 0 < size < TINY else (max(1.0, size),)

    def _kink(self, name: str, at: Any, slope: float, direction: Any = 1.0, *, slack: int = 1) -> tuple[bool, bool]:
        """(whether L has a kink here, whether the slope is one of a subgradient there)."""
        along = self.real.along((name, at, direction))
        for size in self._sizes(name, at):
            left, right, kink = numeric.one_sided(along, self.here, size, self.noise)
            if not kink:
                break
        return kink, numeric.between(slope, left, right, slack * numeric.JUMP * max(abs(left), abs(right)))

    def _largest(self, found: Array, n: Array) -> float:
        """What errors of a tensor are measured by: its largest entry.

        A tensor whose gradient is 0 but for rounding, such as a bias in front of BatchNorm, is measured against the others.
        """
        return max(largest(found), largest(n), 1e-3 * self.scale, 1e-300)

    def _errors(self, name: str, found: Array, n: Array, unsure: Array) -> Array:
        """Differences relative to the largest entry; what may be rounding, or the method's own error, is within the tolerance.

        A derivative that is hardly known is an error itself: it proves nothing.
        """
        unit, difference = self._largest(found, n), np.abs(found - n)
        rounding = numeric.ROUNDING * max(abs(self.here), self.natural.get("L", 0.0))
        enough = NOISY if self.noise > 1e4 * rounding else UNSURE
        vague = (unsure > enough * unit) & ((found != 0) | (n != 0))  # both 0: L does not depend on it
        hardly_known = vague & (unsure > numeric.GOOD * self.natural.get(name, 0.0))  # else what cancels is known well
        errors = np.where(hardly_known, np.maximum(difference, unsure), difference) / unit
        excusable = ~hardly_known & (difference <= 2 * unsure + self._rounding(name))
        self.excused |= bool((excusable & (vague | (difference > 2 * unsure)) & (errors > self.tolerance)).any())
        errors = np.where(excusable, np.minimum(errors, self.tolerance), errors)
        return np.where(np.isfinite(found) & np.isfinite(n), errors, np.inf)

    def _rounding(self, name: str) -> float:
        """Differences as small as this say nothing."""
        return 8 * numeric.ROUNDING * self.natural.get(name, 0.0)

    def _directions(self, name: str, unit: float) -> tuple[float, int | None]:
        """(largest error along random directions, an entry that is wrong if one is)."""
        a, worst = self.analytic[name], 0.0
        if not np.isfinite(a).all():
            return math.inf, int(np.flatnonzero(~np.isfinite(a))[0])
        for _ in range(DIRECTIONS):
            signs = numeric.random_direction((a.size,), self.generator)
            off = self._off(name, signs, slice(None)) / unit
            direction = signs.reshape(a.shape)
            if off > self.tolerance and not all(self._kink(name, ..., float(np.sum(a * direction)), direction)):
                return off, self._halved(name, signs)
            worst = max(worst, off if off <= self.tolerance else 0.0)
        return worst, None

    def _off(self, name: str, signs: Array, part: slice) -> float:
        """|difference| of the derivatives along the given part of a direction, beyond what may be rounding."""
        a = self.analytic[name]
        direction = np.zeros(a.shape)
        direction.reshape(-1)[part] = signs[part]
        found, unsure = self.derivative(name, ..., direction)
        excused = self._rounding(name) * math.sqrt(a.size) if self.method == EXACT else 2 * unsure
        return max(abs(found - float(np.sum(a * direction))) - excused, 0.0)

    def _halved(self, name: str, signs: Array) -> int:
        """Halve a wrong direction until one entry is left: the half with the larger error has a wrong one."""
        start, end = 0, signs.size
        while end - start > 1:
            middle = (start + end) // 2
            halves = slice(start, middle), slice(middle, end)
            first, second = (self._off(name, signs, half) for half in halves)
            start, end = (start, middle) if first >= second else (middle, end)
        return start

    def confirmed(self, tensors: list[Tensor]) -> bool:
        """Whether differences agree with the complex step where `backward` does not: else forward is not analytic there."""
        for tensor in tensors:
            wrong = ~(tensor.errors <= self.tolerance) & np.isfinite(tensor.numeric)
            if wrong.any():
                k = int(np.flatnonzero(wrong)[np.argmax(tensor.errors[wrong])])
                near, unsure = self.difference(tensor.name, index_of(tensor.at[k], tensor.shape))
                slack = 10 * unsure + numeric.GOOD * self._largest(tensor.analytic, tensor.numeric)
                if abs(near - tensor.numeric[k]) > slack:
                    return False
        return True


def _choose(sizes: dict[str, int], most: int, generator: Generator) -> dict[str, Array]:
    """Entries to check: all, or an even share of each tensor drawn at random."""
    left, chosen = most, {}
    if sum(sizes.values()) <= most:
        return {name: np.arange(size) for name, size in sizes.items()}
    for rank, (name, size) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        share = min(size, max(1, left // (len(sizes) - rank)))
        chosen[name] = np.sort(generator.choice(size, share, replace=False))
        left -= share
    return {name: chosen[name] for name in sizes}
