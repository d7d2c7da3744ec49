"""Gradients and derivatives side by side: which entries differ, and by how much.

Small problems are checked entry by entry. Of large ones some entries are drawn, and each tensor is checked along random
directions through all of its entries; a direction that is wrong is halved until the wrong entry is found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from backprop.checks import Array
from backprop.gradients import numeric
from backprop.gradients.numeric import Point
from backprop.gradients.report import Tensor

METHODS = {"complex step": 1e-10, "Richardson differences": 1e-7}  # name -> tolerance
DIRECTIONS = 3  # for each tensor that is not checked whole
UNSURE = 1e-3  # a difference known worse than this share of its tensor's largest entry proves nothing

MakePoint = Callable[[type], Point]


def examine(
    analytic: dict[str, Array],
    make_point: MakePoint,
    here: float,
    most: int,
    generator: np.random.Generator,
    places: Mapping[str, str],
    natural: Mapping[str, float],
) -> tuple[str, tuple[Tensor, ...], bool]:
    """Compare gradients with derivatives; returns the method, the checked entries of each tensor, and if doubts remain.

    A wrong gradient may hide at a kink of L, or where all of it is rounding: then the check is made beside the point, too.

    `natural` is how large L and each gradient are before terms of the loss cancel: their rounding errors are relative to that.
    """
    real, complex_ = make_point(float), make_point(complex)
    directions = numeric.random_directions(real.tensors, generator)
    moves = [{name: direction} for name, direction in directions.items()]  # one by one: small slopes count, too
    with np.errstate(all="ignore"):
        rounding = numeric.ROUNDING * max(abs(here), natural.get("L", 0.0))
        noise = max(rounding, numeric.noise_of(real.line(directions)))
        with numeric.moved_beside((real, complex_), generator):
            near = real.evaluate().real
            exact = noise <= 100 * rounding and all(  # what is not computed in float64 does not take complex128 either
                numeric.takes_complex(complex_.line(move), real.line(move), near, rounding) for move in moves
            )
        if not exact:  # the noise of one tensor may hide in the smooth change of L by the others
            noise = max(noise, *(numeric.noise_of(real.line(move)) for move in moves))
        kinky = numeric.one_sided(real.line(directions), here, noise=noise)[2]
        chosen = _choose({name: a.size for name, a in analytic.items()}, most, generator)
        checking = _Checking(analytic, real, complex_ if exact else None, here, kinky, places, natural, noise)
        tensors = [checking.tensor(name, at, generator) for name, at in chosen.items()]
        if exact and not checking.confirmed(tensors):
            checking.complex = None
            tensors = [checking.tensor(name, at, generator) for name, at in chosen.items()]
    doubtful = kinky or checking.excused
    return ("Richardson differences" if checking.complex is None else "complex step"), tuple(tensors), doubtful


class _Checking:
    """Derivatives of single entries and along directions, by one method, and their errors."""

    def __init__(
        self,
        analytic: dict[str, Array],
        real: Point,
        complex_: Point | None,
        here: float,
        kinky: bool,
        places: Mapping[str, str],
        natural: Mapping[str, float],
        noise: float,
    ) -> None:
        self.analytic, self.real, self.complex, self.here, self.kinky = analytic, real, complex_, here, kinky
        self.places, self.natural, self.noise = places, natural, noise
        self.excused = False  # whether an error was taken for rounding
        self.scale = max(float(np.max(np.abs(a), initial=0, where=np.isfinite(a))) for a in analytic.values())

    @property
    def tolerance(self) -> float:
        return METHODS["Richardson differences" if self.complex is None else "complex step"]

    def tensor(self, name: str, at: Array, generator: np.random.Generator) -> Tensor:
        """The entries `at` of a tensor, and directions through the others."""
        a, direction = self.analytic[name], 0.0
        n, unsure = self.derivatives(name, at)
        if len(at) < a.size:
            largest = self._largest(a.reshape(-1)[at], n)
            direction, wrong = self._directions(name, largest, generator)
            if wrong is not None and wrong not in at:
                at = np.append(at, wrong)
                n, unsure = self.derivatives(name, at)
        found = a.reshape(-1)[at]
        errors = self._errors(name, found, n, unsure)
        kinks = np.zeros(len(at), bool)
        for k in np.flatnonzero(np.full(len(at), self.kinky) | ~(errors <= self.tolerance)):
            kinks[k], right = self._kink(name, at[k], found[k])
            errors[k] = 0.0 if kinks[k] and right else errors[k]
        return Tensor(name, self.places.get(name, ""), a.shape, at, found, n, errors, kinks, direction)

    def derivatives(self, name: str, at: Array) -> tuple[Array, Array]:
        """(derivatives, how far they may be off) by single entries."""
        n, unsure = np.empty(len(at)), np.zeros(len(at))
        for k, place in enumerate(at):
            n[k], unsure[k] = self._derivative(name, numeric.index_of(place, self.analytic[name].shape))
        return n, unsure

    def _derivative(self, name: str, index: tuple[int, ...]) -> tuple[float, float]:
        if self.complex is not None:
            return numeric.complex_step(self.complex.entry(name, index)), 0.0
        size = numeric.size_of(self.real.tensors[name][index])
        return numeric.richardson(self.real.entry(name, index), size, self.noise)

    def _largest(self, found: Array, n: Array) -> float:
        """What errors of a tensor are measured by: its largest entry.

        A tensor whose gradient is 0 but for rounding, such as a bias in front of BatchNorm, is measured against the others.
        """
        finite = [float(np.max(np.abs(v), initial=0, where=np.isfinite(v))) for v in (found, n)]
        return max(*finite, 1e-3 * self.scale, 1e-300)

    def _errors(self, name: str, found: Array, n: Array, unsure: Array) -> Array:
        """Differences relative to the largest entry; what may be rounding, or the method's own error, is within the tolerance.

        A derivative that is hardly known is an error itself: it proves nothing.
        """
        largest, difference = self._largest(found, n), np.abs(found - n)
        hardly_known = (unsure > UNSURE * largest) & ((found != 0) | (n != 0))  # both 0: L does not depend on it
        errors = np.where(hardly_known, np.maximum(difference, unsure), difference) / largest
        excusable = ~hardly_known & (difference <= 2 * unsure + self._rounding(name))
        self.excused |= bool((excusable & (difference > 2 * unsure) & (errors > self.tolerance)).any())
        errors = np.where(excusable, np.minimum(errors, self.tolerance), errors)
        return np.where(np.isfinite(found) & np.isfinite(n), errors, np.inf)

    def _rounding(self, name: str) -> float:
        """Differences as small as this say nothing."""
        return 8 * numeric.ROUNDING * self.natural.get(name, 0.0)

    def _directions(self, name: str, largest: float, generator: np.random.Generator) -> tuple[float, int | None]:
        """(largest error along random directions, an entry that is wrong if one is)."""
        a, worst = self.analytic[name], 0.0
        if not np.isfinite(a).all():
            return math.inf, int(np.flatnonzero(~np.isfinite(a))[0])
        for _ in range(DIRECTIONS):
            signs = numeric.random_direction((a.size,), generator)
            off = self._off(name, signs, slice(None)) / largest
            if off > self.tolerance and not self._across_a_kink(name, signs):
                return off, self._halved(name, signs)
            worst = max(worst, off if off <= self.tolerance else 0.0)
        return worst, None

    def _across_a_kink(self, name: str, signs: Array) -> bool:
        """Whether L has a kink along a direction, and `backward` gives a slope between the two sides."""
        moves = {name: signs.reshape(self.analytic[name].shape)}
        left, right, kink = numeric.one_sided(self.real.line(moves), self.here, noise=self.noise)
        expected = float(np.sum(self.analytic[name] * moves[name]))
        return kink and numeric.between(expected, left, right, numeric.JUMP * max(abs(left), abs(right)))

    def _off(self, name: str, signs: Array, part: slice) -> float:
        """|difference| of the derivatives along the given part of a direction."""
        direction = np.zeros(signs.size)
        direction[part] = signs[part]
        a = self.analytic[name]
        moves = {name: direction.reshape(a.shape)}
        expected = float(np.sum(a * moves[name]))
        if self.complex is not None:
            off = abs(numeric.complex_step(self.complex.line(moves)) - expected)
            return max(off - self._rounding(name) * math.sqrt(a.size), 0.0)
        found, unsure = numeric.richardson(self.real.line(moves), numeric.size_of(self.real.tensors[name]), self.noise)
        return max(abs(found - expected) - 2 * unsure, 0.0)

    def _halved(self, name: str, signs: Array) -> int:
        """Halve a wrong direction until one entry is left: the half with the larger error has a wrong one."""
        start, end = 0, signs.size
        while end - start > 1:
            middle = (start + end) // 2
            halves = slice(start, middle), slice(middle, end)
            first, second = (self._off(name, signs, half) for half in halves)
            start, end = (start, middle) if first >= second else (middle, end)
        return start

    def _kink(self, name: str, at: int, found: float) -> tuple[bool, bool]:
        """(whether L has a kink at this entry, whether `found` is a subgradient there)."""
        index = numeric.index_of(at, self.analytic[name].shape)
        size = numeric.size_of(self.real.tensors[name][index])
        left, right, kink = numeric.one_sided(self.real.entry(name, index), self.here, size, self.noise)
        slack = 2 * numeric.JUMP * max(abs(left), abs(right))
        return kink, kink and numeric.between(found, left, right, slack)

    def confirmed(self, tensors: list[Tensor]) -> bool:
        """Whether differences agree with the complex step where `backward` does not: else forward is not analytic there."""
        for tensor in tensors:
            wrong = ~(tensor.errors <= self.tolerance) & np.isfinite(tensor.numeric)
            if wrong.any():
                k = int(np.flatnonzero(wrong)[np.argmax(tensor.errors[wrong])])
                index = numeric.index_of(tensor.at[k], tensor.shape)
                size = numeric.size_of(self.real.tensors[tensor.name][index])
                near, unsure = numeric.richardson(self.real.entry(tensor.name, index), size, self.noise)
                if abs(near - tensor.numeric[k]) > 10 * unsure + numeric.GOOD * self._largest(
                    tensor.analytic, tensor.numeric
                ):
                    return False
        return True


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
