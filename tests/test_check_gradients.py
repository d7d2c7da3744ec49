"""The checker is itself checked: what is right passes, at kinks and by either method, and what is wrong is found and named.

The planted faults are in `mutants`, their test in `test_mutants`.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from functools import cache

import matplotlib as mpl
import numpy as np
import pytest
from mutants import (
    Affine,
    D,
    K,
    N,
    NotANumber,
    OneEntryWrong,
    Squares,
    Twice,
    WeightsForgotten,
    WritesOverItsInput,
    WrongSign,
    between,
    data,
)
from numpy.testing import assert_allclose, assert_array_equal
from tables import LAYERS, LOSSES, LossRow, network
from test_bad_input import ROWS, assert_refused

import backprop as bp
from backprop.around.nesting import leaves
from backprop.gradients import disturbances, numeric
from backprop.gradients.problem import Problem, Projection

mpl.use("Agg")

EXACT, NEAR = "complex step", "Richardson differences"
NETWORKS = int(os.environ.get("BACKPROP_NETWORKS", "80"))


def rows_of(loss: LossRow, outputs: int):
    """Targets in rows for this many targets per example."""
    y = loss.target(np.random.default_rng(2), outputs, N).T
    return y.ravel() if y.size == N else y


def real_targets():
    return np.random.default_rng(0).normal(size=(N, K))


class RealOnly(bp.Layer):
    """f = h, for real numbers alone."""

    keeps_width = True

    def forward(self, h):
        if np.iscomplexobj(h):
            raise TypeError("real numbers only")
        return h.copy()

    def backward(self, dL_df):
        return dL_df.copy(), {}


class TestPasses:
    @pytest.mark.parametrize("name", LAYERS)
    def test_every_layer(self, name):
        X, _ = data()
        net = network(name, D)
        y = np.random.default_rng(1).normal(size=net.predict(X).shape)
        report = bp.check_gradients(net, bp.LeastSquares(), X, y)
        assert report.passed, str(report)
        assert report.method == EXACT
        assert report.worst.error < 1e-12
        assert [entry.name for entry in report.entries] == [*net.parameters, "X"]
        assert report.counts == tuple((p.size, p.size) for p in [*net.parameters.values(), X])

    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize("name", LOSSES)
    def test_every_loss(self, name, reduction, weighted):
        row, (X, _) = LOSSES[name], data()
        outputs = 1 if name == "BinaryCrossEntropy of probabilities" else 2
        w = np.array([0.0, 1.0, 2.0, 0.5, 3.0]) if weighted else None
        net = bp.Sequential(bp.Linear(D, 3), bp.Tanh(), bp.Linear(3, outputs * row.outputs), seed=1)
        report = bp.check_gradients(net, row.make(reduction=reduction), X, rows_of(row, outputs), w)
        assert report.passed, str(report)
        assert report.method == EXACT

    def test_a_layer_that_is_no_network(self):
        X, y = data()
        report = bp.check_gradients(bp.Linear(D, K, seed=0), bp.CrossEntropy(), X, y)
        assert report.passed
        assert [entry.name for entry in report.entries] == ["0.beta", "0.omega", "X"]

    def test_a_composite_of_one_s_own(self):
        class Gated(bp.Composite):
            """Tanh[Ω h] ⊙ σ[h]."""

            keeps_width = True

            def __init__(self, features):
                self.layers = {"value": bp.Sequential(bp.Linear(features, features), bp.Tanh()), "gate": bp.Sigmoid()}

            def forward(self, h):
                self.value, self.gate = self.layers["value"].forward(h), self.layers["gate"].forward(h)
                return self.value * self.gate

            def backward(self, dL_df):
                through_value, gradients = self.backward_child("value", dL_df * self.gate)
                through_gate, _ = self.backward_child("gate", self.factor * dL_df * self.value)
                return through_value + through_gate, gradients

            factor = 1.0

        X, y = data()
        assert bp.check_gradients(between(Gated(4)), bp.CrossEntropy(), X, y).passed
        Gated.factor = 2.0
        report = bp.check_gradients(between(Gated(4)), bp.CrossEntropy(), X, y)
        assert not report.passed
        assert report.mistakes[0].startswith("layer 1, Gated()"), report.mistakes

    def test_a_float32_network_is_checked_in_float64(self):
        X, y = data()
        report = bp.check_gradients(between(bp.GELU(), dtype="float32"), bp.CrossEntropy(), X.astype("f"), y)
        assert report.worst.error < 1e-12

    @pytest.mark.parametrize("scale", [1e-8, 1e8])
    def test_gradients_of_any_size(self, scale):
        X, _ = data()
        net = bp.Sequential(bp.Linear(D, 4), bp.Tanh(), bp.Linear(4, 2), seed=0)
        y = scale * np.random.default_rng(0).normal(size=(N, 2))
        assert bp.check_gradients(net, bp.LeastSquares(), X, y).passed

    def test_a_bias_before_batchnorm_has_a_gradient_of_zero(self):
        X, y = data()
        report = bp.check_gradients(between(bp.BatchNorm(4), bp.Tanh()), bp.CrossEntropy(), X, y)
        assert report.passed, str(report)

    @pytest.mark.parametrize("activation", [bp.Tanh, bp.ReLU])
    def test_at_the_minimum_every_gradient_is_zero(self, activation):
        X, _ = data()
        net = between(activation())
        report = bp.check_gradients(net, bp.LeastSquares(), X, net.forward(X.T).T)
        assert report.passed, str(report)
        assert report.method == EXACT
        assert report.kinks == 0

    def test_a_report_is_true_when_it_passed(self):
        X, y = data()
        assert bp.check_gradients(between(bp.Tanh()), bp.CrossEntropy(), X, y)
        assert not bp.check_gradients(between(Twice()), bp.CrossEntropy(), X, y)


FORMS = {
    "positional": lambda loss, F, y, w: bp.check_gradients(loss, F, y, w),
    "y by keyword": lambda loss, F, y, w: bp.check_gradients(loss, F, y=y, sample_weight=w),
    "weights by keyword": lambda loss, F, y, w: bp.check_gradients(loss, F, y, sample_weight=w),
    "all by keyword": lambda loss, F, y, w: bp.check_gradients(loss, X=F, y=y, sample_weight=w),
    "no network": lambda loss, F, y, w: bp.check_gradients(None, loss, F, y, w),
}


class TestAlone:
    @pytest.mark.parametrize("name", LAYERS)
    def test_layers(self, name):
        report = bp.check_gradients(network(name, D)[0], data()[0])
        assert report.passed, str(report)
        assert report.entries[-1].name == "X"

    def test_a_wrong_layer(self):
        report = bp.check_gradients(WrongSign(), data()[0])
        assert "layer 0, WrongSign(): ∂L/∂h has the wrong sign." in report.mistakes

    def test_a_whole_network(self):
        assert bp.check_gradients(between(bp.Tanh()), X=data()[0]).passed

    F, y, w = real_targets() + 1, real_targets() ** 2, np.arange(1.0, N + 1)

    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("form", FORMS)
    def test_losses(self, form, weighted):
        w = self.w if weighted else None
        report = FORMS[form](bp.LeastSquares(), self.F, self.y, w)
        assert report.passed, str(report)
        assert [entry.name for entry in report.entries] == ["f"]
        share = 2 * (np.full(N, 1 / N) if w is None else w / w.sum())[:, None]
        assert_allclose(report.tensors[0].numeric.reshape(N, K), share * (self.F - self.y), rtol=1e-13)

    @pytest.mark.parametrize("form", FORMS)
    def test_weights_are_heeded_in_every_form(self, form):
        report = FORMS[form](WeightsForgotten(), self.F, self.y, self.w)
        assert "leaves the sample weights out" in report.mistakes[0]

    @pytest.mark.parametrize("name", LOSSES)
    def test_every_loss(self, name):
        row, generator = LOSSES[name], np.random.default_rng(4)
        y = row.target(generator, 2, N).T
        assert bp.check_gradients(row.make(), generator.normal(size=(N, 2 * row.outputs)), y).passed


class TestRandomNetworks:
    """Right networks of every kind, put together at random: not one false alarm."""

    @staticmethod
    def draw(seed, *more):
        """(network, loss, X, y, weights) of one seed."""
        rng = np.random.default_rng(seed)
        N, D, k = int(rng.integers(1, 7)), int(rng.integers(1, 6)), int(rng.integers(1, 4))
        name = str(rng.choice(list(LOSSES)))
        row, k = LOSSES[name], k + name.startswith("CrossEntropy")
        layers, width = [], D
        for name in rng.choice(list(LAYERS), rng.integers(1, 5)):
            layer = LAYERS[name](width)
            if layer.in_features not in (None, width):
                layers.append(bp.Linear(width, layer.in_features))
                width = layer.in_features
            layers.append(layer)
            width = len(bp.Sequential(layers[-1].copy()).infer(np.zeros((width, 2), "f")))
            if rng.random() < 0.3:
                layers.append(bp.Linear(width, int(rng.integers(1, 6))))
                width = layers[-1].out_features
        dtype = str(rng.choice(["float32", "float64"]))
        net = bp.Sequential(
            *layers, *more, bp.Linear(width, k * row.outputs), seed=int(rng.integers(10**6)), dtype=dtype
        )
        X = rng.normal(size=(N, D))
        X = np.round(X) if rng.random() < 0.2 else X
        y = row.target(rng, k, N).T
        loss = row.make(reduction=str(rng.choice(["mean", "sum"])))
        y = y.ravel() if k == 1 else y
        w = rng.uniform(0.1, 2, N) if rng.random() < 0.5 else None
        return net, loss, X, y, w

    def test_many_by_the_complex_step(self):
        kinks, inexact, alarms = 0, 0, []
        for seed in range(NETWORKS):
            net, loss, *examples = self.draw(seed)
            report = bp.check_gradients(net, loss, *examples, max_entries=12, seed=seed)
            kinks, inexact = kinks + report.kinks, inexact + (report.method != EXACT)
            alarms += [] if report.passed else [f"{seed}: {loss!r}\n{net!r}\n{report}"]
        assert not alarms, "\n\n".join(alarms[:5])
        assert inexact <= max(3, NETWORKS / 100)  # where several kinks meet
        assert kinks > 0  # or the rounded inputs test nothing

    def test_some_by_differences(self):
        alarms = []
        for seed in range(NETWORKS // 10):
            net, loss, *examples = self.draw(seed, RealOnly())
            report = bp.check_gradients(net, loss, *examples, max_entries=10, seed=seed)
            assert report.method == NEAR
            alarms += [] if report.passed else [f"{seed}: {loss!r}\n{net!r}\n{report}"]
        assert not alarms, "\n\n".join(alarms[:5])

    @pytest.mark.parametrize(("seed", "more"), [(84, [RealOnly()]), (264, [RealOnly()]), (1178, [])])
    def test_gradients_that_cancel_and_kinks_that_meet(self, seed, more):
        """What is left of terms that cancel is rounding, not a slope; where several kinks meet, a slope may be of no side."""
        net, loss, *examples = self.draw(seed, *more)
        report = bp.check_gradients(net, loss, *examples, max_entries=12, seed=seed)
        assert report.passed, str(report)
        assert report.method == NEAR

    def test_some_of_one_s_own(self):
        """Layers and losses of classes that are not the library's, which are asked again after disturbances."""
        alarms = []
        for seed in range(NETWORKS // 3):
            net, loss, *examples = self.draw(seed)
            for part in [loss, *leaves(net)]:
                part.__class__ = own(type(part))
            report = bp.check_gradients(net, loss, *examples, max_entries=12, seed=seed)
            alarms += [] if report.passed else [f"{seed}: {loss!r}\n{net!r}\n{report}"]
        assert not alarms, "\n\n".join(alarms[:5])


@cache
def own(kind):
    """A class of one's own that is this one."""
    return type(f"My{kind.__name__}", (kind,), {"__module__": __name__})


def only(*layers):
    """A network of these layers behind one that passes h on: X is what they see."""
    return bp.Sequential(bp.Identity(), *layers, dtype="float64")


class SlopeAtZero(bp.Layer):
    """ReLU with a slope of one's own at 0."""

    keeps_width = True
    slope = 1.0

    def forward(self, h):
        self.h = h
        return h * (h.real > 0)

    def backward(self, dL_df):
        return dL_df * np.where(self.h == 0, self.slope, self.h > 0), {}


@pytest.mark.parametrize("more", [[], [RealOnly()]], ids=["complex step", "differences"])
@pytest.mark.parametrize("x", [[1.0, -1.0], [0.0, 0.0]], ids=["terms cancel", "no terms"])
def test_a_wrong_slope_at_a_kink_that_is_reached_by_cancellation(x, more):
    """In its last place h crosses the kink: that the gradient jumps there is no rounding error of it."""

    def report(slope):
        one = bp.Constant(1.0)
        layers = [bp.Linear(2, 1, initializer=one), own_slope(slope), bp.Linear(1, 1, initializer=one)]
        net = bp.Sequential(*layers, *(layer.copy() for layer in more), dtype="float64")
        return bp.check_gradients(net, bp.LeastSquares(), [x], [1.0])

    assert "no subgradient at a kink" in str(report(-5.0))
    assert report(0.5).passed


def own_slope(slope):
    layer = SlopeAtZero()
    layer.slope = slope
    return layer


AT_KINKS = {
    "ReLU at 0": (lambda: bp.ReLU(), np.zeros((2, 3)), 6),
    "ReLU at 0 here and there": (lambda: bp.ReLU(), np.array([[0.0, 1.0, -1.0], [2.0, 0.0, -3.0]]), 2),
    "LeakyReLU at 0": (lambda: bp.LeakyReLU(0.1), np.array([[0.0, 1.0, -1.0]]), 1),
    "slope 1 at 0": (lambda: own_slope(1.0), np.array([[0.0, 1.0, -1.0], [2.0, 0.0, -3.0]]), 2),
    "slope ½ at 0": (lambda: own_slope(0.5), np.array([[0.0, 1.0, -1.0], [2.0, 0.0, -3.0]]), 2),
}
y = np.array([[1.0, -2.0, 0.5], [0.0, 0.3, -4.0]])
LOSSES_AT_KINKS = {
    "AbsoluteError at f = y": (lambda: bp.AbsoluteError(), y, y, 6),
    "AbsoluteError at one f = y": (lambda: bp.AbsoluteError(), y + np.arange(6).reshape(2, 3), y, 1),
    "Pinball at f = y": (lambda: bp.Pinball([0.1, 0.5, 0.9]), np.repeat(y[:, :1], 3, axis=1), y[:, 0], 6),
    "Huber at ±δ, where it has no kink": (lambda: bp.Huber(0.5), y + np.resize([0.5, -0.5, 0, 0.5, 1], (2, 3)), y, 0),
}


class TestKinks:
    @pytest.mark.parametrize("method", [EXACT, NEAR])
    @pytest.mark.parametrize("name", AT_KINKS)
    def test_a_subgradient_of_a_layer_passes(self, name, method):
        make, X, kinks = AT_KINKS[name]
        report = bp.check_gradients(only(*([RealOnly()] if method == NEAR else []), make()), X)
        assert report.passed, str(report)
        assert report.method in (method, NEAR)
        assert report.kinks == kinks
        assert f"{kinks} at a kink" in str(report).splitlines()[0]

    @pytest.mark.parametrize("method", [EXACT, NEAR])
    @pytest.mark.parametrize("name", LOSSES_AT_KINKS)
    def test_a_subgradient_of_a_loss_passes(self, name, method):
        make, f, targets, kinks = LOSSES_AT_KINKS[name]
        net = only(RealOnly()) if method == NEAR else only(bp.Identity())
        report = bp.check_gradients(net, make(), f, targets)
        assert report.passed, str(report)
        assert report.method == method
        assert report.kinks == kinks
        assert ("at a kink" in str(report)) == bool(kinks)

    @pytest.mark.parametrize("method", [EXACT, NEAR])
    @pytest.mark.parametrize("slope", [-0.01, 1.01, 2.0, -1.0])
    def test_beyond_the_subgradients_it_fails(self, slope, method):
        X = np.array([[0.0, 1.0, -1.0], [2.0, 0.0, -3.0]])
        report = bp.check_gradients(only(*([RealOnly()] if method == NEAR else []), own_slope(slope)), X)
        assert not report.passed, str(report)
        assert report.worst.index in ((0, 0), (1, 1))

    def test_an_infinite_slope_at_a_kink_fails(self):
        assert not bp.check_gradients(only(own_slope(np.inf)), np.array([[0.0, 1.0]])).passed

    @pytest.mark.parametrize("method", [EXACT, NEAR])
    def test_a_fault_beside_kinks(self, method):
        X = np.array([[0.0, 1.0, -1.0], [2.0, 0.0, -3.0]])
        report = bp.check_gradients(only(*([RealOnly()] if method == NEAR else []), bp.ReLU(), Twice()), X)
        assert not report.passed
        assert "layer " in report.mistakes[0]
        assert "Twice()" in report.mistakes[0]

    def test_a_row_of_zeros_makes_every_unit_stand_at_its_kink(self):
        """With β = 0, Σ v relu(ω t) has a derivative by t that no choice of slopes at 0 gives: still nothing is wrong."""
        X, y = data()
        X[0] = 0
        for more in ([], [RealOnly()]):
            net = bp.Sequential(bp.Linear(D, 6), bp.ReLU(), *more, bp.Linear(6, K), seed=0, dtype="float64")
            report = bp.check_gradients(net, bp.CrossEntropy(), X, y)
            assert report.passed, str(report)
            assert report.kinks > 0

    def test_a_fault_among_many_kinks_of_a_large_network(self):
        """A direction through entries at kinks has a wide interval of slopes; a wrong entry must not hide in it."""

        class BetaWrong(bp.Linear):
            def backward(self, dL_df):
                dL_dh, gradients = super().backward(dL_df)
                gradients["beta"][40] *= 1.5
                return dL_dh, gradients

        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(8, 50)), rng.normal(size=(8, 10))
        X[0] = 0
        net = bp.Sequential(BetaWrong(50, 100), bp.ReLU(), bp.Linear(100, 10), seed=1, dtype="float64")
        report = bp.check_gradients(net, bp.LeastSquares(), X, y, max_entries=100)
        assert not report.passed, str(report)


class WithAbs(bp.Layer):
    """|h|, which abs() takes out of the complex numbers."""

    keeps_width = True
    factor = 1.0

    def forward(self, h):
        self.sign = np.sign(h.real)
        return np.abs(h)

    def backward(self, dL_df):
        return self.factor * self.sign * dL_df, {}


class Refusing(bp.Layer):
    """Refuses complex numbers with the given exception."""

    keeps_width = True
    factor = 1.0
    exception: type[Exception] = TypeError

    def forward(self, h):
        if np.iscomplexobj(h):
            raise self.exception("real numbers only")
        self.h = h
        return h * np.sqrt(h**2 + 1)

    def backward(self, dL_df):
        return self.factor * dL_df * (2 * self.h**2 + 1) / np.sqrt(self.h**2 + 1), {}


class Asserting(Refusing):
    exception = AssertionError


class Erring(Refusing):
    exception = RuntimeError


class Cast(bp.Layer):
    """Casts to float on the way."""

    keeps_width = True
    factor = 1.0

    def forward(self, h):
        self.h = np.asarray(h).astype(np.float64)
        return self.h**2

    def backward(self, dL_df):
        return self.factor * 2 * self.h * dL_df, {}


class RealPart(Cast):
    """Drops the imaginary part without a warning."""

    def forward(self, h):
        self.h = h.real
        return self.h**2


class OneTermOfRealPart(Cast):
    """Drops it in one of two terms."""

    def forward(self, h):
        self.h = h.real
        return 0.5 * h**2 + 0.5 * self.h**2


NOT_ANALYTIC = [WithAbs, Refusing, Asserting, Erring, Cast, RealPart, OneTermOfRealPart]


class TestMethods:
    @pytest.mark.parametrize("kind", NOT_ANALYTIC)
    def test_differences_where_a_layer_does_not_take_complex_numbers(self, kind):
        X, y = data()
        report = bp.check_gradients(between(kind()), bp.CrossEntropy(), X, y)
        assert (report.method, report.tolerance) == (NEAR, 1e-7)
        assert report.passed, str(report)
        assert NEAR in str(report)
        assert max(abs(tensor.numeric - tensor.analytic).max() for tensor in report.tensors) < 1e-8

    @pytest.mark.parametrize("factor", [2.0, 1.000001, -1.0])
    @pytest.mark.parametrize("kind", NOT_ANALYTIC)
    def test_they_find_faults(self, kind, factor):
        X, y = data()
        layer = kind()
        layer.factor = factor
        report = bp.check_gradients(between(layer), bp.CrossEntropy(), X, y)
        assert report.method == NEAR
        assert not report.passed
        assert f"layer 1, {kind.__name__}()" in report.mistakes[0]

    def test_a_loss_that_does_not_take_them(self):
        class Absolute(bp.Loss):
            def ell(self, f, y):
                self.sign = np.sign((f - y).real)
                return np.abs(f - y).sum(axis=0)

            def dell_df(self):
                return self.sign

        X, _ = data()
        report = bp.check_gradients(between(bp.Tanh()), Absolute(), X, np.full((N, K), 5.0))
        assert (report.method, report.passed) == (NEAR, True)

    def test_a_small_gradient_that_the_complex_step_cannot_see(self):
        """β is cast to real numbers and its gradient forgotten: both ways of looking say 0, and both are wrong."""

        class Gain(bp.Layer):
            keeps_width = True

            def __init__(self):
                self.parameters["beta"] = np.zeros(4)

            def forward(self, h):
                return h + 1e-7 * self.parameters["beta"].real[:, None]

            def backward(self, dL_df):
                return dL_df.copy(), {"beta": np.zeros(4)}

        X, y = data()
        assert not bp.check_gradients(between(Gain()), bp.CrossEntropy(), X, y).passed

    def test_warnings_of_a_cast_are_not_the_caller_s(self, recwarn):
        X, y = data()
        bp.check_gradients(between(Cast()), bp.CrossEntropy(), X, y)
        assert not recwarn.list


FUNCTIONS = {
    "exp": (np.exp, np.exp, 0.7, 1e-10),
    "a million sines": (lambda t: 1e6 * np.sin(t), lambda t: 1e6 * np.cos(t), 1.3, 1e-10),
    "a millionth of a sine": (lambda t: 1e-6 * np.sin(t), lambda t: 1e-6 * np.cos(t), 1.3, 1e-10),
    "far from 0": (lambda t: np.sin(t / 1e4), lambda t: np.cos(t / 1e4) / 1e4, 12345.0, 1e-9),
    "an argument of a millionth": (lambda t: np.cos(1 + t), lambda t: -np.sin(1 + t), 1e-6, 1e-10),
    "quick": (lambda t: np.sin(1e4 * t), lambda t: 1e4 * np.cos(1e4 * t), 1e-6, 1e-8),
    "near a kink": (lambda t: np.abs(t - 1e-5) * np.exp(t), lambda t: (t - 1e-5 + 1) * np.exp(t), 2e-5, 1e-8),
    "beside a large constant": (lambda t: 1e6 + np.sin(t), np.cos, 0.4, 1e-7),
    "a power": (lambda t: t**7, lambda t: 7 * t**6, 3.0, 1e-10),
    "undefined on one side": (lambda t: np.sqrt(t), lambda t: 0.5 / np.sqrt(t), 1e-3, 1e-9),
}


class TestNumbers:
    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_richardson_is_as_right_as_it_says(self, name):
        function, derivative, at, tolerance = FUNCTIONS[name]
        with np.errstate(all="ignore"):
            found, unsure = numeric.richardson(lambda t: complex(function(at + t)), max(1.0, abs(at)))
        assert abs(found - derivative(at)) <= max(2 * unsure, 1e-15)
        assert_allclose(found, derivative(at), rtol=tolerance)

    def test_richardson_of_nothing_finite(self):
        found, unsure = numeric.richardson(lambda t: complex(np.nan))
        assert math.isnan(found)
        assert unsure == math.inf

    def test_one_sided_slopes(self):
        left, right, kink = numeric.one_sided(lambda t: complex(abs(t) + 2 * t), 0.0)
        assert_allclose([left, right], [1, 3], rtol=1e-9)
        assert kink

    @pytest.mark.parametrize("function", [np.exp, np.sin, np.cos, lambda t: np.sin(1e5 * t), lambda t: t * t])
    def test_a_smooth_function_has_no_kink(self, function):
        assert not numeric.one_sided(lambda t: complex(function(t)), float(function(0.0)))[2]

    def test_the_complex_step(self):
        assert_allclose(numeric.complex_step(lambda t: np.exp(0.7 + t)), np.exp(0.7), rtol=1e-15)


class OneOfMany(bp.Linear):
    """∂L/∂Ω is wrong in one entry of thousands."""

    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        gradients["omega"][57, 123] *= 1.01
        return dL_dh, gradients


class TwoExchanged(bp.Linear):
    """Two entries of ∂L/∂Ω in each other's place: their errors cancel in every sum."""

    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        omega = gradients["omega"]
        omega[3, 4], omega[15, 16] = omega[15, 16].copy(), omega[3, 4].copy()
        return dL_dh, gradients


def large(layer, *more, seed=0):
    """A report of 200-100-10, of which 100 entries are drawn; `more` are classes of layers in the middle."""
    rng = np.random.default_rng(1)
    net = bp.Sequential(layer, bp.Tanh(), *(kind() for kind in more), bp.Linear(100, 10), seed=seed, dtype="float64")
    X, y = rng.normal(size=(4, 200)), rng.normal(size=(4, 10))
    return bp.check_gradients(net, bp.LeastSquares(), X, y, max_entries=100, seed=seed)


class TestSampling:
    def test_each_tensor_has_its_share(self):
        X, y = data()
        net = bp.Sequential(bp.Linear(D, 50), bp.Tanh(), bp.Linear(50, K), seed=0)
        report = bp.check_gradients(net, bp.CrossEntropy(), X, y, max_entries=60)
        assert report.passed
        assert [there for _, there in report.counts] == [50, 200, 3, 150, 20]
        assert sum(some for some, _ in report.counts) <= 60
        assert min(some for some, _ in report.counts) == 3  # the smallest tensor is checked whole
        assert "60 of 423 entries" in str(report)

    def test_the_seed_decides_which(self):
        X, y = data()
        net = bp.Sequential(bp.Linear(D, 50), bp.Tanh(), bp.Linear(50, K), seed=0)
        one, same, other = (
            [
                tensor.at.tolist()
                for tensor in bp.check_gradients(net, bp.CrossEntropy(), X, y, max_entries=60, seed=seed).tensors
            ]
            for seed in (0, 0, 1)
        )
        assert one == same
        assert one != other

    def test_less_than_one_entry_each(self):
        X, y = data()
        report = bp.check_gradients(between(bp.Tanh()), bp.CrossEntropy(), X, y, max_entries=1)
        assert all(some == 1 for some, _ in report.counts)

    @pytest.mark.parametrize("more", [[], [RealOnly]], ids=[EXACT, NEAR])
    def test_no_false_alarm_in_a_large_network(self, more):
        report = large(bp.Linear(200, 100), *more)
        assert report.passed, str(report)
        assert report.counts[1] == (len(report.tensors[1].at), 20_000)

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("more", [[], [RealOnly]], ids=[EXACT, NEAR])
    def test_one_wrong_entry_among_twenty_thousand_is_found(self, more, seed):
        report = large(OneOfMany(200, 100), *more, seed=seed)
        assert (report.worst.name, report.worst.index) == ("0.omega", (57, 123)), str(report)
        assert "layer 0, OneOfMany(200 → 100): the gradient of omega" in report.mistakes[0]
        assert "the single entry (57, 123)" in report.mistakes[0]

    def test_errors_that_cancel_are_found(self):
        missed = []
        for seed in range(20):
            rng = np.random.default_rng(seed)
            net = bp.Sequential(TwoExchanged(20, 20), bp.Tanh(), bp.Linear(20, 2), seed=seed, dtype="float64")
            X, y = rng.normal(size=(4, 20)), rng.normal(size=(4, 2))
            report = bp.check_gradients(net, bp.LeastSquares(), X, y, max_entries=20, seed=seed)
            missed += [seed] if report.passed else []
        assert not missed


class Noise(bp.Layer):
    """Random, from a generator that is made in each pass."""

    keeps_width = True

    def forward(self, h):
        self.noise = np.random.default_rng().normal(size=h.shape)
        return h * self.noise

    def backward(self, dL_df):
        return dL_df * self.noise, {}


class CountsItsCalls(Affine):
    """Each forward pass makes β larger."""

    def forward(self, h):
        self.parameters["beta"] += 0.1
        return super().forward(h)


class RememberedTargets(Squares):
    """Keeps the targets of the first batch."""

    def ell(self, f, y):
        self.f, self.first = f, getattr(self, "first", y)
        return super().ell(f, y)

    def dell_df(self):
        return 2 * (self.f - self.first)


class RememberedCount(bp.Layer):
    """h / N; backward divides by the number of examples of the first batch."""

    keeps_width = True

    def forward(self, h):
        self.count = getattr(self, "count", h.shape[1])
        return h / h.shape[1]

    def backward(self, dL_df):
        return dL_df / self.count, {}


class TestPassesThatLeaveTraces:
    def test_dropout_is_frozen(self):
        X, y = data()
        assert bp.check_gradients(between(bp.Dropout(0.5)), bp.CrossEntropy(), X, y).passed

    @pytest.mark.parametrize("where", [lambda: Noise(), lambda: bp.Sequential(bp.Tanh(), Noise())])
    def test_a_random_layer_that_cannot_be_repeated(self, where):
        X, y = data()
        with pytest.raises(
            RuntimeError,
            match=r"expected the same loss twice.*layer 1(\.1)?, Noise\(\).*a generator kept as an attribute",
        ):
            bp.check_gradients(between(where()), bp.CrossEntropy(), X, y)

    def test_a_forward_pass_that_changes_a_parameter(self):
        X, y = data()
        with pytest.raises(RuntimeError, match=r"changes parameter 1\.beta \(layer 1, CountsItsCalls\(\)\)"):
            bp.check_gradients(between(CountsItsCalls()), bp.CrossEntropy(), X, y)

    def test_a_forward_pass_that_writes_over_the_data(self):
        X, y = data()
        before = X.copy()
        net = bp.Sequential(WritesOverItsInput(), bp.Linear(D, K), seed=0, dtype="float64")
        with pytest.raises(RuntimeError, match=r"layer 0, WritesOverItsInput\(\)"):
            bp.check_gradients(net, bp.CrossEntropy(), X, y)
        assert_array_equal(X, before)

    def test_a_loss_that_keeps_its_first_targets(self):
        report = bp.check_gradients(between(bp.Tanh()), RememberedTargets(), data()[0], real_targets())
        assert not report.passed

    def test_a_layer_that_keeps_its_first_number_of_examples(self):
        report = bp.check_gradients(between(RememberedCount()), bp.LeastSquares(), data()[0], real_targets())
        assert not report.passed


class TestNothingChanges:
    @pytest.mark.parametrize("fault", [[], [Twice]], ids=["right", "wrong"])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_of_the_caller_s(self, dtype, fault):
        X, y = data()
        X = X.astype(dtype)
        net = between(bp.BatchNorm(4), bp.Dropout(0.3), bp.Tanh(), *(kind() for kind in fault), dtype=dtype)
        loss = bp.CrossEntropy()
        f = net.forward(X.T)
        L = loss.forward(f, y)
        dL_df = loss.backward()
        dL_dh, gradients = net.backward(dL_df)
        before = [array.copy() for array in (X, y, net.phi, *net.buffers.values(), dL_dh, gradients.dL_dphi)]
        bp.check_gradients(net, loss, X, y)
        assert_array_equal(loss.backward(), dL_df)
        again, gradients = net.backward(dL_df)
        after = [X, y, net.phi, *net.buffers.values(), again, gradients.dL_dphi]
        for a, b in zip(after, before, strict=True):
            assert_array_equal(a, b)
        assert net.phi.dtype == dtype
        assert math.isfinite(L)

    def test_of_a_layer(self):
        X, y = data()
        layer = bp.Linear(D, K, seed=0)
        omega = layer.parameters["omega"]
        bp.check_gradients(layer, bp.CrossEntropy(), X, y)
        assert layer.parameters["omega"] is omega
        assert bp.Sequential(layer).size == layer.size  # it still belongs to no network

    def test_of_a_loss_alone(self):
        loss, f, y = bp.Huber(0.5), real_targets(), real_targets() ** 2
        loss.forward(f.T, y.T)
        dL_df = loss.backward()
        bp.check_gradients(loss, f + 1, y)
        assert_array_equal(loss.backward(), dL_df)


class TestReport:
    def test_one_that_passed(self):
        X, y = data()
        text = str(bp.check_gradients(between(bp.Tanh()), bp.CrossEntropy(), X, y))
        title, _, *tensors = text.splitlines()
        assert title == "Gradient check passed: complex step, 55 of 55 entries, tolerance 1e-10"
        assert [line.split()[0] for line in tensors] == ["0.beta", "0.omega", "2.beta", "2.omega", "X"]
        assert "wrong" not in text

    def test_one_that_failed(self):
        X, y = data()
        report = bp.check_gradients(between(OneEntryWrong(4, 4)), bp.CrossEntropy(), X, y)
        text = str(report)
        assert text.startswith("Gradient check FAILED: complex step, 75 of 75 entries")
        assert [line.split()[0] for line in text.splitlines() if "← wrong" in line] == ["1.omega"]
        number = r"\D+? (-?[\d.e-]+)"
        worst = rf"Worst entry 1\.omega\[2, 1\]:{number},{number} \((.*?)\) Likely"
        found = re.search(worst, " ".join(text.split()))
        assert math.isclose(float(found[1]), report.worst.analytic, rel_tol=1e-10)
        assert math.isclose(float(found[2]), report.worst.numeric, rel_tol=1e-10)
        assert math.isclose(report.worst.analytic, 1.001 * report.worst.numeric, rel_tol=1e-10)
        assert found[3] == "layer 1, OneEntryWrong(4 → 4)"
        assert " ".join(text.split()).endswith(f"Likely mistake: {report.mistakes[0]}")

    def test_nan_is_the_worst(self):
        X, y = data()
        report = bp.check_gradients(between(NotANumber()), bp.CrossEntropy(), X, y)
        assert math.isnan(report.worst.analytic)
        assert report.worst.error == math.inf
        assert "← wrong" in str(report)

    @pytest.mark.parametrize("middle", [bp.Tanh, Twice])
    def test_forty_tensors_fit_a_screen(self, middle):
        X, y = data()
        layers = [layer for _ in range(20) for layer in (bp.Linear(4, 4), middle())]
        net = bp.Sequential(*layers, bp.Linear(4, K), seed=0)
        report = bp.check_gradients(net, bp.CrossEntropy(), X, y)
        text = str(report)
        assert len(report.tensors) == 43
        assert len(text.splitlines()) <= 24
        assert f"and {43 - 14} more" in text
        assert report.passed == (middle is bp.Tanh)
        assert report.worst.name in text or report.passed

    def test_it_does_not_change(self):
        X, y = data()
        report = bp.check_gradients(between(bp.Tanh()), bp.CrossEntropy(), X, y)
        for thing, name in ((report, "mistakes"), (report.tensors[0], "errors"), (report.worst, "error")):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(thing, name, ())

    def test_reports_can_be_compared_and_kept_in_sets(self):
        X, y = data()
        one, other = (bp.check_gradients(between(bp.Tanh()), bp.CrossEntropy(), X, y) for _ in range(2))
        assert isinstance(one == other, bool)
        assert len({one, one}) == 1

    @pytest.mark.parametrize("fault", [None, lambda: OneEntryWrong(4, 4)], ids=["right", "wrong"])
    def test_the_picture_has_a_point_for_each_entry(self, fault):
        import matplotlib.pyplot as plt

        X, y = data()
        report = bp.check_gradients(between(fault() if fault else bp.Tanh()), bp.CrossEntropy(), X, y)
        axes = report.plot()
        points = [np.asarray(drawn.get_offsets()) for drawn in axes.collections]
        assert sum(map(len, points)) == sum(checked for checked, _ in report.counts)
        assert sum(map(len, points[1:])) == (1 if fault else 0)
        if fault:
            assert_allclose(points[1][0], [report.worst.numeric, report.worst.analytic])
            assert axes.collections[0].get_facecolor().tolist() != axes.collections[1].get_facecolor().tolist()
        assert report.plot(axes) is axes
        plt.close(axes.figure)


class WrongNames(Affine):
    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        return dL_dh, {"beta": gradients["beta"], "weight": gradients["omega"]}


class NameMissing(Affine):
    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        return dL_dh, {"omega": gradients["omega"]}


class BetaPerExample(Affine):
    def dL_dbeta(self, dL_df):
        return dL_df.sum(axis=0)


class InputInRows(Affine):
    def dL_dh(self, dL_df):
        return super().dL_dh(dL_df).T


class InputSummed(Affine):
    def dL_dh(self, dL_df):
        return super().dL_dh(dL_df).sum(axis=1)


class NoInputGradient(Affine):
    def dL_dh(self, dL_df):
        return None


class PairTurnedRound(Affine):
    def backward(self, dL_df):
        return super().backward(dL_df)[::-1]


class NoPair(bp.Tanh):
    def backward(self, dL_df):
        return super().backward(dL_df)[0]


class NotSquare(bp.Layer):
    """4 → 2, with ∂L/∂Ω transposed."""

    in_features, out_features = 4, 2

    def __init__(self):
        self.parameters["omega"] = np.random.default_rng(0).normal(size=(2, 4))

    def forward(self, h):
        self.h = h
        return self.parameters["omega"] @ h

    def backward(self, dL_df):
        return self.parameters["omega"].T @ dL_df, {"omega": self.h @ dL_df.T}


class LossSummed(Squares):
    def dell_df(self):
        return (2 * self.d).sum(axis=0)


MISSHAPEN = {
    WrongNames: (ValueError, ["['beta', 'omega']", "['beta', 'weight']", "one gradient per parameter"]),
    NameMissing: (ValueError, ["['beta', 'omega']", "['omega']", "one gradient per parameter"]),
    BetaPerExample: (ValueError, ["'beta' with shape (4,)", "(5,)", "wrong axis"]),
    NotSquare: (ValueError, ["'omega' with shape (2, 4)", "(4, 2)", "transposed"]),
    InputInRows: (ValueError, ["shape of h, (4, 5)", "(5, 4)"]),
    InputSummed: (ValueError, ["shape of h, (4, 5)", "(4,)"]),
    NoInputGradient: (ValueError, ["shape of h, (4, 5)"]),
    PairTurnedRound: (TypeError, ["a pair (dL_dh, gradients)", "tuple"]),
    NoPair: (TypeError, ["a pair (dL_dh, gradients)", "ndarray"]),
}


class TestBadInput:
    def check(self, *, net=None, loss=None, X=None, y=None, w=None, **settings):
        good_X, good_y = data()
        return bp.check_gradients(
            net or between(bp.Tanh()),
            bp.CrossEntropy() if loss is None else loss,
            good_X if X is None else X,
            good_y if y is None else y,
            w,
            **settings,
        )

    @pytest.mark.parametrize("bad", [bad for bad in ROWS if bad not in ("none", "beyond float32")])
    def test_inputs(self, bad):
        X, error, parts = ROWS[bad]
        net = bp.Sequential(bp.Linear(3, 2), seed=0)
        y = np.zeros(5, int)
        assert_refused(lambda: bp.check_gradients(net, bp.CrossEntropy(), X, y), error, "check_gradients", *parts)

    @pytest.mark.parametrize(
        ("settings", "error", "parts"),
        [
            ({"net": "net"}, TypeError, ["net: a Layer", "'net'"]),
            ({"net": bp.Linear}, TypeError, ["net: a Layer", "Linear"]),
            ({"loss": bp.CrossEntropy}, TypeError, ["loss: a Loss", "CrossEntropy"]),
            ({"loss": "mse"}, TypeError, ["loss: a Loss", "'mse'"]),
            ({"y": np.zeros(4, int)}, ValueError, ["(5,)", "(4,)"]),
            ({"y": [0, 1, 2, 3, 0]}, ValueError, ["0 … 2", "3 at row 3"]),
            ({"y": list("abcab")}, TypeError, ["Encode text"]),
            ({"w": np.ones(4)}, ValueError, ["sample_weight", "(5,)"]),
            ({"w": -np.ones(5)}, ValueError, ["sample_weight", "≥ 0"]),
            ({"max_entries": 0}, ValueError, ["max_entries ≥ 1"]),
            ({"max_entries": 2.5}, TypeError, ["max_entries"]),
            ({"max_entries": True}, TypeError, ["max_entries"]),
            ({"seed": "a"}, TypeError, ["check_gradients", "seed"]),
            ({"seed": -1}, ValueError, ["check_gradients", "seed"]),
        ],
        ids=str,
    )
    def test_others(self, settings, error, parts):
        if not isinstance(settings.get("net", None), type) and not isinstance(settings.get("loss"), type):
            assert_refused(lambda: self.check(**settings), error, *parts)
        else:
            with pytest.raises(error, match=parts[0]) as caught:
                self.check(**settings)
            assert f"Write {parts[1]}(…)." in str(caught.value)

    @pytest.mark.parametrize(
        ("arguments", "names"),
        [
            ((bp.LeastSquares(),), "X|F|f"),
            ((bp.LeastSquares(), np.ones((5, 3))), "y"),
            ((bp.Linear(4, 3),), "X"),
            ((bp.Linear(4, 3), bp.LeastSquares()), "X"),
            ((bp.Linear(4, 3), np.ones((5, 4)), np.ones((5, 3))), "loss: a Loss"),
            ((None,), "a Loss|a Layer"),
        ],
        ids=["loss alone", "loss without y", "layer alone", "layer without X", "y without a loss", "None"],
    )
    def test_arguments_that_are_missing(self, arguments, names):
        with pytest.raises((TypeError, ValueError), match=f"check_gradients: expected .*({names})"):
            bp.check_gradients(*arguments)

    @pytest.mark.parametrize("kind", MISSHAPEN)
    def test_gradients_that_do_not_fit(self, kind):
        error, parts = MISSHAPEN[kind]
        name = f"{kind.__name__}(4 → 2)" if kind is NotSquare else f"{kind.__name__}()"
        assert_refused(lambda: bp.check_gradients(kind(), data()[0]), error, f"{name}.backward", *parts)

    def test_a_gradient_in_rows_deep_inside_names_its_layer(self):
        X, y = data()
        with pytest.raises(ValueError, match=r"InputInRows\(\)\.backward.*\(4, 5\).*\(5, 4\)"):
            bp.check_gradients(between(InputInRows()), bp.CrossEntropy(), X, y)

    def test_a_gradient_of_a_loss_that_does_not_fit(self):
        with pytest.raises(ValueError, match=r"LossSummed\(\).*\(3, 5\).*\(5,\)"):
            bp.check_gradients(LossSummed(), real_targets() + 1, real_targets())

    def test_weights_that_leave_one_example(self):
        X, y = data()
        for n in range(len(X)):
            report = bp.check_gradients(between(bp.Tanh()), bp.CrossEntropy(), X, y, np.eye(len(X))[n])
            assert report.passed, str(report)

    def test_a_loss_that_is_not_finite(self):
        X, _ = data()
        with pytest.raises(ValueError, match=r"expected a finite loss, got (inf|nan)"), np.errstate(all="ignore"):
            bp.check_gradients(between(bp.Exp()), bp.Poisson(), 1e4 * X, np.ones((N, K), int))


class Log(bp.Layer):
    """Defined for h > 0 only; the subclass leaves a factor out."""

    keeps_width = True
    factor = 1.0

    def forward(self, h):
        self.h = h
        return np.log(h)

    def backward(self, dL_df):
        return self.factor * dL_df / self.h, {}


class LogTwice(Log):
    factor = 2.0


@pytest.mark.parametrize("small", [1e-4, 1e-12])
@pytest.mark.parametrize("layer", [Log, LogTwice])
def test_a_kink_beside_a_layer_of_limited_domain(layer, small):
    """Where a second look is needed, it must not leave the domain, nor may a fault hide there."""
    kinked = bp.Sequential(bp.Linear(2, 2, initializer=bp.Constant(0)), bp.ReLU())
    net = bp.Sequential(bp.FanOut(layer(), kinked), bp.Linear(4, 1, seed=0), dtype="float64")
    report = bp.check_gradients(net, bp.LeastSquares(), np.array([[small, 1.0], [2 * small, 0.5]]), np.ones(2))
    assert report.passed == (layer is Log), report
    # At 1e-12 the gradients of the other feature are nothing beside those of the first, which is what is said.
    said = "a factor 2 too much" if small > 1e-6 else "wrong in feature 0 alone"
    assert layer is Log or ("LogTwice()" in report.mistakes[0] and said in report.mistakes[0])


class TestDisturbances:
    """Parts of the library are not asked by `check_gradients`: they are asked here, every one of them."""

    @pytest.mark.parametrize("name", LAYERS)
    @pytest.mark.parametrize("n", [1, 2, 5])
    def test_no_layer_is_disturbed(self, name, n):
        layer, h = LAYERS[name](4), np.random.default_rng(n).normal(size=(n, 4))
        problem = Problem("test", layer, Projection(), h, None, dtype=np.float64)
        with np.errstate(all="ignore"):
            assert list(disturbances.of_part(problem)) == []

    @pytest.mark.parametrize("name", LOSSES)
    @pytest.mark.parametrize("n", [1, 2, 5])
    def test_no_loss_is_disturbed(self, name, n):
        row, rng = LOSSES[name], np.random.default_rng(n)
        y = row.target(rng, 3, n)
        net = bp.Sequential(bp.Linear(2, 3 * row.outputs), seed=0, dtype="float64")
        X = rng.normal(size=(n, 2))
        problem = Problem("test", net, row.make(), X, y.T, dtype=np.float64).of_loss()
        with np.errstate(all="ignore"):
            assert list(disturbances.of_part(problem)) == []


class InFloat32(bp.Layer):
    """tanh, computed in float32 whatever comes in."""

    keeps_width = True

    def forward(self, h):
        self.h = h.real.astype(np.float32)
        return np.tanh(self.h).astype(h.dtype)

    def backward(self, dL_df):
        return (1 - np.tanh(self.h) ** 2) * dL_df, {}


@pytest.mark.parametrize("seed", range(max(12, NETWORKS // 20)))
def test_no_false_alarm_for_layers_that_compute_in_float32(seed):
    rng = np.random.default_rng(seed)
    D, width, n = rng.integers(1, 7, 3)
    net = bp.Sequential(bp.Linear(D, width), InFloat32(), bp.Linear(width, 2), seed=seed)
    report = bp.check_gradients(net, bp.LeastSquares(), rng.normal(size=(n, D)), rng.normal(size=(n, 2)))
    assert report.passed, report


@pytest.mark.parametrize("offset", [1e4, 1e6, 1e8])
def test_no_false_alarm_for_a_normalization_far_out(offset):
    X = np.random.default_rng(0).normal(size=(6, 3)) + offset
    net = bp.Sequential(bp.BatchNorm(3), bp.Linear(3, 1), seed=0)
    assert bp.check_gradients(net, bp.LeastSquares(), X, np.zeros(6)).passed
    assert bp.check_gradients(bp.BatchNorm(3), X).passed


def test_kinks_that_cancel_hide_no_wrong_gradient():
    """f = max(x, 0) − max(−x, 0) is x: at x = 0 its slope is 1, and backward says 0."""
    net = bp.Sequential(bp.Linear(1, 2, bias=False), bp.ReLU(), bp.Linear(2, 1, bias=False), dtype="float64")
    net[0].omega, net[2].omega = [[1.0], [-1.0]], [[1.0, -1.0]]
    assert not bp.check_gradients(net, bp.LeastSquares(), np.zeros((1, 1)), np.ones(1)).passed
    assert bp.check_gradients(net, bp.LeastSquares(), np.full((1, 1), 0.5), np.ones(1)).passed


class ClipsInside(bp.Tanh):
    def backward(self, dL_df):
        return super().backward(np.clip(dL_df, -2, 2))


class KeptAtConstruction(bp.Layer):
    def __init__(self, D, K):
        self.in_features, self.out_features = D, K
        self.parameters["omega"] = np.random.default_rng(0).normal(size=(K, D))
        self.transposed = self.omega.T.copy()

    def forward(self, h):
        self.h = h
        return self.omega @ h

    def backward(self, dL_df):
        return self.transposed @ dL_df, {"omega": dL_df @ self.h.T}


class WrongForFour(bp.Tanh):
    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        return dL_dh * (2 if dL_df.shape[1] == 4 else 1), gradients


class RefusesOne(bp.Layer):
    keeps_width = couples_examples = True

    def forward(self, h):
        if h.shape[1] < 2:
            raise ValueError("two")
        return h - h.mean(axis=1, keepdims=True)

    def backward(self, dL_df):
        return dL_df - dL_df.mean(axis=1, keepdims=True), {}

    def infer(self, h):
        return h


class WritesOverTargets(bp.Loss):
    def ell(self, f, y):
        y -= f
        self.d = y
        return (y * y).sum(axis=0)

    def dell_df(self):
        return -2 * self.d


class SoftmaxLayer(bp.Layer):
    keeps_width = True

    def forward(self, h):
        e = np.exp(h - h.real.max(axis=0))
        self.f = e / e.sum(axis=0)
        return self.f

    def backward(self, dL_df):
        return self.f * (dL_df - (dL_df * self.f).sum(axis=0)), {}


class TestSecondThoughts:
    """What a hunt for false passes and false alarms has found."""

    @pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7, 8])
    def test_wrong_for_one_number_of_examples(self, n):
        assert not bp.check_gradients(WrongForFour(), np.random.default_rng(0).normal(size=(n, 3))).passed

    @pytest.mark.parametrize(
        ("make", "words"),
        [(ClipsInside, "not linear in ∂L/∂f"), (lambda: KeptAtConstruction(3, 2), "wrong for others")],
    )
    def test_wrong_elsewhere(self, make, words):
        report = bp.check_gradients(make(), np.random.default_rng(0).normal(size=(6, 3)))
        assert not report.passed
        assert words in report.mistakes[0]

    def test_targets_written_over(self):
        rng = np.random.default_rng(0)
        X, Y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
        assert "writes over the targets" in bp.check_gradients(WritesOverTargets(), Y, Y[::-1]).mistakes[0]
        net, before = bp.Sequential(bp.Linear(3, 2), seed=0, dtype="float64"), Y.copy()
        trainer = bp.Trainer(net, WritesOverTargets(), bp.SGD(0.1))
        assert trainer.evaluate(X, Y) == trainer.evaluate(X, Y)
        assert_array_equal(Y, before)

    @pytest.mark.parametrize("n", [2, 3, 6])
    def test_a_layer_may_refuse_single_examples(self, n):
        assert bp.check_gradients(RefusesOne(), np.random.default_rng(0).normal(size=(n, 3))).passed

    @pytest.mark.parametrize("far", [1.0, 10.0, 15.0, 20.0])
    def test_a_saturated_softmax_is_right(self, far):
        assert bp.check_gradients(SoftmaxLayer(), np.array([[0.0, far]])).passed
