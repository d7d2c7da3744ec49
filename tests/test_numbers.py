"""The numbers at the edges: at zeros and denormals, far from zero and at ±∞, values and slopes are those of 50 digits.

An expected number is the formula in 50 digits at exactly the point that the dtype holds, rounded to the dtype: ±inf where it
overflows, and at ±∞ the limit. A number may be off by 4 units in the last place (of a denormal: by 4 of the smallest ones), so a
slope of 10⁻¹⁸ is no 0. Where more is allowed, the table says why.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose

import backprop as bp

mp = mpmath.MPContext()  # one of our own: its digits are nobody else's
mp.dps = 50

ULPS = 4
INF, NAN = math.inf, math.nan
DTYPES = ["float32", "float64"]

every_dtype = pytest.mark.parametrize("dtype", DTYPES)
ignoring = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # to overflow is what many points are for


def points(dtype: Any) -> np.ndarray:
    """Both zeros, both smallest denormals, and what exponentials make of ±20 to ±∞."""
    smallest = np.finfo(dtype).smallest_subnormal
    sizes = [0, smallest, 1, 20, 40, 88, 104, 745, 1e4, 1e30, INF]
    return np.array([sign * np.asarray(size, dtype) for sign in (-1, 1) for size in sizes], dtype)


def sigma(h: Any) -> Any:
    return 1 / (1 + mp.exp(-h))


def softplus(h: Any) -> Any:
    return mp.log1p(mp.exp(h))


@dataclass(frozen=True)
class Activation:
    """One activation: value and slope of a finite number in 50 digits, and both limits as (at −∞, at ∞)."""

    make: Callable[[], bp.Layer]
    value: Callable[[Any], Any]
    slope: Callable[[Any], Any]
    values: tuple[float, float]
    slopes: tuple[float, float]
    sensitivity: Callable[[float], float] = lambda h: 0.0  # units in the last place by which e.g. a rounded h² is felt
    product: bool = False  # f = h ⊙ g: where g is denormal, h multiplies its rounding


def elu(alpha: float) -> Activation:
    return Activation(
        lambda: bp.ELU(alpha),
        lambda h: h if h > 0 else alpha * mp.expm1(h),
        lambda h: 1 if h > 0 else alpha * mp.exp(h),
        values=(-alpha, INF),
        slopes=(0, 1),
    )


def leaky(c: float) -> Activation:
    return Activation(
        lambda: bp.LeakyReLU(c),
        lambda h: h if h > 0 else c * h,
        lambda h: 1 if h > 0 else c,
        values=(-INF if c else 0, INF),
        slopes=(c, 1),
    )


ACTIVATIONS: dict[str, Activation] = {
    "ReLU": Activation(bp.ReLU, lambda h: max(h, 0), lambda h: int(h > 0), (0, INF), (0, 1)),
    "LeakyReLU(0.01)": leaky(0.01),
    "LeakyReLU(0)": leaky(0.0),
    "ELU(1)": elu(1.0),
    "ELU(0.5)": elu(0.5),
    "Sigmoid": Activation(bp.Sigmoid, sigma, lambda h: sigma(h) * sigma(-h), (0, 1), (0, 0)),
    "Tanh": Activation(bp.Tanh, mp.tanh, lambda h: mp.sech(h) ** 2, (-1, 1), (0, 0)),
    "SiLU": Activation(
        bp.SiLU,
        lambda h: h * sigma(h),
        lambda h: sigma(h) * (1 + h * sigma(-h)),
        (0, INF),
        (0, 1),
        product=True,
    ),
    "GELU": Activation(
        bp.GELU,
        lambda h: h * mp.ncdf(h),
        lambda h: mp.ncdf(h) + h * mp.npdf(h),
        (0, INF),
        (0, 1),
        sensitivity=lambda h: min(h * h, 1500),  # of e^(−h²/2), which is 0 for h² > 1500
    ),
    "Softplus": Activation(bp.Softplus, softplus, sigma, (0, INF), (0, 1)),
    "Sin": Activation(bp.Sin, mp.sin, mp.cos, (NAN, NAN), (NAN, NAN)),  # no limit
    "Cos": Activation(bp.Cos, mp.cos, lambda h: -mp.sin(h), (NAN, NAN), (NAN, NAN)),
    "Exp": Activation(bp.Exp, mp.exp, mp.exp, (0, INF), (0, INF)),
    "Identity": Activation(bp.Identity, lambda h: h, lambda h: 1, (-INF, INF), (1, 1)),
}
every_activation = pytest.mark.parametrize("name", ACTIVATIONS)


def rounded(number: Any, dtype: Any) -> Any:
    """A number of 50 digits in the dtype; inf beyond its range."""
    with np.errstate(over="ignore", under="ignore"):
        return np.dtype(dtype).type(float(number))


@functools.cache
def expected(name: str, what: str, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Values or slopes of an activation at all points, and by how much a result may differ from them."""
    row, h = ACTIVATIONS[name], points(dtype)
    at, limits = (row.value, row.values) if what == "value" else (row.slope, row.slopes)
    f = np.array([rounded(at(mp.mpf(float(x))) if math.isfinite(x) else limits[int(x > 0)], dtype) for x in h])
    ulps = ULPS + np.array([row.sensitivity(float(x)) for x in h])
    if row.product:
        denormal = (f != 0) & (np.abs(f) < np.finfo(dtype).tiny)
        ulps *= np.where(denormal, np.maximum(1, np.abs(h)), 1)
    return f, units(f) * ulps


def units(f: np.ndarray) -> np.ndarray:
    """The distance from each number to the next; 0 where it is not finite."""
    return np.where(np.isfinite(f), np.spacing(np.abs(np.where(np.isfinite(f), f, 0))), 0).astype(float)


def assert_numbers(found: Any, f: np.ndarray, tolerance: Any, at: np.ndarray) -> None:
    """Each finite number within its tolerance, each other one the same; says at which points it is not so."""
    found = np.asarray(found)
    assert found.shape == f.shape
    assert found.dtype == f.dtype
    with np.errstate(all="ignore"):
        near = np.abs(found.astype(float) - f.astype(float)) <= tolerance
    right = np.where(np.isfinite(f), near, (found == f) | (np.isnan(found) & np.isnan(f)))
    wrong = [f"at {at[k]!s}: {found[k]!s}, not {f[k]!s}" for k in np.flatnonzero(~right)]
    assert not wrong, "\n".join(["", *wrong])


@ignoring
class TestLayers:
    @every_dtype
    @every_activation
    @pytest.mark.parametrize("method", ["forward", "infer"])
    def test_values(self, method, name, dtype):
        h = points(dtype)
        assert_numbers(getattr(ACTIVATIONS[name].make(), method)(h), *expected(name, "value", dtype), h)

    @every_dtype
    @every_activation
    def test_slopes(self, name, dtype):
        layer, h = ACTIVATIONS[name].make(), points(dtype)
        layer.forward(h)
        assert_numbers(layer.backward(np.ones_like(h))[0], *expected(name, "slope", dtype), h)

    @every_dtype
    @every_activation
    def test_do_not_depend_on_what_is_beside_them(self, name, dtype):
        """A column each; what NumPy vectorizes and what is left over differ in the last places at most."""
        layer, h = ACTIVATIONS[name].make(), points(dtype)
        each = [layer.forward(h[k : k + 1, None]) for k in range(len(h))]
        assert_numbers(np.concatenate(each)[:, 0], *expected(name, "value", dtype), h)

    @every_dtype
    @every_activation
    def test_nothing_overflows_on_the_way(self, name, dtype):
        """So nobody is warned of an answer that is right."""
        layer, h = ACTIVATIONS[name].make(), points(dtype)
        h = h[np.isfinite(h) & np.isfinite(expected(name, "value", dtype)[0])]
        with np.errstate(divide="raise", over="raise", invalid="raise"):
            layer.forward(h)
            layer.backward(np.ones_like(h))
            layer.infer(h)

    @pytest.mark.parametrize(
        ("layer", "h"),
        [(bp.Tanh(), 20), (bp.Tanh(), -20), (bp.Sigmoid(), 40), (bp.Sigmoid(), -40), (bp.ELU(), -40), (bp.SiLU(), -40)],
        ids=str,
    )
    def test_saturated_slopes_pass_the_check(self, layer, h):
        report = bp.check_gradients(layer, [[float(h)]])
        assert report.passed, report
        assert report.method == "complex step"

    def test_an_overflow_inside_a_network(self):
        assert bp.Sequential(bp.Exp(), bp.Sigmoid()).predict([[100.0]]) == 1
        assert bp.Sequential(bp.Exp(), bp.Tanh()).predict([[100.0]]) == 1

    @every_dtype
    @pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 49])
    def test_normalization_of_numbers_that_are_all_alike(self, n, dtype):
        for number in (1e6 + 0.3, -0.1, 1e-3 / 3, 1e30):
            alike = np.full((n, 1), number, dtype)
            for layer, h in ((bp.LayerNorm(n), alike), (bp.BatchNorm(1), alike.T)):
                assert not layer.forward(h).any(), layer
            assert not bp.LayerNorm(n).infer(alike).any()


@dataclass(frozen=True)
class Row:
    """One loss of one example: its target y, its outputs f at a point x, and ℓ and ∂ℓ/∂f in 50 digits and at both limits."""

    make: Callable[..., bp.Loss]
    y: Any
    f: Callable[[Any], list[Any]]
    value: Callable[[Any], Any]
    slope: Callable[[Any], list[Any]]
    values: tuple[float, float]
    slopes: tuple[list[float], list[float]]
    terms: float = 0  # size of terms that may cancel: an error of 4 ulps of this is theirs


def difference(make: Callable[..., bp.Loss], y: float, value: Any, slope: Any, ends: tuple[list[float], ...]) -> Row:
    """A loss of d = f − y; ends: its limits (ℓ, ∂ℓ/∂f) at −∞ and at ∞."""
    (low, low_slope), (high, high_slope) = ends
    return Row(
        *(make, [y], lambda x: [x]),
        lambda x: value(x - y),
        lambda x: [slope(x - y)],
        values=(low, high),
        slopes=([low_slope], [high_slope]),
    )


def huber(d: Any) -> Any:
    return d * d / 2 if abs(d) <= 1 else abs(d) - mp.mpf(1) / 2


def pinball(quantiles: list[float], y: float) -> Row:
    """Every quantile at the same f."""

    def slope(x):
        d = y - x
        return [-q if d > 0 else 1 - mp.mpf(q) if d < 0 else 0 for q in quantiles]

    return Row(
        *(lambda **settings: bp.Pinball(quantiles, **settings), [y], lambda x: [x] * len(quantiles)),
        lambda x: sum(s * (x - y) for s in slope(x)),
        slope,
        values=(INF, INF),
        slopes=([-q for q in quantiles], [1 - q for q in quantiles]),
    )


def certain(y: float) -> Row:
    """BinaryCrossEntropy of y = 0 or 1: ℓ = log(1 + e^∓f), and no digit is lost where the answer is right."""
    sign = 1 if y else -1
    return Row(
        *(bp.BinaryCrossEntropy, [y], lambda x: [x]),
        lambda x: softplus(-sign * x),
        lambda x: [-sign * sigma(-sign * x)],
        values=(INF, 0) if y else (0, INF),
        slopes=([-1.0], [0.0]) if y else ([0.0], [1.0]),
    )


def softmax(x: Any, others: list[int], right: int | None) -> tuple[Any, list[Any]]:
    """ℓ and ∂ℓ/∂f of the logits x and `others`, by probabilities; right: the label."""
    e = [mp.exp(x), *map(mp.exp, others)]
    p = [each / sum(e) for each in e]
    return -mp.log(p[right]), [each - (k == right) for k, each in enumerate(p)]


def classes(others: list[int], right: int, low: tuple[float, list[float]]) -> Row:
    """CrossEntropy of one logit x among others; low: ℓ and ∂ℓ/∂f without it. At x = ∞ there is a test of its own."""
    return Row(
        *(bp.CrossEntropy, [right], lambda x: [x, *others]),
        lambda x: softmax(x, others, right)[0],
        lambda x: softmax(x, others, right)[1],
        values=(low[0], NAN),
        slopes=(low[1], [NAN] * (1 + len(others))),
        terms=1,  # p − y, and log Σ e^z ≥ log 1
    )


def gaussian(y: float, f: Callable[[Any], list[Any]], values: Any, slopes: Any) -> Row:
    """GaussianNLL with f = (μ, s)."""

    def value(x):
        mean, s = f(x)
        return (s + (y - mean) ** 2 * mp.exp(-s) + mp.log(2 * mp.pi)) / 2

    def slope(x):
        mean, s = f(x)
        return [(mean - y) * mp.exp(-s), (1 - (y - mean) ** 2 * mp.exp(-s)) / 2]

    return Row(bp.GaussianNLL, [y], f, value, slope, values, slopes)


SQUARES = (lambda d: d * d, lambda d: 2 * d, ((INF, -INF), (INF, INF)))
ABSOLUTE = (abs, mp.sign, ((INF, -1), (INF, 1)))
HUBER = (huber, lambda d: max(-1, min(d, 1)), ((INF, -1), (INF, 1)))

LOSSES: dict[str, Row] = {
    "LeastSquares, y = 0": difference(bp.LeastSquares, 0.0, *SQUARES),
    "LeastSquares, y = 1": difference(bp.LeastSquares, 1.0, *SQUARES),
    "AbsoluteError, y = 0": difference(bp.AbsoluteError, 0.0, *ABSOLUTE),
    "AbsoluteError, y = 1": difference(bp.AbsoluteError, 1.0, *ABSOLUTE),
    "Huber, y = 0": difference(bp.Huber, 0.0, *HUBER),
    "Huber, y = 1": difference(bp.Huber, 1.0, *HUBER),
    "Pinball, y = 0": pinball([0.1, 0.5, 0.99], 0.0),
    "Pinball, y = 1": pinball([0.1, 0.5, 0.99], 1.0),
    "CrossEntropy, the right one of two": classes([0], 0, (INF, [-1.0, 1.0])),
    "CrossEntropy, the wrong one of two": classes([0], 1, (0, [0.0, 0.0])),
    "CrossEntropy, one of three": classes([0, 1], 1, (float(mp.log1p(mp.e)), [0.0, *softmax(-1e9, [0, 1], 1)[1][1:]])),
    "BinaryCrossEntropy, y = 0": certain(0.0),
    "BinaryCrossEntropy, y = 1": certain(1.0),
    "BinaryCrossEntropy, y = 1/4": Row(
        *(bp.BinaryCrossEntropy, [0.25], lambda x: [x]),
        lambda x: softplus(x) - x / 4,
        lambda x: [sigma(x) - mp.mpf(1) / 4],
        values=(INF, INF),
        slopes=([-0.25], [0.75]),
        terms=1,  # σ − y
    ),
    "Poisson, y = 0": Row(
        *(bp.Poisson, [0.0], lambda x: [x], mp.exp, lambda x: [mp.exp(x)]), values=(0, INF), slopes=([0.0], [INF])
    ),
    "Poisson, y = 1": Row(
        *(bp.Poisson, [1.0], lambda x: [x], lambda x: mp.exp(x) - x, lambda x: [mp.expm1(x)]),
        values=(INF, INF),
        slopes=([-1.0], [INF]),
    ),
    "GaussianNLL, of the mean, y = 0": gaussian(0, lambda x: [x, 0], (INF, INF), ([-INF, -INF], [INF, -INF])),
    "GaussianNLL, of the mean, y = 1": gaussian(1, lambda x: [x, 0], (INF, INF), ([-INF, -INF], [INF, -INF])),
    "GaussianNLL, of the variance, μ = y": gaussian(1, lambda x: [1, x], (-INF, INF), ([0.0, 0.5], [0.0, 0.5])),
    "GaussianNLL, of the variance, μ ≠ y": gaussian(1, lambda x: [2, x], (INF, INF), ([INF, -INF], [0.0, 0.5])),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


@functools.cache
def expected_loss(name: str, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs f (K, N) at all points, ℓ (N,), and ∂ℓ/∂f (K, N)."""
    row, at = LOSSES[name], points(dtype)
    f = np.array([row.f(x) for x in at], dtype).T
    exact = [mp.mpf(float(x)) if math.isfinite(x) else x for x in at]
    ell = [row.value(x) if math.isfinite(x) else row.values[int(x > 0)] for x in exact]
    dell_df = [row.slope(x) if math.isfinite(x) else row.slopes[int(x > 0)] for x in exact]
    return (
        f,
        np.array([rounded(each, dtype) for each in ell]),
        np.array([[rounded(each, dtype) for each in column] for column in dell_df]).T,
    )


@ignoring
class TestLosses:
    @every_dtype
    @every_loss
    def test_values(self, name, dtype):
        row, (f, ell, _) = LOSSES[name], expected_loss(name, dtype)
        y = np.repeat(row.y, f.shape[1])
        tolerance = ULPS * (units(ell) + row.terms * np.finfo(dtype).eps)
        known, at = ~np.isnan(ell), points(dtype)
        assert_numbers(row.make().per_example(f, y).astype(dtype)[known], ell[known], tolerance[known], at[known])
        each = [row.make().forward(f[:, k : k + 1], y[k : k + 1]) for k in np.flatnonzero(known)]
        assert_numbers(np.array(each, dtype), ell[known], tolerance[known], at[known])

    @every_dtype
    @every_loss
    def test_slopes(self, name, dtype):
        row, (f, _, dell_df) = LOSSES[name], expected_loss(name, dtype)
        loss, at = row.make(reduction="sum"), points(dtype)
        loss.forward(f, np.repeat(row.y, f.shape[1]))
        for found, slope in zip(loss.backward(), dell_df, strict=True):
            known = ~np.isnan(slope)
            tolerance = ULPS * (units(slope) + row.terms * np.finfo(dtype).eps)
            assert_numbers(found[known], slope[known], tolerance[known], at[known])

    @every_dtype
    def test_cross_entropy_without_a_class(self, dtype):
        """A logit of −∞ is a class that is ruled out."""
        loss = bp.CrossEntropy()
        tolerance, p = ULPS * np.finfo(dtype).eps, float(sigma(1))
        assert abs(loss.forward(np.array([[0.0], [1.0], [-INF]], dtype), [0]) - 1.3132616875182228) <= tolerance
        assert_allclose(loss.backward()[:, 0], [-p, p, 0], rtol=0, atol=tolerance)

    @every_dtype
    def test_cross_entropy_of_an_infinite_logit_is_no_wrong_number(self, dtype):
        """An overflow: the limit, or nan."""
        for label, limit in ((0, 0), (1, INF)):
            L = bp.CrossEntropy().forward(np.array([[INF], [1.0]], dtype), [label])
            assert math.isnan(L) or limit == L

    def test_gaussian_of_a_tiny_variance(self):
        loss = bp.GaussianNLL()
        L = loss.forward(np.array([[1.0], [-90.0]], np.float32), [1.0])
        assert math.isclose(L, -44.08106146679533, rel_tol=ULPS * 1.2e-7)
        assert loss.backward().tolist() == [[0], [0.5]]

    @pytest.mark.parametrize("loss", [bp.LeastSquares(), bp.AbsoluteError(), bp.Huber()], ids=repr)
    def test_targets_that_are_all_alike_have_no_r2(self, loss):
        """Also where their mean, rounded, is another number."""
        for n in (1, 2, 3, 7, 10, 49):
            for y in (0.1, -0.3, 1e6 / 3, 1e-30, 0.0):
                for w in (None, np.arange(1.0, n + 1)):
                    for dtype in DTYPES:
                        assert loss.metrics(np.full((1, n), 0.2, dtype), np.full((1, n), y, dtype), w) == {}
        for y in ([[1e6, 1e6 + 1]], [[0.1, 0.1 + 1e-9]], [[1e-30, 0]]):
            assert loss.metrics(np.array(y), np.array(y)) == {"r2": 1}


# Operations of Value by the activation that is the same function.
OPERATIONS = {"exp": "Exp", "sin": "Sin", "cos": "Cos", "tanh": "Tanh", "relu": "ReLU", "sigmoid": "Sigmoid"}


@ignoring
class TestValue:
    @every_dtype
    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_values_and_gradients(self, operation, dtype):
        h = points(dtype)
        v = bp.Value(h)
        f = getattr(v, operation)()
        f.sum().backward()
        assert_numbers(f.data, *expected(OPERATIONS[operation], "value", dtype), h)
        assert_numbers(v.grad, *expected(OPERATIONS[operation], "slope", dtype), h)

    @every_dtype
    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_nothing_overflows_on_the_way(self, operation, dtype):
        h = points(dtype)
        v = bp.Value(h[np.isfinite(h) & np.isfinite(expected(OPERATIONS[operation], "value", dtype)[0])])
        raising = functools.partial(np.errstate, divide="raise", over="raise", invalid="raise")
        with raising():
            f = getattr(v, operation)()
        total = f.sum()  # of e⁸⁸, say, which may overflow
        with raising():
            total.backward()

    @every_dtype
    def test_of_log(self, dtype):
        h = points(dtype)
        h = h[~np.signbit(h)]
        v = bp.Value(h)
        f = v.log()
        f.sum().backward()
        exact = [mp.mpf(float(x)) for x in h]
        value = np.array([rounded(mp.log(x), dtype) for x in exact])
        slope = np.array([rounded(1 / x if x else INF, dtype) for x in exact])
        assert_numbers(f.data, value, ULPS * units(value), h)
        assert_numbers(v.grad, slope, ULPS * units(slope), h)

    @every_dtype
    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_of_complex_data_are_the_same(self, operation, dtype):
        """So the complex step may judge them far from zero, too."""
        h = points(dtype)
        h = h[np.abs(h) < 80]
        kind = np.result_type(dtype, np.complex64)
        v, real = bp.Value(h.astype(kind)), bp.Value(h)
        for value in (v, real):
            getattr(value, operation)().sum().backward()
        tolerance = 2 * ULPS * units(real.grad)
        assert_numbers(v.grad.real, real.grad, tolerance, h)
        assert_numbers(v.grad.imag, np.zeros_like(h), tolerance, h)
