"""Gradient check: what `backward` returns against derivatives found from `forward` alone.

Everything runs in float64 on copies, so nothing of the caller's is changed. Where the code takes complex numbers the judge is
the complex step, exact to rounding; else Richardson-extrapolated central differences (see `numeric`). Small problems are checked
entry by entry. Of large ones some entries are drawn, and each tensor is checked along random directions through all
of its entries; a direction that is wrong is halved until the wrong entry is found.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.gradients import diagnosis, experiments, numeric
from backprop.gradients.numeric import Point
from backprop.gradients.problem import Problem, Projection
from backprop.gradients.report import GradientReport, Tensor
from backprop.layers import Identity, Layer
from backprop.losses import Loss

METHODS = {"complex step": 1e-10, "Richardson differences": 1e-7}  # name -> tolerance
MOST_ENTRIES = 5000  # checked one by one if `max_entries` is not given …
WORK = 2e9  # … and fewer where that would take more multiplications than this, a few seconds
DIRECTIONS = 3  # for each tensor that is not checked whole
UNSURE = 1e-3  # a difference known worse than this share of its tensor's largest entry proves nothing

MakePoint = Callable[[type], Point]


def check_gradients(
    net: Layer | Loss | None,
    loss: Any = None,
    X: Any = None,
    y: Any = None,
    sample_weight: Any = None,
    *,
    max_entries: int | None = None,
    seed: int = 0,
) -> GradientReport:
    """Compare every gradient, by parameters and by X, with derivatives of the loss; say what is likely wrong.

        check_gradients(net, loss, X, y)     a network or a layer and its loss
        check_gradients(layer, X)            a layer alone, under L = Σ c ⊙ f with random c
        check_gradients(loss, F, y)          a loss alone, at outputs F (N, K)

    Rows X (N, D), targets y (N,) or (N, K); a few examples are enough. Where there are more than `max_entries` entries (default
    5,000, fewer for large networks), that many are drawn, and random directions cover the rest. Entries at which the loss has a
    kink pass if `backward` gives a subgradient. Randomness is drawn again from the same seed in each pass. Raises TypeError
    or ValueError for data that does not fit, RuntimeError for a forward pass that cannot be repeated.

    >>> import numpy as np, backprop as bp
    >>> net = bp.Sequential(bp.Linear(3, 4), bp.Tanh(), bp.Linear(4, 2), seed=0)
    >>> report = check_gradients(net, bp.CrossEntropy(), np.eye(3), np.array([0, 1, 0]))
    >>> report.passed, report.method
    (True, 'complex step')
    """
    who = "check_gradients"
    if isinstance(net, Loss):  # a loss alone: its outputs are the inputs of a network that does nothing
        # In this order, whether by position or by name.
        given = [value for value in (loss, X, y, sample_weight) if value is not None]
        net, loss, (X, y, sample_weight) = None, net, (*given, None, None, None)[:3]
    elif not isinstance(loss, Loss) and X is None and loss is not None:  # a layer alone
        loss, X = None, loss
    if net is None or loss is not None:
        checks.instance(who, "loss", loss, Loss)
    problem = Problem(
        who,
        Identity() if net is None else net,
        Projection() if loss is None else loss,
        X,
        y,
        sample_weight,
        dtype=np.float64,
    )
    return check_problem(problem, max_entries, seed, "f" if net is None else "X")


def check_problem(problem: Problem, max_entries: int | None, seed: int, inputs: str) -> GradientReport:
    """The check and, if it fails, its explanation; `inputs` is what X is called in the report."""
    try:
        report, doubtful = _measure(problem, max_entries, seed, inputs)
    except ValueError:
        experiments.every_layer_fits(problem)  # raises in the name of the layer to blame, not of the one that noticed
        raise
    if doubtful:  # a wrong slope may hide between the slopes to both sides of a kink, or in rounding errors
        moved = problem.beside(checks.generator(problem.who, seed))
        with np.errstate(all="ignore"):
            there = math.isfinite(moved.fresh().value().real)  # not if the data lies at the border of a layer's domain
        beside = _measure(moved, max_entries, seed, inputs)[0] if there else None
        if beside is not None and not beside.passed:
            return diagnosis.explained(beside, moved, measure)
        if beside is not None and not report.passed and not report.mistakes and not diagnosis.blames(problem, measure):
            return dataclasses.replace(report, tensors=tuple(_forgiven(t, report.tolerance) for t in report.tensors))
    return report if report.passed else diagnosis.explained(report, problem, measure)


def _forgiven(tensor: Tensor, tolerance: float) -> Tensor:
    """Where several kinks meet, a slope between the two sides of each need not give one between the two sides of L."""
    several = ~(tensor.errors <= tolerance)
    errors, kinks = np.where(several, 0.0, tensor.errors), tensor.kinks | several
    return dataclasses.replace(tensor, errors=errors, kinks=kinks, direction=min(tensor.direction, tolerance))


def measure(problem: Problem, max_entries: int | None = None, seed: int = 0, inputs: str = "X") -> GradientReport:
    """The check itself."""
    return _measure(problem, max_entries, seed, inputs)[0]


def _measure(problem: Problem, max_entries: int | None, seed: int, inputs: str) -> tuple[GradientReport, bool]:
    """The report, and whether a look beside this point is needed to be sure."""
    L = experiments.repeatable(problem)
    analytic, mistakes = experiments.analytic(problem, inputs)
    if max_entries is None:
        max_entries = max(500, min(MOST_ENTRIES, int(WORK / (problem.net.size * problem.n + 1))))
    generator = checks.generator(problem.who, seed)
    most = checks.integer(problem.who, "max_entries", max_entries)
    places = {name: experiments.place(problem.net, name) for name in problem.net.parameters}

    def point(dtype: type) -> Point:
        fresh = problem.fresh()
        net = fresh.net
        h: Array = problem.h.astype(dtype)
        net.bind(net.phi.astype(dtype))

        def evaluate() -> complex:
            net.reseed(0)
            return fresh.loss.forward(net.forward(h.copy()), problem.y, problem.w)

        return Point({**net.parameters, inputs: h.T}, evaluate)

    with np.errstate(all="ignore"):
        natural = experiments.natural_sizes(problem, inputs)
    method, tensors, doubtful = examine(analytic, point, L, most, generator, places, natural)
    return GradientReport(method, METHODS[method], tensors, tuple(mistakes)), doubtful


def check_function(
    f: Callable[..., Any],
    gradient: Callable[..., Any] | bool,
    x: Any,
    *,
    sizes: Mapping[str, int] | None = None,
    max_entries: int | None = None,
    seed: int = 0,
) -> GradientReport:
    """Compare anybody's gradient with derivatives of anybody's function, such as an objective for `scipy.optimize`.

    `f(x)` returns a number for a float64 array x of any shape, `gradient(x)` an array like x. `gradient=True` is for an f that
    returns the pair (value, gradient), as SciPy's `jac=True`. `sizes` names whole numbers that a wrong factor might come
    from, for example {"examples": 100, "outputs": 5}. Raises TypeError for an x that is not of real floating point numbers,
    ValueError for a value that is no finite number or a gradient of another shape, RuntimeError for an f that is random.

    >>> import numpy as np
    >>> report = check_function(lambda x: (x**2).sum(), lambda x: x, np.array([1.0, -2.0, 3.0]))
    >>> print(str(report).splitlines()[-1])
    Likely mistake: ∂f/∂x is 0.5 times what it should be, a factor 2 is missing.
    """
    who = "check_function"
    x = _floats(who, x)
    pair = gradient is True
    if not callable(f) or not (pair or callable(gradient)):
        raise TypeError(checks.message(who, "functions f and gradient, or gradient=True", f"{f!r} and {gradient!r}"))

    def value(at: Array) -> complex:
        result = f(at.copy())
        return _number(who, _pair(who, result)[0] if pair else result)

    L = value(x).real
    if not math.isfinite(L) or np.iscomplexobj(value(x)):
        raise ValueError(checks.message(who, "a finite real number f(x)", repr(value(x))))
    if value(x) != L:
        raise RuntimeError(
            checks.message(who, "the same f(x) twice", "two different numbers", "Fix its random numbers.")
        )

    def slope(at: Array) -> Any:
        return _pair(who, f(at.copy()))[1] if pair else gradient(at.copy())  # type: ignore[operator]

    slope(x * (1 - numeric.BESIDE))  # what is remembered from another x must not matter
    g = _gradient(who, slope(x), x)

    def point(dtype: type) -> Point:
        moved = x.astype(dtype)
        return Point({"x": moved}, lambda: value(moved))

    most = checks.integer(who, "max_entries", MOST_ENTRIES if max_entries is None else max_entries)
    method, tensors, _ = examine({"x": g}, point, L, most, checks.generator(who, seed), {}, {})
    report = GradientReport(method, METHODS[method], tensors)
    return report if report.passed else diagnosis.explained_function(report, x, g, dict(sizes or {}))


def _floats(who: str, x: Any) -> Array:
    array = np.asarray(x)
    if array.dtype.kind != "f" or isinstance(x, np.ma.MaskedArray) or not array.size:
        advice = "Pass x.astype(float)." if array.dtype.kind in "iub" else ""
        got = f"an array of {array.dtype}, shape {array.shape}"
        raise TypeError(checks.message(who, "x of real floating point numbers", got, advice))
    checks.finite(who, "x", np.atleast_1d(array))
    return array.astype(np.float64)


def _pair(who: str, result: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple | list) or len(result) != 2:
        expected = "a pair (value, gradient) from f, because of gradient=True"
        raise ValueError(checks.message(who, expected, f"{result!r}", "Pass the gradient as a function of its own."))
    return result[0], result[1]


def _number(who: str, result: Any) -> complex:
    if isinstance(result, tuple) and len(result) == 2:
        advice = "Pass gradient=True if it is the pair (value, gradient)."
        raise ValueError(checks.message(who, "one number f(x)", "a tuple of two", advice))
    array = np.asarray(result)
    if array.size != 1 or array.dtype.kind not in "fciu":
        got = f"an array of shape {array.shape}" if array.dtype.kind in "fciu" else repr(result)
        raise ValueError(checks.message(who, "one number f(x)", got, "Sum it, or check one output at a time."))
    number: complex = array.reshape(()).item()
    return number


def _gradient(who: str, g: Any, x: Array) -> Array:
    array = np.asarray(g)
    if array.shape != x.shape or array.dtype.kind not in "fiu":
        got = f"shape {array.shape} of {array.dtype}"
        advice = "It is transposed." if x.ndim > 1 and array.shape == x.shape[::-1] else ""
        raise ValueError(checks.message(who, f"a real gradient with the shape of x, {x.shape}", got, advice))
    return array.astype(np.float64)


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
