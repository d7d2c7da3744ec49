"""Gradient check: what `backward` returns against derivatives found from `forward` alone.

Everything runs in float64 on copies, so nothing of the caller's is changed. Where the code takes complex numbers the judge is
the complex step, exact to rounding; else Richardson-extrapolated central differences (see `numeric`). `comparison`
holds the two side by side.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.gradients import diagnosis, disturbances, experiments, numeric
from backprop.gradients.comparison import MOST_ENTRIES, Comparison, measure
from backprop.gradients.diagnosis import MOST_MISTAKES
from backprop.gradients.numeric import Point
from backprop.gradients.problem import Problem, Projection
from backprop.gradients.report import GradientReport, Tensor
from backprop.layers import Identity, Layer
from backprop.losses import Loss


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
    layer = Identity() if net is None else net
    problem = Problem(who, layer, loss or Projection(), X, y, sample_weight, dtype=np.float64).present()
    problem.inputs = "f" if net is None else "X"
    report = compared(problem, max_entries, seed)
    if not report.passed:
        return report
    with np.errstate(all="ignore"):
        return dataclasses.replace(report, mistakes=tuple(disturbances.disturbed(problem))[:MOST_MISTAKES])


def compared(problem: Problem, max_entries: int | None = None, seed: int = 0) -> GradientReport:
    """Gradients and derivatives for these very examples and, if they differ, why."""
    try:
        report, doubtful = measure(problem, max_entries, seed)
    except ValueError:
        experiments.every_layer_fits(problem)  # raises in the name of the layer to blame, not of the one that noticed
        raise
    if doubtful:  # a wrong slope may hide between the slopes to both sides of a kink, or in rounding errors
        moved = problem.beside(checks.generator(problem.who, seed))
        with np.errstate(all="ignore"):
            there = math.isfinite(moved.fresh().value().real)  # not if the data lies at the border of a layer's domain
        beside = measure(moved, max_entries, seed)[0] if there else report
        if there and not beside.passed:
            return diagnosis.explained(beside, moved)
        if there and not report.passed and not report.mistakes and not diagnosis.blames(problem):
            return dataclasses.replace(report, tensors=tuple(_forgiven(t, report.tolerance) for t in report.tensors))
    return report if report.passed else diagnosis.explained(report, problem)


def _forgiven(tensor: Tensor, tolerance: float) -> Tensor:
    """Where several kinks meet, a slope between the two sides of each need not give one between the two sides of L."""
    several = ~(tensor.errors <= tolerance)
    errors, kinks = np.where(several, 0.0, tensor.errors), tensor.kinks | several
    return dataclasses.replace(tensor, errors=errors, kinks=kinks, direction=min(tensor.direction, tolerance))


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

    values: Any = (lambda at: _pair(who, f(at))[0]) if pair else f
    slopes: Any = (lambda at: _pair(who, f(at))[1]) if pair else gradient

    def value(at: Array) -> complex:
        return _number(who, values(at.copy()))

    L = value(x).real
    if not math.isfinite(L) or np.iscomplexobj(value(x)):
        raise ValueError(checks.message(who, "a finite real number f(x)", repr(value(x))))
    if value(x) != L:
        expected, advice = "the same f(x) twice", "Fix its random numbers."
        raise RuntimeError(checks.message(who, expected, "two different numbers", advice))

    beside = x * (1 - numeric.BESIDE)
    slopes(beside)  # what is remembered from another x must not matter
    _or_nan(lambda: value(beside))
    g = _gradient(who, slopes(x.copy()), x)

    def point(dtype: type) -> Point:
        moved = x.astype(dtype)
        return Point({"x": moved}, lambda: _or_nan(lambda: value(moved)))

    most = checks.integer(who, "max_entries", MOST_ENTRIES if max_entries is None else max_entries)
    with np.errstate(all="ignore"):
        report = Comparison({"x": g}, point, L, checks.generator(who, seed), {}).report(most, {})
    return report if report.passed else diagnosis.explained_function(report, x, g, dict(sizes or {}))


def _or_nan(value: Callable[[], complex]) -> complex:
    """NaN where f is not defined: beside x it need not be."""
    try:
        return value()
    except Exception:
        return math.nan


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
