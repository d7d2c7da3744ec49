"""`check_function` on right and wrong gradients of other people's functions, and on bad input of every kind."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from test_bad_input import assert_refused

import backprop as bp

EXACT, NEAR = "complex step", "Richardson differences"
POINT = np.linspace(0.5, 2, 8)


def real(x):
    """X as real numbers, and a TypeError for complex ones, as compiled code has it."""
    if np.iscomplexobj(x):
        raise TypeError("real numbers only")
    return x


def single(x):
    """X in float32."""
    return np.asarray(x.real, np.float32)


A = np.random.default_rng(0).normal(size=(4, 3))
RIGHT = {
    "squares": (lambda x: (x**2).sum(), lambda x: 2 * x, POINT, EXACT),
    "a matrix": (lambda X: ((A.T @ X) ** 2).sum(), lambda X: 2 * A @ A.T @ X, np.ones((4, 2)), EXACT),
    "three axes": (lambda X: np.sin(X).sum(), np.cos, np.linspace(0, 1, 12).reshape(2, 3, 2), EXACT),
    "a number": (lambda x: x**3, lambda x: 3 * x**2, np.float64(2.0), EXACT),
    "a Python float": (lambda x: np.exp(x), np.exp, 0.3, EXACT),
    "a list": (lambda x: (x**2).sum(), lambda x: 2 * x, [1.0, -2.0], EXACT),
    "float32 x": (lambda x: (x**2).sum(), lambda x: 2 * x, POINT.astype("f"), EXACT),
    "read-only x": (lambda x: (x**2).sum(), lambda x: 2 * x, np.broadcast_to(0.5, 3), EXACT),
    "a Fortran-ordered x": (lambda X: (A * X).sum(), lambda X: A, np.asfortranarray(A**2), EXACT),
    "an array of one entry": (lambda x: (x**2).sum(keepdims=True), lambda x: 2 * x, POINT, EXACT),
    "an L2 penalty": (lambda x: np.cos(x).sum() + 0.1 * x @ x, lambda x: -np.sin(x) + 0.2 * x, POINT, EXACT),
    "a gradient as a list": (lambda x: (x**2).sum(), lambda x: (2 * x).tolist(), POINT, EXACT),
    "real numbers only": (lambda x: np.sin(real(x)).sum(), np.cos, POINT, NEAR),
    "math.exp": (lambda x: math.exp(x[0]) * x[1], lambda x: [math.exp(x[0]) * x[1], math.exp(x[0])], POINT[:2], NEAR),
    "a norm": (lambda x: np.linalg.norm(x), lambda x: x / np.linalg.norm(x), POINT, NEAR),
    "the absolute value": (lambda x: np.abs(x).sum(), np.sign, POINT - 1.1, NEAR),
    "a small x of real numbers": (lambda x: np.log(real(x)).sum(), lambda x: 1 / x, np.array([1e-8, 0.5, 2]), NEAR),
    "a small x": (lambda x: np.log(x).sum(), lambda x: 1 / x, np.array([1e-8, 0.5, 2]), EXACT),
    "quick waves": (lambda x: np.sin(1e6 * x).sum(), lambda x: 1e6 * np.cos(1e6 * x), 1e-6 * POINT, None),
    "at the minimum": (lambda x: (x**2).sum() + 3, lambda x: 2 * x, np.zeros(3), EXACT),
    "a constant": (lambda x: 3.0, np.zeros_like, POINT, EXACT),
    "in whole numbers": (lambda x: 7, np.zeros_like, POINT, EXACT),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_gradients_pass(name):
    f, gradient, x, method = RIGHT[name]
    report = bp.check_function(f, gradient, x)
    assert report.passed, str(report)
    assert report.method == method or method is None
    assert report.kinks == 0
    assert report.counts == ((np.size(x), np.size(x)),)
    assert report.worst.name == "x"
    pair = bp.check_function(lambda x: (f(x), gradient(x.real)), True, x)
    assert pair.passed, str(pair)


@pytest.mark.parametrize("factor", [-1.0, 1.01, 1 + 1e-6])
@pytest.mark.parametrize(
    "name", [name for name in RIGHT if name not in ("at the minimum", "a constant", "in whole numbers")]
)
def test_wrong_gradients_fail(name, factor):
    f, gradient, x, _ = RIGHT[name]
    report = bp.check_function(f, lambda x: factor * np.asarray(gradient(x)), x)
    assert not report.passed, str(report)
    assert "∂f/∂x" in report.mistakes[0]


@pytest.mark.parametrize("name", ["at the minimum", "a constant", "in whole numbers"])
def test_wrong_gradients_where_the_right_one_is_zero(name):
    f, gradient, x, _ = RIGHT[name]
    assert not bp.check_function(f, lambda x: np.asarray(gradient(x)) + 1e-3, x).passed


@pytest.mark.parametrize("wrong", [False, True])
def test_objectives_of_scipy(wrong):
    from scipy.optimize import rosen, rosen_der

    x = np.array([-1.2, 1.0, 0.7, 2.0])
    report = bp.check_function(rosen, (lambda x: rosen_der(x) + (x == 0.7)) if wrong else rosen_der, x)
    assert report.passed == (not wrong), str(report)
    assert report.worst.error < 1e-13 or wrong
    assert not wrong or "the single entry (2,)" in report.mistakes[0]


def logistic(w, X, y, strength):
    """Value and gradient of regularized logistic regression, the mean over examples and an L2 penalty."""
    p = 1 / (1 + np.exp(-X @ w))
    value = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean() + 0.5 * strength * w @ w
    return value, X.T @ (p - y) / len(y) + strength * w


CHANGES = {  # what is added to the right gradient, as a function of (gradient without penalty, w), and what is said
    "a sum for the mean": (lambda g, w: 29 * g + 29 * 0.1 * w, "30 times", "a sum over examples against a mean"),
    "a sum for the mean, the penalty right": (lambda g, w: 29 * g, "the number of examples", "one term only"),
    "the penalty forgotten": (lambda g, w: -0.1 * w, "-0.1 times x itself", "L2 penalty"),
    "the penalty twice": (lambda g, w: 0.1 * w, "0.1 times x itself", "L2 penalty"),
    "the sign": (lambda g, w: -2 * (g + 0.1 * w), "wrong sign", ""),
}


class TestMistakes:
    X, y = np.random.default_rng(1).normal(size=(30, 6)), np.random.default_rng(2).integers(0, 2, 30)
    w = np.random.default_rng(3).normal(size=6)

    @pytest.mark.parametrize("name", CHANGES)
    def test_of_a_regression(self, name):
        change, *words = CHANGES[name]

        def gradient(w):
            right = logistic(w, self.X, self.y, 0.1)[1]
            return right + change(right - 0.1 * w, w)

        report = bp.check_function(
            lambda w: logistic(w, self.X, self.y, 0.1)[0], gradient, self.w, sizes={"examples": 30, "features": 6}
        )
        assert not report.passed
        for word in words:
            assert word in report.mistakes[0]

    def test_the_right_one(self):
        assert bp.check_function(lambda w: logistic(w, self.X, self.y, 0.1), True, self.w).passed

    @pytest.mark.parametrize(
        ("sizes", "words"), [({"outputs": 5}, "the number of outputs"), (None, "a constant factor")]
    )
    def test_sizes_give_a_factor_its_name(self, sizes, words):
        report = bp.check_function(lambda x: (x**2).sum(), lambda x: 10 * x, POINT, sizes=sizes)
        assert words in report.mistakes[0]

    def test_a_transposed_gradient(self):
        X = np.random.default_rng(0).normal(size=(3, 3))
        report = bp.check_function(lambda X: (X @ X @ X).trace(), lambda X: 3 * X @ X, X)
        assert "is transposed" in report.mistakes[0]

    def test_the_gradient_of_the_first_x_for_ever(self):
        class Remembered:
            """A cache without a key."""

            def __call__(self, x):
                self.first = getattr(self, "first", 2 * x)
                return self.first

        assert not bp.check_function(lambda x: (x**2).sum(), Remembered(), POINT).passed


class TestFloat32:
    """A function that computes in float32 is noisy: what cannot be known is no error, and what can be known is found."""

    @staticmethod
    def f(x):
        return float((np.sin(single(x)) * single(x)).sum())

    @staticmethod
    def gradient(x):
        return np.sin(x) + x * np.cos(x)

    @pytest.mark.parametrize("seed", range(20))
    def test_a_right_gradient_passes(self, seed):
        x = np.random.default_rng(seed).normal(size=10)
        report = bp.check_function(self.f, self.gradient, x)
        assert report.passed, str(report)

    @pytest.mark.parametrize("seed", range(20))
    def test_one_per_cent_is_found(self, seed):
        x = np.random.default_rng(seed).normal(size=10)
        assert not bp.check_function(self.f, lambda x: 1.01 * self.gradient(x), x).passed


class TestKinks:
    @pytest.mark.parametrize("slope", [-1.0, -0.3, 0.0, 1.0])
    @pytest.mark.parametrize("f", [lambda x: np.abs(x).sum(), lambda x: np.where(x.real > 0, x, -x).sum()])
    def test_any_subgradient_passes(self, f, slope):
        report = bp.check_function(f, lambda x: np.where(x == 0, slope, np.sign(x)), np.array([0.0, 1.0, -2.0, 0.0]))
        assert report.passed, str(report)
        assert report.kinks == 2
        assert "2 at a kink" in str(report)

    @pytest.mark.parametrize("slope", [-1.01, 1.01, 3.0])
    def test_nothing_else_does(self, slope):
        report = bp.check_function(
            lambda x: np.abs(x).sum(), lambda x: np.where(x == 0, slope, np.sign(x)), np.array([0.0, 1.0, -2.0])
        )
        assert not report.passed
        assert report.worst.index == (0,)

    def test_a_fault_beside_a_kink(self):
        report = bp.check_function(
            lambda x: np.abs(x).sum(), lambda x: np.where(x > 0, 1.1, np.sign(x)), np.array([0.0, 1.0, -2.0])
        )
        assert report.worst.index == (1,)


class TestManyEntries:
    x = np.random.default_rng(0).normal(size=3000)

    def test_one_wrong_of_thousands(self):
        report = bp.check_function(
            lambda x: np.sin(x).sum(), lambda x: np.cos(x) + 0.01 * (np.arange(len(x)) == 1234), self.x, max_entries=50
        )
        assert report.worst.index == (1234,)
        assert "the single entry (1234,)" in report.mistakes[0]
        assert report.counts == ((51, 3000),)

    def test_all_right(self):
        for f in (lambda x: np.sin(x).sum(), lambda x: np.sin(real(x)).sum()):
            report = bp.check_function(f, np.cos, self.x, max_entries=50)
            assert report.passed, str(report)
            assert report.counts == ((50, 3000),)

    def test_the_seed_decides_which(self):
        one, same, other = (
            bp.check_function(lambda x: np.sin(x).sum(), np.cos, self.x, max_entries=20, seed=seed).tensors[0].at
            for seed in (0, 0, 1)
        )
        assert_array_equal(one, same)
        assert not np.array_equal(one, other)


class TestNothingChanges:
    def test_x_stays_as_it_is(self):
        x = POINT.copy()

        def f(at):
            value = (at**2).sum()
            at *= 0  # even if f writes over what it is given
            return value

        def gradient(at):
            found = 2 * at
            at *= 0
            return found

        assert bp.check_function(f, gradient, x).passed
        assert_array_equal(x, POINT)

    def test_the_numbers_are_those_of_the_gradient(self):
        tensor = bp.check_function(lambda x: (x**2).sum(), lambda x: 3 * x, POINT).tensors[0]
        assert_array_equal(tensor.analytic, 3 * POINT)
        assert_allclose(tensor.numeric, 2 * POINT, rtol=1e-15)


def squares(x):
    return (x**2).sum()


def slopes(x):
    return 2 * x


def sometimes(x, generator=np.random.default_rng(0)):  # noqa: B008
    """A random f."""
    return squares(x) + generator.normal()


BAD = {
    "whole numbers": (squares, slopes, np.arange(3), TypeError, ["floating point", "int64", "x.astype(float)"]),
    "a list of whole numbers": (squares, slopes, [1, 2], TypeError, ["floating point", "x.astype(float)"]),
    "booleans": (squares, slopes, np.array([True]), TypeError, ["floating point", "bool"]),
    "complex x": (squares, slopes, np.ones(2) * 1j, TypeError, ["real", "complex128"]),
    "text": (squares, slopes, "abc", TypeError, ["floating point"]),
    "None": (squares, slopes, None, TypeError, ["floating point"]),
    "objects": (squares, slopes, np.array([1.0, None]), TypeError, ["floating point", "object"]),
    "empty": (squares, slopes, np.empty(0), (TypeError, ValueError), ["shape (0,)"]),
    "masked": (squares, slopes, np.ma.array([1.0, 2.0], mask=[0, 1]), TypeError, ["x"]),
    "NaN in x": (squares, slopes, np.array([1.0, np.nan]), ValueError, ["finite values in x", "nan", "1"]),
    "inf in x": (squares, slopes, np.array([[1.0, np.inf]]), ValueError, ["finite values in x", "inf"]),
    "f gives NaN": (lambda x: np.nan, slopes, POINT, ValueError, ["a finite real number f(x)", "nan"]),
    "f gives inf": (lambda x: -np.inf, slopes, POINT, ValueError, ["a finite real number f(x)", "-inf"]),
    "f gives an array": (lambda x: x**2, slopes, POINT, ValueError, ["one number f(x)", "(8,)", "Sum it"]),
    "f gives nothing": (lambda x: None, slopes, POINT, ValueError, ["one number f(x)", "None"]),
    "f gives text": (lambda x: "1", slopes, POINT, ValueError, ["one number f(x)", "'1'"]),
    "f gives complex": (lambda x: squares(x) + 1j, slopes, POINT, ValueError, ["a finite real number f(x)", "j"]),
    "f gives a pair": (lambda x: (squares(x), slopes(x)), slopes, POINT, ValueError, ["one number f(x)"]),
    "f is random": (sometimes, slopes, POINT, RuntimeError, ["the same f(x) twice", "random"]),
    "f is a number": (3.0, slopes, POINT, TypeError, ["functions f and gradient", "3.0"]),
    "gradient is an array": (squares, POINT, POINT, TypeError, ["functions f and gradient"]),
    "gradient is False": (squares, False, POINT, TypeError, ["functions f and gradient", "False"]),
    "gradient is None": (squares, None, POINT, TypeError, ["functions f and gradient", "None"]),
    "gradient of another shape": (squares, lambda x: x[:3], POINT, ValueError, ["(8,)", "(3,)"]),
    "gradient is one number": (squares, lambda x: 2.0, POINT, ValueError, ["(8,)", "()"]),
    "gradient transposed": (
        squares,
        lambda x: 2 * x.T,
        np.ones((3, 2)),
        ValueError,
        ["(3, 2)", "(2, 3)", "transposed"],
    ),
    "gradient flattened": (squares, lambda x: 2 * x.ravel(), np.ones((3, 2)), ValueError, ["(3, 2)", "(6,)"]),
    "gradient complex": (squares, lambda x: 2j * x, POINT, ValueError, ["real gradient", "complex128"]),
    "gradient of objects": (squares, lambda x: x.astype(object), POINT, ValueError, ["real gradient", "object"]),
    "gradient is nothing": (squares, lambda x: None, POINT, ValueError, ["real gradient"]),
    "no pair": (squares, True, POINT, (TypeError, ValueError), ["pair"]),
    "a pair of one": (lambda x: (squares(x),), True, POINT, (TypeError, ValueError), ["pair"]),
    "a pair turned round": (lambda x: (slopes(x), squares(x)), True, POINT, ValueError, ["one number f(x)"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name(name):
    f, gradient, x, error, parts = BAD[name]
    if isinstance(error, tuple):
        with pytest.raises(error, match="check_function: expected") as caught:
            bp.check_function(f, gradient, x)
        assert all(part in str(caught.value) for part in parts)
    else:
        assert_refused(lambda: bp.check_function(f, gradient, x), error, "check_function", *parts)


@pytest.mark.parametrize(
    ("settings", "error", "word"),
    [
        ({"max_entries": 0}, ValueError, "max_entries ≥ 1"),
        ({"max_entries": 2.5}, TypeError, "max_entries"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": "a"}, TypeError, "seed"),
    ],
)
def test_settings_that_are_wrong(settings, error, word):
    assert_refused(lambda: bp.check_function(squares, slopes, POINT, **settings), error, "check_function", word)


def test_an_error_of_f_is_the_caller_s():
    def f(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        bp.check_function(f, slopes, POINT)


@pytest.mark.parametrize("exception", [TypeError, ValueError, AssertionError, RuntimeError, ZeroDivisionError])
def test_whatever_f_says_to_complex_numbers(exception):
    def f(x):
        if np.iscomplexobj(x):
            raise exception("real numbers only")
        return (x**2).sum()

    report = bp.check_function(f, slopes, POINT)
    assert report.passed
    assert report.method == NEAR


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_fails(value):
    report = bp.check_function(squares, lambda x: np.where(x == x[2], value, 2 * x), POINT)
    assert not report.passed
    assert "NaN or inf, first at (2,)" in report.mistakes[0]
    assert "← wrong" in str(report)


@pytest.mark.parametrize("weight", [1e-3, 1e-5, 1e-6])
def test_a_small_term_that_drops_its_imaginary_part(weight):
    def f(x):
        return (x**2).sum() + weight * np.abs(x).sum()

    assert bp.check_function(f, lambda x: 2 * x + weight * np.sign(x), POINT).passed
    report = bp.check_function(f, slopes, POINT)
    assert not report.passed
    assert report.method == NEAR


@pytest.mark.parametrize("value", [lambda x: np.floor(x).sum(), lambda x: float(np.sum(x > 0)) + 5])
def test_a_function_that_is_flat_everywhere(value):
    x = np.array([0.3, -1.4, 2.6])
    assert bp.check_function(value, np.zeros_like, x).passed
    assert not bp.check_function(value, lambda x: np.full_like(x, 1e-3), x).passed


def test_a_missing_term_is_not_taken_for_a_factor_of_zero():
    report = bp.check_function(lambda x: (x**2).sum() + np.exp(x).sum(), slopes, POINT)
    assert not report.passed
    assert "penalty" not in report.mistakes[0]


class TestOutsideTheDomain:
    @pytest.mark.parametrize("error", [ValueError, np.linalg.LinAlgError, KeyError, ZeroDivisionError])
    def test_an_error_beside_the_point_is_no_answer(self, error):
        def f(x):
            if x.real.min() < 0.04:
                raise error("not here")
            return -np.log(x).sum()

        assert bp.check_function(f, lambda x: -1 / x, np.array([0.05, 0.3])).passed
        assert not bp.check_function(f, lambda x: -1.01 / x, np.array([0.05, 0.3])).passed

    def test_of_math(self):
        assert bp.check_function(lambda x: -math.log(x[0]), lambda x: -1 / x, np.array([0.05])).passed

    def test_an_error_at_the_point_is_the_error(self):
        with pytest.raises(ZeroDivisionError):
            bp.check_function(lambda x: 1 / 0, lambda x: x, np.ones(2))


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_a_function_of_tiny_numbers(factor):
    def f(x):
        return float(np.sin(np.abs(x * 1e12)).sum())

    def gradient(x):
        return factor * 1e12 * np.sign(x) * np.cos(np.abs(x * 1e12))

    assert bp.check_function(f, gradient, np.array([1e-12, -2e-12])).passed == (factor == 1)
